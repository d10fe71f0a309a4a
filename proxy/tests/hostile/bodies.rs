//! Bodies of any size, coding, depth and width.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures::future::join_all;

use crate::support::{MODEL, Proxy, World, client};
use crate::wire::{Wire, post};
use crate::{assert_bounded, assert_serves};

const MB: usize = 1024 * 1024;
/// `PROXY_BODY_BUDGET_MB` of these tests.
const BUDGET_MB: u64 = 64;

async fn start(world: &World) -> Proxy {
    world.start_with(&[("PROXY_BODY_BUDGET_MB", "64")]).await
}

/// Posts a body and returns the answer's status and `error.type`.
async fn ask(proxy: &Proxy, key: &str, path: &str, body: Vec<u8>, gzip: bool) -> (u16, String) {
    let mut request = client()
        .post(format!("{}{path}", proxy.url()))
        .header("x-api-key", key)
        .body(body);
    if gzip {
        request = request.header("content-encoding", "gzip");
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let bedrocks = response.headers().get("x-amzn-errortype").cloned();
    let bytes = response.bytes().await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let kind = match bedrocks {
        Some(kind) => kind.to_str().unwrap().to_owned(),
        None => body["error"]["type"].as_str().unwrap_or("none").to_owned(),
    };
    (status, kind)
}

/// `megabytes` of blanks, compressed.
fn bomb(megabytes: usize) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..megabytes {
        encoder.write_all(&vec![b' '; MB]).unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test]
async fn large_bodies_and_bombs_end_in_413_or_503_and_not_in_memory() {
    let world = World::create().await;
    let proxy = start(&world).await;
    let key = world.key.expose();
    let bomb = bomb(256);
    let refused = ask(&proxy, key, "/v1/messages", bomb.clone(), true).await;
    assert_eq!(refused, (413, "request_too_large".to_owned()));
    let bombs = (0..12).map(|_| ask(&proxy, key, "/v1/messages", bomb.clone(), true));
    for (status, kind) in join_all(bombs).await {
        assert!(
            matches!(
                (status, kind.as_str()),
                (413, "request_too_large") | (503, "overloaded_error")
            ),
            "{status} {kind}"
        );
    }
    let large = vec![b' '; 31 * MB];
    let many = (0..6).map(|_| ask(&proxy, key, "/v1/messages", large.clone(), false));
    for (status, kind) in join_all(many).await {
        assert!(
            matches!(
                (status, kind.as_str()),
                (400, "invalid_request_error") | (503, "overloaded_error")
            ),
            "{status} {kind}"
        );
    }
    // A body that grows is copied to a larger place now and then: both places exist for a moment.
    assert_bounded(&proxy, 3 * BUDGET_MB, "bombs");
    assert_eq!(proxy.metric("spillway_body_bytes").await, Some(0.0));
    assert_serves(&world, &proxy, "bombs").await;
}

#[tokio::test]
async fn a_body_in_the_smallest_chunks_is_read_and_an_endless_one_is_not() {
    let world = World::create().await;
    let proxy = start(&world).await;
    let head = format!(
        "{}transfer-encoding: chunked\r\n\r\n",
        post(world.key.expose())
    );
    let mut wire = Wire::open(&proxy).await;
    wire.send(&head).await;
    wire.send("1\r\n \r\n".repeat(200_000)).await;
    wire.send("2\r\n{}\r\n0\r\n\r\n").await;
    let answer = wire.answer().await.unwrap();
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8_lossy(&answer.body).contains("model: Field required"));

    let mut endless = Wire::open(&proxy).await;
    endless.send(&head).await;
    let chunk = format!("{MB:x}\r\n{}\r\n", " ".repeat(MB));
    // Twice the limit is read on, so that the sender sees the 413.
    let mut sent = 0;
    while sent < 200 && endless.send(&chunk).await {
        sent += 1;
    }
    assert!(sent < 200, "{sent} MB were taken");
    let answer = endless.answer().await;
    assert!(answer.is_none_or(|answer| answer.status == 413));
    assert_bounded(&proxy, 2 * 32, "chunks");
    assert_serves(&world, &proxy, "chunks").await;
}

/// A body whose `field` is nested as deeply as nobody means it.
fn deep(field: &str, open: &str, close: &str) -> Vec<u8> {
    const DEPTH: usize = 100_000;
    format!(
        r#"{{"model":"{MODEL}","max_tokens":9,"{field}":{}1{}}}"#,
        open.repeat(DEPTH),
        close.repeat(DEPTH)
    )
    .into_bytes()
}

