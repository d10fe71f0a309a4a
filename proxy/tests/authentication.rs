//! Who may ask, and what the others are told.

mod support;

use std::time::{Duration, Instant};

use chrono::{TimeDelta, Utc};
use serde_json::Value;
use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::{AWS_SECRET_ACCESS_KEY, Action, PLAN_API_KEY, Point, Script};
use support::{World, client, message, send, until_status};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Revocation must be in force within a second of the commit.
const REVOKED_WITHIN: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_key_is_accepted_in_each_place_and_the_path_wins() {
    let world = World::create().await;
    let proxy = world.start().await;
    let (key, wrong) = (world.key.expose(), AccessKeyToken::generate().unwrap());
    let url = format!("{}/v1/messages", proxy.url());
    let by_path = |key: &str| format!("{}/ak/{key}/v1/messages", proxy.url());
    let post = |url: String| client().post(url).json(&message("hello", false));
    for (request, status) in [
        (post(url.clone()).header("x-api-key", key), 200),
        (post(url.clone()).bearer_auth(key), 200),
        (post(by_path(key)), 200),
        (post(format!("{}?beta=true", by_path(key))), 200),
        (post(by_path(key)).header("x-api-key", wrong.expose()), 200),
        (post(by_path(wrong.expose())).header("x-api-key", key), 401),
        (post(url.clone()).header("x-api-key", wrong.expose()), 401),
        (
            post(url.clone()).header("x-api-key", &key[..key.len() - 1]),
            401,
        ),
        (post(url.clone()), 401),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status, "{:?}", response.text().await);
        if status == 401 {
            assert_eq!(response.headers()["x-should-retry"], "false");
            let body: Value = response.json().await.unwrap();
            assert_eq!(body["error"]["type"], "authentication_error");
        }
    }
}

#[tokio::test]
async fn a_key_that_may_not_be_used_is_refused_within_a_second_and_told_why() {
    let mut world = World::create().await;
    let proxy = world.start().await;
    let key = world.tenant.mint("to-be-changed").await;
    until_status(&proxy, key.expose(), 200).await;

    world
        .tenant
        .write_key("to-be-changed", &key, |row| row.disabled = true)
        .await;
    refused(&proxy, key.expose(), 403, "disabled").await;
    world
        .tenant
        .write_key("to-be-changed", &key, |row| {
            row.expires_at = Some(Utc::now() - TimeDelta::seconds(1));
        })
        .await;
    refused(&proxy, key.expose(), 403, "expired").await;
    world.tenant.write_key("to-be-changed", &key, |_| {}).await;
    until_status(&proxy, key.expose(), 200).await;
    world.tenant.suspend(true).await;
    refused(&proxy, key.expose(), 403, "suspended").await;
    world.tenant.suspend(false).await;
    until_status(&proxy, key.expose(), 200).await;
    world.tenant.delete_key("to-be-changed").await;
    refused(&proxy, key.expose(), 401, "revoked").await;
    assert_eq!(
        send(&proxy, world.key.expose(), &message("others go on", false))
            .await
            .status(),
        200
    );
}

async fn refused(proxy: &support::Proxy, key: &str, status: u16, word: &str) {
    let began = Instant::now();
    loop {
        let (_, body) = until_status(proxy, key, status).await;
        if body["error"]["message"]
            .as_str()
            .is_some_and(|said| said.contains(word))
        {
            let kind = if status == 401 {
                "authentication_error"
            } else {
                "permission_error"
            };
            assert_eq!(body["error"]["type"], kind);
            assert!(
                began.elapsed() < REVOKED_WITHIN,
                "it took {:?}",
                began.elapsed()
            );
            return;
        }
        assert!(began.elapsed() < support::within(), "not {word}: {body}");
    }
}

