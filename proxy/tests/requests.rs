//! What is served, what is refused before an upstream is asked, and in which words.

mod support;

use serde_json::Value;
use support::{World, client, message, send};

#[tokio::test]
async fn an_answer_is_relayed_and_metered_with_the_upstreams_numbers() {
    let world = World::create().await;
    let proxy = world.start().await;
    for stream in [false, true] {
        let response = send(&proxy, world.key.expose(), &message("hello", stream)).await;
        assert_eq!(response.status(), 200);
        assert!(response.text().await.unwrap().contains("hello"));
    }
    let rows = world.rows(2).await;
    for (row, request) in rows.iter().zip(world.fakes.plan.requests()) {
        let reported = request.answer.usage.unwrap();
        assert_eq!(
            (row.status.as_str(), row.estimated, row.provider.as_deref()),
            ("ok", false, Some("plan"))
        );
        assert_eq!(
            row.input_tokens,
            i64::try_from(reported.input_tokens).unwrap()
        );
        assert_eq!(
            row.output_tokens,
            i64::try_from(reported.output_tokens).unwrap()
        );
        assert_eq!(
            row.cost_micro_usd,
            row.input_tokens * 3 + row.output_tokens * 15
        );
    }
}

#[tokio::test]
async fn a_failing_plan_is_answered_by_bedrock_in_the_same_call() {
    let world = World::create().await;
    let proxy = world.start().await;
    world.fakes.plan.down().await;
    for stream in [false, true] {
        let response = send(&proxy, world.key.expose(), &message("hello", stream)).await;
        let status = response.status();
        let body = response.text().await.unwrap();
        assert_eq!(status, 200, "{body}");
    }
    let rows = world.rows(2).await;
    assert!(
        rows.iter()
            .all(|row| row.provider.as_deref() == Some("bedrock") && row.status == "ok"),
        "{rows:?}"
    );
}

#[tokio::test]
async fn other_routes_and_methods_are_refused_in_anthropics_shape_and_probes_answered() {
    let world = World::create().await;
    let proxy = world.start().await;
    let base = format!("{}/ak/{}", proxy.url(), world.key.expose());
    for (method, path, status, kind) in [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("DELETE", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/nothing", 404, "not_found_error"),
        ("POST", "/v1/messages/", 404, "not_found_error"),
    ] {
        let response = client()
            .request(method.parse().unwrap(), format!("{base}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{method} {path}");
        assert_eq!(
            response
                .headers()
                .get("allow")
                .map(|allow| allow.to_str().unwrap()),
            (status == 405).then_some("POST")
        );
        assert!(
            response.headers()["request-id"]
                .to_str()
                .unwrap()
                .starts_with("req_")
        );
        let body: Value = response.json().await.unwrap();
        assert_eq!(
            (&body["type"], &body["error"]["type"]),
            (&"error".into(), &kind.into())
        );
    }
    for (method, path) in [("HEAD", ""), ("GET", "/"), ("HEAD", "/api/hello")] {
        let response = client()
            .request(method.parse().unwrap(), format!("{base}{path}"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{method} {path}");
    }
    assert_eq!(world.fakes.journal.count(None), 0);
}

#[tokio::test]
async fn malformed_bodies_are_named_and_reach_no_upstream() {
    let world = World::create().await;
    let proxy = world.start().await;
    for body in [
        &b"{\"model\": \"x\", \"messages\": ["[..],
        b"",
        b"hello",
        b"{\"model\": \"\xff\xfe\"}",
        b"[]",
        b"{\"max_tokens\": 1}",
    ] {
        let url = format!("{}/v1/messages", proxy.url());
        let response = client()
            .post(url)
            .header("x-api-key", world.key.expose())
            .body(body)
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error", "{error}");
    }
    assert_eq!(world.fakes.journal.count(None), 0);
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_whether_its_length_is_declared_or_not() {
    let world = World::create().await;
    let proxy = world.start().await;
    let large = "x".repeat(33 * 1024 * 1024);
    let response = send(&proxy, world.key.expose(), &message(&large, false)).await;
    assert_eq!(response.status(), 413);
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["type"], "request_too_large");
    let pieces =
        futures::stream::iter((0..33).map(|_| Ok::<_, std::io::Error>("x".repeat(1024 * 1024))));
    let url = format!("{}/v1/messages", proxy.url());
    let chunked = client()
        .post(url)
        .header("x-api-key", world.key.expose())
        .body(reqwest::Body::wrap_stream(pieces));
    assert_eq!(chunked.send().await.unwrap().status(), 413);
    assert_eq!(world.fakes.journal.count(None), 0);
    assert_eq!(proxy.metric("spillway_body_bytes").await, Some(0.0));
}

#[tokio::test]
async fn http2_without_tls_is_served() {
    let world = World::create().await;
    let proxy = world.start().await;
    let client = support::client_builder()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let url = format!("{}/v1/messages", proxy.url());
    let response = client
        .post(url)
        .header("x-api-key", world.key.expose())
        .json(&message("hello", true))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (response.version(), response.status().as_u16()),
        (reqwest::Version::HTTP_2, 200)
    );
    assert!(response.text().await.unwrap().contains("message_stop"));
}
