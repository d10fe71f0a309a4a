//! Calls in Bedrock's format: what passes, and what is metered.

use bytes::Bytes;
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use spillway_e2e::upstream::{Exchange, Operation, Outcome, Point, Script, Usage, sha256_hex};
use spillway_proxy::stream::FrameReader;

use crate::support::{Proxy, World, client, within};

pub(crate) const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
pub(crate) const ENCODED: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";
const USAGE: Usage = Usage {
    input_tokens: 2050,
    output_tokens: 31,
    cache_read_input_tokens: 7,
    cache_creation_5m_input_tokens: 11,
    cache_creation_1h_input_tokens: 0,
};

pub(crate) const OPERATIONS: [(&str, Operation); 4] = [
    ("invoke", Operation::Invoke),
    ("invoke-with-response-stream", Operation::InvokeStream),
    ("converse", Operation::Converse),
    ("converse-stream", Operation::ConverseStream),
];

/// A body for an operation, in an order that no serialiser would give it.
pub(crate) fn body(operation: &str) -> String {
    if operation.starts_with("converse") {
        r#" {"messages":[{"role":"user" , "content":[{"text":"good morning"}]}], "inferenceConfig":{"maxTokens":64}}"#.to_owned()
    } else {
        r#" {"max_tokens":64 , "messages":[{"role":"user","content":"good morning"}],"anthropic_version":"bedrock-2023-05-31"}"#.to_owned()
    }
}

/// A call with the key in the path, as Claude Code sends it with `CLAUDE_CODE_SKIP_BEDROCK_AUTH`.
pub(crate) fn call(proxy: &Proxy, key: &str, model: &str, operation: &str) -> RequestBuilder {
    client()
        .post(format!(
            "{}/ak/{key}/bedrock/model/{model}/{operation}",
            proxy.url()
        ))
        .header("content-type", "application/json")
        .body(body(operation))
}

pub(crate) async fn complete(world: &World, count: usize) -> Vec<Exchange> {
    let seen = world
        .fakes
        .bedrock
        .wait_requests(within(), |seen| {
            seen.iter()
                .filter(|one| one.answer.outcome == Outcome::Complete)
                .count()
                >= count
        })
        .await;
    seen.unwrap()
}

/// Kind (event or exception) and payload of each frame.
pub(crate) fn frames(bytes: Bytes) -> Vec<(String, Value)> {
    let mut reader = FrameReader::new(1024 * 1024);
    reader.push(bytes);
    let mut all = Vec::new();
    while let Some(frame) = reader.next_frame().unwrap() {
        let kind = [":event-type", ":exception-type"]
            .iter()
            .find_map(|name| frame.header(name))
            .unwrap();
        let payload = serde_json::from_slice(frame.payload).unwrap();
        all.push((kind.to_owned(), payload));
    }
    assert!(!reader.is_within_frame(), "half a frame");
    all
}