#[tokio::test]
async fn a_key_that_is_revoked_while_its_body_arrives_is_refused() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = world.tenant.mint("slow").await;
    until_status(&proxy, key.expose(), 200).await;
    let body = message("slowly", false).to_string();
    let (first, rest) = body.split_at(body.len() / 2);
    let address = proxy.url();
    let mut stream = TcpStream::connect(address.strip_prefix("http://").unwrap())
        .await
        .unwrap();
    let head = format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nx-api-key: {}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{first}",
        key.expose(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    while proxy.metric("spillway_body_bytes").await == Some(0.0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.tenant.delete_key("slow").await;
    until_status(&proxy, key.expose(), 401).await;
    let asked = world.fakes.plan.request_count();
    stream.write_all(rest.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(world.fakes.plan.request_count(), asked);
}

#[tokio::test]
async fn a_key_expires_by_time_alone() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = AccessKeyToken::generate().unwrap();
    world
        .tenant
        .write_key("short", &key, |row| {
            row.expires_at = Some(Utc::now() + TimeDelta::seconds(2));
        })
        .await;
    until_status(&proxy, key.expose(), 200).await;
    let (took, _) = until_status(&proxy, key.expose(), 403).await;
    assert!(took > Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn another_model_than_the_allowed_is_refused_by_name_and_leaves_a_blocked_row() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = AccessKeyToken::generate().unwrap();
    world
        .tenant
        .write_key("haiku-only", &key, |row| {
            row.allowed_models = vec!["claude-haiku-*".to_owned()];
        })
        .await;
    let (_, body) = until_status(&proxy, key.expose(), 400).await;
    assert_eq!(body["error"]["type"], "invalid_request_error");
    assert!(
        body["error"]["message"]
            .as_str()
            .unwrap()
            .contains(support::MODEL),
        "{body}"
    );
    let mut allowed = message("hello", false);
    allowed["model"] = "claude-haiku-4-5".into();
    assert_eq!(send(&proxy, key.expose(), &allowed).await.status(), 200);
    let rows = world.rows(2).await;
    assert_eq!(
        (
            rows[0].status.as_str(),
            rows[0].cost_micro_usd,
            rows[0].provider.as_deref()
        ),
        ("blocked", 0, None)
    );
    assert_eq!(world.fakes.plan.request_count(), 1);
}

#[tokio::test]
async fn requests_that_did_not_come_through_the_front_door_are_refused() {
    let world = World::create().await;
    let mut proxy = world.spawn(&[("PROXY_ORIGIN_VERIFY_SECRET", "front-door-secret")]);
    proxy.ready().await;
    assert_eq!(
        send(&proxy, world.key.expose(), &message("hello", false))
            .await
            .status(),
        403
    );
    let url = format!("{}/v1/messages", proxy.url());
    let with = client()
        .post(url)
        .header("x-api-key", world.key.expose())
        .header("x-origin-verify", "front-door-secret");
    assert_eq!(
        with.json(&message("hello", false))
            .send()
            .await
            .unwrap()
            .status(),
        200
    );
    assert!(
        world
            .fakes
            .plan
            .requests()
            .iter()
            .all(|request| request.header("x-origin-verify").is_none())
    );
}

#[tokio::test]
async fn no_key_and_no_credential_is_in_the_log_the_metrics_or_the_spool() {
    let world = World::create().await;
    let proxy = world.start().await;
    let (key, wrong) = (world.key.expose(), AccessKeyToken::generate().unwrap());
    for key in [key, wrong.expose()] {
        let url = format!("{}/ak/{key}/v1/messages", proxy.url());
        client()
            .post(url)
            .bearer_auth(key)
            .header("x-api-key", key)
            .json(&message("a secret prompt", true))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        client()
            .get(format!("{}/ak/{key}/v1/nothing", proxy.url()))
            .send()
            .await
            .unwrap();
    }
    world.fakes.plan.down().await;
    send(&proxy, key, &message("a secret prompt", true))
        .await
        .text()
        .await
        .unwrap();
    let answer = Script::text("a secret answer").fault(Point::Deltas(1), Action::CutInside);
    world.fakes.bedrock.next(answer);
    let cut = send(&proxy, key, &message("a secret prompt", true)).await;
    assert!(cut.text().await.unwrap().contains("event: error"));
    world.rows(3).await;
    let (_, metrics) = proxy.admin("/metrics").await.unwrap();
    let mut texts = vec![("log", proxy.log()), ("metrics", metrics)];
    for file in std::fs::read_dir(world.dir.path().join("spool")).unwrap() {
        let path = file.unwrap().path();
        texts.push((
            "spool",
            String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned(),
        ));
    }
    let secrets = [
        key,
        wrong.expose(),
        PLAN_API_KEY,
        AWS_SECRET_ACCESS_KEY,
        support::tenant::HASHER_SECRET,
        support::tenant::ENCRYPTION_KEY,
        "a secret prompt",
        "a secret answer",
        // Of a raw frame, which the answer is in, encoded.
        ":event-type",
    ];
    for (place, text) in &texts {
        for secret in secrets {
            // What follows the public id.
            let secret = secret
                .strip_prefix("sk-spw-")
                .map_or(secret, |rest| &rest[11..]);
            if let Some(at) = text.find(secret) {
                let around: String = text[at.saturating_sub(300)..].chars().take(400).collect();
                panic!("{secret} is in the {place}: {around}");
            }
        }
    }
    assert!(
        texts[0].1.contains(world.key.id().unwrap()),
        "the public id is meant to be there"
    );
}