#[tokio::test]
async fn depth_is_the_upstreams_to_judge_on_every_route() {
    let world = World::create().await;
    let proxy = world
        .start_with(&[("PROXY_CIRCUIT_FAILURE_THRESHOLD", "1000000")])
        .await;
    let key = world.key.expose();
    // With the Plan away, bodies are translated for Bedrock and tokens are estimated.
    world.fakes.plan.down().await;
    for path in [
        "/v1/messages",
        "/v1/messages/count_tokens",
        "/bedrock/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/invoke",
        "/bedrock/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0/converse",
    ] {
        for (field, open, close) in [
            ("messages", "[", "]"),
            ("messages", r#"[{"content":"#, "}]"),
            ("system", r#"[{"a":"#, "}]"),
            ("tools", r#"{"cache_control":{"scope":"#, "}}"),
            ("metadata", r#"{"a":"#, "}"),
        ] {
            let what = format!("{path} {field} {open}");
            let (status, kind) = ask(&proxy, key, path, deep(field, open, close), false).await;
            let shape = status == 200 || (kind != "none" && status >= 400);
            assert!(shape, "{what}: {status} {kind}");
        }
    }
    world.fakes.plan.up().await;
    assert_serves(&world, &proxy, "depth").await;
    assert_bounded(&proxy, 64, "depth");
}

#[tokio::test]
async fn width_costs_no_more_than_a_few_times_the_body() {
    const WIDE_MB: usize = 1;
    let world = World::create().await;
    let proxy = start(&world).await;
    world.fakes.plan.down().await;
    let key = world.key.expose();
    let list = format!("[{}1]", "1,".repeat(WIDE_MB * MB / 2));
    let object = (0..WIDE_MB * MB / 12).fold(String::new(), |fields, n| {
        fields + &format!(r#""{n:07}":1,"#)
    });
    for body in [
        format!(r#"{{"model":"{MODEL}","max_tokens":9,"messages":{list}}}"#),
        format!(
            r#"{{"model":"{MODEL}","max_tokens":9,"messages":[{{"role":"user","content":{list}}}],"system":["scope"]}}"#
        ),
        format!(r#"{{"model":"{MODEL}","max_tokens":9,"tools":{list},"messages":[]}}"#),
        format!(r#"{{{object}"model":"{MODEL}","max_tokens":9,"messages":[]}}"#),
        format!(
            r#"{{"model":"{MODEL}","max_tokens":9,"messages":[{{{object}"role":"user","content":"\"scope\""}}]}}"#
        ),
    ] {
        for path in ["/v1/messages", "/v1/messages/count_tokens"] {
            let (status, kind) = ask(&proxy, key, path, body.clone().into_bytes(), false).await;
            assert!(status == 200 || kind != "none", "{path}: {status} {kind}");
        }
    }
    // The body, its translation, what the SDK keeps of it to sign, what a buffer that grows leaves behind.
    let bound = 12 * u64::try_from(WIDE_MB).unwrap();
    assert_bounded(&proxy, bound, "width");
    world.fakes.plan.up().await;
}

#[tokio::test]
async fn names_of_any_characters_are_served_and_kept() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = world.key.expose();
    let names = [
        r"a\u0000b",
        r"\u0000",
        r"\ud83d\ude00 \u202e",
        r"x\n\r\t",
        "%00%s$(id)",
    ];
    for name in names {
        let body = format!(
            r#"{{"model":"{name}","max_tokens":9,"messages":[{{"role":"user","content":"hi"}}]}}"#
        );
        let (status, _) = ask(&proxy, key, "/v1/messages", body.into_bytes(), false).await;
        assert!((200..500).contains(&status), "{name}: {status}");
    }
    let rows = world.rows(names.len()).await;
    assert_eq!(rows.len(), names.len());
    assert_eq!(rows[0].model, "a\u{fffd}b");
    for (path, kind) in [
        ("/bedrock/model/%00/invoke", "ValidationException"),
        ("/bedrock/model/%ff%fe/invoke", "ValidationException"),
        ("/bedrock/model/a%2500b/invoke", "ValidationException"),
        ("/v1/models/%ff", "not_found_error"),
        ("/v1/models/%00", "not_found_error"),
    ] {
        let (status, got) = if path.starts_with("/v1") {
            let mut wire = Wire::open(&proxy).await;
            wire.send(format!(
                "GET {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\n\r\n"
            ))
            .await;
            let answer = wire.answer().await.unwrap();
            (answer.status, answer.error())
        } else {
            ask(&proxy, key, path, b"{}".to_vec(), false).await
        };
        assert_eq!(
            (status < 500, got.as_str()),
            (true, kind),
            "{path}: {status}"
        );
    }
    let lone = r#"{"model":"\ud800","max_tokens":9,"messages":[]}"#;
    let refused = ask(&proxy, key, "/v1/messages", lone.into(), false).await;
    assert_eq!(refused, (400, "invalid_request_error".to_owned()));
    assert_serves(&world, &proxy, "names").await;
}