#[tokio::test]
async fn every_operation_passes_unchanged_and_is_metered_once() {
    let world = World::create().await;
    let proxy = world.start().await;
    for (path, operation) in OPERATIONS {
        world
            .fakes
            .bedrock
            .next(Script::text("a story of some length").usage(USAGE));
        let response = call(&proxy, world.key.expose(), ENCODED, path)
            .header("accept", "*/*")
            .header("x-amzn-bedrock-service-tier", "priority")
            .header("x-amzn-bedrock-unheard-of", "yes")
            .header("anthropic-beta", "stays")
            .header("x-amz-date", "20200101T000000Z")
            .header("x-amz-security-token", "mine")
            .header("cookie", "a=b")
            .header("x-forwarded-for", "10.0.0.1")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let headers = response.headers().clone();
        let answer = response.bytes().await.unwrap();
        let is_stream = path.ends_with("stream");
        let content_type = if is_stream {
            "application/vnd.amazon.eventstream"
        } else {
            "application/json"
        };
        assert_eq!(headers["content-type"], content_type, "{path}");

        let seen = world.fakes.bedrock.requests().pop().unwrap();
        assert_eq!(headers["x-amzn-requestid"], seen.answer.request_id.as_str());
        assert_eq!(seen.operation, operation);
        assert_eq!(seen.path, format!("/model/{ENCODED}/{path}"));
        assert_eq!(seen.body_sha256, sha256_hex(body(path).as_bytes()));
        assert_eq!(seen.answer.body_bytes, answer.len() as u64, "{path}");
        for name in [
            "anthropic-beta",
            "cookie",
            "x-forwarded-for",
            "x-api-key",
            "x-amz-security-token",
        ] {
            assert_eq!(seen.header(name), None, "{path} {name}");
        }
        for name in [
            "content-type",
            "host",
            "x-amzn-bedrock-service-tier",
            "x-amzn-bedrock-unheard-of",
        ] {
            assert!(
                seen.signed_headers.iter().any(|signed| signed == name),
                "{path} {name}"
            );
        }
        if is_stream {
            assert!(!frames(answer).is_empty());
        } else {
            assert!(serde_json::from_slice::<Value>(&answer).is_ok());
        }
    }
    assert_eq!(
        world.fakes.plan.request_count(),
        0,
        "it is for Bedrock alone"
    );
    let rows = world.rows(4).await;
    assert_eq!(rows.len(), 4);
    for (row, (path, _)) in rows.iter().zip(OPERATIONS) {
        assert_eq!(
            (
                row.status.as_str(),
                row.http_status,
                row.estimated,
                row.provider.as_deref()
            ),
            ("ok", 200, false, Some("bedrock")),
            "{path}"
        );
        assert_eq!(
            (
                row.model.as_str(),
                row.upstream_model.as_deref(),
                row.is_fallback
            ),
            (MODEL, None, false)
        );
        assert_eq!(row.stream, path.ends_with("stream"));
        assert_eq!((row.input_tokens, row.output_tokens), (2050, 31), "{path}");
        // 2050 + 1.25 * 11 + 0.1 * 7 input and 31 output tokens of Sonnet.
        assert_eq!(row.cost_micro_usd, 6_658, "{path}");
    }
    let (_, metrics) = proxy.admin("/metrics").await.unwrap();
    for label in [
        "bedrock_invoke",
        "bedrock_invoke_stream",
        "bedrock_converse",
        "bedrock_converse_stream",
    ] {
        let line = format!(
            r#"spillway_requests_total{{code="200",provider="bedrock",route="{label}"}} 1"#
        );
        assert!(metrics.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn arns_are_encoded_once_however_they_arrive() {
    const ARN: &str = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";
    let world = World::create().await;
    let proxy = world.start().await;
    let once = ARN.replace(':', "%3A").replace('/', "%2F");
    let twice = once.replace('%', "%25");
    for sent in [ARN, &once, &twice] {
        let response = call(&proxy, world.key.expose(), sent, "invoke")
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200, "{sent}");
    }
    for seen in world.fakes.bedrock.requests() {
        assert_eq!(seen.path, format!("/model/{once}/invoke"));
        assert_eq!(seen.model.as_deref(), Some(ARN));
    }
}

#[tokio::test]
async fn a_stream_passes_as_it_comes() {
    let world = World::create().await;
    let proxy = world.start().await;
    for path in ["invoke-with-response-stream", "converse-stream"] {
        let script = Script::text("one two three four five six seven eight");
        world
            .fakes
            .bedrock
            .next(script.hold(Point::Deltas(1), "gate"));
        let mut response = call(&proxy, world.key.expose(), ENCODED, path)
            .send()
            .await
            .unwrap();
        let first = response.chunk().await.unwrap().unwrap();
        assert!(
            !frames(first).is_empty(),
            "the begin is here before the rest is made"
        );
        world.fakes.gates.release("gate");
        while response.chunk().await.unwrap().is_some() {}
    }
    assert!(world.rows(2).await.iter().all(|row| row.status == "ok"));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_call_and_pays_for_what_came() {
    let world = World::create().await;
    let proxy = world.start().await;
    let script = Script::text("x".repeat(4_000));
    world.fakes.bedrock.next(script.hold(Point::End, "gate"));
    let mut response: Response = call(&proxy, world.key.expose(), ENCODED, "converse-stream")
        .send()
        .await
        .unwrap();
    let mut received = 0;
    while received < 4_000 {
        received += response.chunk().await.unwrap().unwrap().len();
    }
    drop(response);
    world
        .fakes
        .bedrock
        .wait_requests(within(), |seen| {
            seen.iter()
                .all(|one| one.answer.outcome == Outcome::ClientLeft)
        })
        .await
        .unwrap();
    let rows = world.rows(1).await;
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!(
        (row.status.as_str(), row.http_status, row.estimated),
        ("client_aborted", 200, true)
    );
    assert!(row.input_tokens > 0 && row.output_tokens > 50, "{row:?}");
}

#[tokio::test]
async fn tokens_are_counted_for_the_model_behind_a_profile_and_nothing_is_metered() {
    let world = World::create().await;
    let proxy = world.start().await;
    let input = json!({"input": {"converse": {"messages": [{"role": "user", "content": [{"text": "good morning"}]}]}}});
    let response = call(&proxy, world.key.expose(), ENCODED, "count-tokens")
        .body(input.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let counted: Value = response.json().await.unwrap();
    assert!(counted["inputTokens"].as_u64().unwrap() > 0);
    let seen = complete(&world, 1).await;
    assert_eq!(
        seen[0].model.as_deref(),
        Some("anthropic.claude-sonnet-4-5-20250929-v1:0")
    );
    assert!(world.rows_after_a_message(&proxy, 0).await.is_empty());
}
