//! Bodies and heads: what is decoded, and what is too large. Each with real clients of HTTP/1.1 and HTTP/2.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use reqwest::{Client, Response};
use serde_json::Value;
use spillway_e2e::upstream::sha256_hex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::{Proxy, World, client_builder, message};

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// A client of each version.
fn clients() -> [(&'static str, Client); 2] {
    // Whoever makes the first one installs the TLS provider.
    let _ = crate::support::client();
    [
        ("HTTP/1.1", client_builder().http1_only().build().unwrap()),
        (
            "HTTP/2",
            client_builder().http2_prior_knowledge().build().unwrap(),
        ),
    ]
}

async fn send(client: &Client, proxy: &Proxy, key: &str, coding: &str, body: Vec<u8>) -> Response {
    client
        .post(format!("{}/v1/messages", proxy.url()))
        .header("x-api-key", key)
        .header("content-encoding", coding)
        .body(body)
        .send()
        .await
        .unwrap()
}

#[tokio::test]
async fn a_body_in_gzip_reaches_the_plan_decoded() {
    let world = World::create().await;
    let proxy = world.start().await;
    let plain = message(&"a long prompt ".repeat(5_000), true).to_string();
    for (version, client) in clients() {
        let sent = gzip(plain.as_bytes());
        let response = send(&client, &proxy, world.key.expose(), "gzip", sent).await;
        assert_eq!(response.status(), 200, "{version}");
        assert!(response.text().await.unwrap().contains("message_stop"));
        let seen = world.fakes.plan.requests().pop().unwrap();
        assert_eq!(seen.body_sha256, sha256_hex(plain.as_bytes()));
        assert_eq!(seen.header("content-encoding"), None);
        assert_eq!(
            seen.header("content-length"),
            Some(plain.len().to_string().as_str())
        );
    }
    // The decoded size is what an interrupted call would be charged by.
    assert!(world.rows(2).await.iter().all(|row| !row.estimated));
}

#[tokio::test]
async fn a_bomb_is_413_and_leaves_no_memory_behind() {
    let world = World::create().await;
    let proxy = world.start().await;
    let bomb = gzip(&vec![b' '; 256 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024);
    for (version, client) in clients() {
        let response = send(&client, &proxy, world.key.expose(), "gzip", bomb.clone()).await;
        assert_eq!(response.status(), 413, "{version}");
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["type"], "request_too_large");
    }
    assert_eq!(proxy.metric("spillway_body_bytes").await, Some(0.0));
    assert_eq!(world.fakes.journal.count(None), 0);
}

#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_400() {
    let world = World::create().await;
    let proxy = world.start().await;
    let plain = message("hello", false).to_string().into_bytes();
    for (_, client) in clients() {
        for coding in ["gzip", "br"] {
            let response = send(&client, &proxy, world.key.expose(), coding, plain.clone()).await;
            assert_eq!(response.status(), 400, "{coding}");
            let error: Value = response.json().await.unwrap();
            assert_eq!(error["error"]["type"], "invalid_request_error");
            assert!(error["error"]["message"].as_str().unwrap().contains("gzip"));
        }
    }
    assert_eq!(world.fakes.journal.count(None), 0);
}

#[tokio::test]
async fn bodies_at_the_limit_pass_and_beyond_it_are_413_in_both_versions() {
    const LIMIT: usize = 32 * 1024 * 1024;
    let world = World::create().await;
    let proxy = world.start().await;
    let mut body = message("hello", false).to_string().into_bytes();
    body.resize(LIMIT, b' ');
    for (version, client) in clients() {
        let key = world.key.expose();
        let response = send(&client, &proxy, key, "identity", body.clone()).await;
        assert_eq!(response.status(), 200, "{version}");
        let over = [&body[..], b" "].concat();
        let response = send(&client, &proxy, key, "identity", over).await;
        assert_eq!(response.status(), 413, "{version}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_431() {
    let world = World::create().await;
    let proxy = world.start().await;
    let many = "x-flood: 1\r\n".repeat(200);
    let large = format!("x-flood: {}\r\n", "x".repeat(100 * 1024));
    for flood in [many, large] {
        let mut socket = TcpStream::connect(proxy.address()).await.unwrap();
        let head = format!("POST /v1/messages HTTP/1.1\r\nhost: x\r\n{flood}\r\n");
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
    }
    let (_, http2) = &clients()[1];
    let response = http2
        .post(format!("{}/v1/messages", proxy.url()))
        .header("x-flood", "x".repeat(100 * 1024))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 431);
    assert_eq!(world.fakes.journal.count(None), 0);
}

#[tokio::test]
async fn an_answer_in_gzip_that_nobody_asked_for_passes_and_is_metered() {
    let whole = br#"{"type":"message","content":[],"usage":{"input_tokens":21,"output_tokens":8}}"#;
    let stream = b"event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":21,\"output_tokens\":1}}}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":8}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    for (content_type, plain) in [
        ("application/json", &whole[..]),
        ("text/event-stream", &stream[..]),
    ] {
        let stubborn = stubborn(content_type, gzip(plain)).await;
        let mut world = World::create().await;
        world
            .tenant
            .change_pool(|pool| pool.plan_api_url = Some(stubborn.clone()))
            .await;
        let mut proxy = world.spawn(&[("PROXY_ALLOWED_UPSTREAMS", &stubborn)]);
        proxy.ready().await;
        let client = client_builder().build().unwrap();
        let body = message("hello", content_type == "text/event-stream");
        let response = send(
            &client,
            &proxy,
            world.key.expose(),
            "identity",
            body.to_string().into_bytes(),
        )
        .await;
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(response.bytes().await.unwrap(), gzip(plain));
        let rows = world.rows(1).await;
        assert_eq!(
            (
                rows[0].input_tokens,
                rows[0].output_tokens,
                rows[0].estimated
            ),
            (21, 8, false),
            "{content_type}"
        );
    }
}

/// An upstream that answers everything with these bytes, in gzip, whatever it is asked for.
async fn stubborn(content_type: &'static str, body: Vec<u8>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().fallback(move || async move {
        (
            [("content-type", content_type), ("content-encoding", "gzip")],
            body,
        )
    });
    tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
    url
}
