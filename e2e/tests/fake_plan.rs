//! The Plan fake as an HTTP client sees it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use spillway_e2e::upstream::{
    Action, Block, Failure, FakeUpstreams, Mode, Operation, Outcome, PLAN_API_KEY, Point, Reply,
    Rule, Script, Usage, When, digest, sha256_hex,
};

const LIMIT: Duration = Duration::from_secs(10);

fn client() -> Client {
    // Already installed where another test of this process came first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

fn body(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "stream": stream,
        "messages": [{"role": "user", "content": "good morning"}],
        "a_field_nobody_knows": 1,
    })
}

fn post(fakes: &FakeUpstreams, body: &Value) -> RequestBuilder {
    client()
        .post(format!("{}/v1/messages?beta=true", fakes.plan_url))
        .header("x-api-key", PLAN_API_KEY)
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .body(body.to_string())
}

async fn send(fakes: &FakeUpstreams, stream: bool) -> Response {
    post(fakes, &body(stream)).send().await.unwrap()
}

/// Names and data of all events.
fn events(sse: &str) -> Vec<(String, Value)> {
    sse.split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event
                .strip_prefix("event: ")
                .unwrap()
                .split_once("\ndata: ")
                .unwrap();
            (name.to_owned(), serde_json::from_str(data).unwrap())
        })
        .collect()
}

fn names(sse: &str) -> Vec<String> {
    events(sse).into_iter().map(|(name, _)| name).collect()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_message_echoes_and_its_numbers_are_in_the_journal() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let response = send(&fakes, false).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()["anthropic-ratelimit-requests-limit"],
        "4000"
    );
    let request_id = response.headers()["request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let message = json_of(response).await;
    assert_eq!(message["content"][0]["text"], "Echo: good morning");
    assert_eq!(message["stop_reason"], "end_turn");

    let [seen] = &fakes.plan.requests()[..] else {
        panic!("one exchange")
    };
    assert_eq!(
        (seen.path.as_str(), seen.query.as_deref()),
        ("/v1/messages", Some("beta=true"))
    );
    assert_eq!(seen.body, body(false).to_string());
    assert_eq!(
        seen.body_sha256,
        sha256_hex(body(false).to_string().as_bytes())
    );
    assert_eq!(
        seen.header("x-api-key"),
        Some(digest(PLAN_API_KEY.as_bytes()).as_str())
    );
    assert_eq!(seen.answer.request_id, request_id);
    assert_eq!(seen.answer.outcome, Outcome::Complete);
    let usage = seen.answer.usage.unwrap();
    assert_eq!(json!(usage.input_tokens), message["usage"]["input_tokens"]);
    // [{"role":"user","content":"good morning"}] is 42 bytes; "Echo: good morning" 18 characters.
    assert_eq!((usage.input_tokens, usage.output_tokens), (11, 5));
}

#[tokio::test]
async fn a_stream_has_the_apis_events_padding_and_ping() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let response = send(&fakes, true).await;
    assert_eq!(
        response.headers()["content-type"],
        "text/event-stream; charset=utf-8"
    );
    let sse = response.text().await.unwrap();
    assert_eq!(
        names(&sse),
        [
            "message_start",
            "content_block_start",
            "ping",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert!(sse.contains("data: {\"type\": \"ping\"}\n\n"), "{sse}");
    assert!(sse.contains("  }\n\n"), "padded: {sse}");
    let events = events(&sse);
    assert_eq!(events[0].1["message"]["usage"]["output_tokens"], 1);
    assert_eq!(events[6].1["usage"]["output_tokens"], 5);
    assert_eq!(
        fakes.plan.requests()[0].answer.usage.unwrap().output_tokens,
        5
    );
    // Equal requests get equal bytes, but for their ids.
    let again = send(&fakes, true).await.text().await.unwrap();
    assert_eq!(
        sse.split_once("content_block_start").unwrap().1,
        again.split_once("content_block_start").unwrap().1
    );
}

#[tokio::test]
async fn thinking_tools_unknown_blocks_and_scripted_numbers() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let usage = Usage {
        input_tokens: 3,
        output_tokens: 40,
        cache_read_input_tokens: 1000,
        cache_creation_5m_input_tokens: 20,
        cache_creation_1h_input_tokens: 30,
    };
    let blocks = vec![
        Block::Thinking {
            thinking: "hm".to_owned(),
            signature: "c2ln".to_owned(),
        },
        Block::RedactedThinking {
            data: "cmVk".to_owned(),
        },
        Block::ToolUse {
            id: "toolu_1".to_owned(),
            name: "look".to_owned(),
            input: json!({"at": "sky"}),
        },
        Block::Other(json!({"type": "compaction", "content": "x"})),
    ];
    fakes
        .plan
        .push(Rule::times(2, Script::content(blocks).usage(usage)));
    let message = json_of(send(&fakes, false).await).await;
    assert_eq!(message["stop_reason"], "tool_use");
    assert_eq!(message["content"][3]["type"], "compaction");
    assert_eq!(message["usage"]["cache_creation_input_tokens"], 50);
    assert_eq!(
        message["usage"]["cache_creation"]["ephemeral_1h_input_tokens"],
        30
    );

    let sse = send(&fakes, true).await.text().await.unwrap();
    let deltas: Vec<_> = events(&sse)
        .into_iter()
        .filter(|(name, _)| name == "content_block_delta")
        .map(|(_, data)| data["delta"]["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        deltas,
        [
            "thinking_delta",
            "signature_delta",
            "input_json_delta",
            "input_json_delta"
        ]
    );
    assert!(
        fakes
            .plan
            .requests()
            .iter()
            .all(|seen| seen.answer.usage == Some(usage))
    );
    assert!(fakes.plan.rules().is_empty(), "used up");
}

#[tokio::test]
async fn wrong_keys_and_bodies_are_refused_in_the_apis_shape() {
    let fakes = FakeUpstreams::start().await.unwrap();
    fakes.plan.next(Script::text("kept"));
    let url = format!("{}/v1/messages", fakes.plan_url);
    for (request, status, kind) in [
        (
            client().post(&url).header("x-api-key", "wrong"),
            401,
            "authentication_error",
        ),
        (client().post(&url), 401, "authentication_error"),
        (
            client().post(&url).header("x-api-key", PLAN_API_KEY),
            400,
            "invalid_request_error",
        ),
        (
            post(&fakes, &json!({"model": "m", "messages": []})),
            400,
            "invalid_request_error",
        ),
        (
            client()
                .get(format!("{}/v1/nothing", fakes.plan_url))
                .header("x-api-key", PLAN_API_KEY),
            404,
            "not_found_error",
        ),
    ] {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), status);
        let error = json_of(response).await;
        assert_eq!(
            (error["type"].as_str(), error["error"]["type"].as_str()),
            (Some("error"), Some(kind))
        );
    }
    // None of them used up the rule.
    assert_eq!(
        json_of(send(&fakes, false).await).await["content"][0]["text"],
        "kept"
    );
}

#[tokio::test]
async fn the_newest_version_and_bearer_keys_are_known() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let url = format!("{}/v1/messages", fakes.plan_url);
    let send = async |version: &str, field: Option<&str>| {
        let mut body = body(false);
        if let Some(field) = field {
            body[field] = json!(1);
        }
        let request = client()
            .post(&url)
            .bearer_auth(PLAN_API_KEY)
            .header("anthropic-version", version);
        request
            .body(body.to_string())
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(send("2026-10-21", None).await, 200);
    assert_eq!(send("2026-10-21", Some("temperature")).await, 400);
    assert_eq!(send("2023-06-01", Some("temperature")).await, 200);
    assert_eq!(send("2020-01-01", None).await, 400);
}

#[tokio::test]
async fn every_status_comes_on_command() {
    let fakes = FakeUpstreams::start().await.unwrap();
    for (failure, kind) in [
        (Failure::status(400), "invalid_request_error"),
        (Failure::credit_balance(), "invalid_request_error"),
        (Failure::usage_limit(), "invalid_request_error"),
        (Failure::prompt_too_long(), "invalid_request_error"),
        (Failure::status(401), "authentication_error"),
        (Failure::status(402), "billing_error"),
        (Failure::status(403), "permission_error"),
        (Failure::status(404), "not_found_error"),
        (Failure::status(413), "request_too_large"),
        (Failure::status(429).retry_after(7), "rate_limit_error"),
        (Failure::status(500), "api_error"),
        (Failure::status(503), "api_error"),
        (Failure::status(504), "timeout_error"),
        (Failure::status(529), "overloaded_error"),
    ] {
        fakes.plan.next(failure.clone());
        let response = send(&fakes, true).await;
        assert_eq!(response.status().as_u16(), failure.status);
        assert_eq!(
            response.headers().get("retry-after").is_some(),
            failure.retry_after.is_some()
        );
        let error = json_of(response).await;
        assert_eq!(error["error"]["type"], kind);
        assert!(
            failure
                .message
                .is_none_or(|message| error["error"]["message"] == message)
        );
        assert_eq!(
            fakes
                .plan
                .requests()
                .last()
                .unwrap()
                .answer
                .error
                .as_deref(),
            Some(kind)
        );
    }
}

#[tokio::test]
async fn an_error_inside_the_stream_comes_before_or_after_content() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let overloaded = || Action::Error {
        error_type: "overloaded_error".to_owned(),
        message: "Overloaded".to_owned(),
    };
    for (point, expected) in [
        (Point::Start, vec!["error"]),
        (
            Point::Content,
            vec!["message_start", "content_block_start", "ping", "error"],
        ),
        (
            Point::Deltas(1),
            vec![
                "message_start",
                "content_block_start",
                "ping",
                "content_block_delta",
                "error",
            ],
        ),
    ] {
        fakes
            .plan
            .next(Script::text("x").fault(point, overloaded()));
        let response = send(&fakes, true).await;
        assert_eq!(response.status(), 200);
        assert_eq!(names(&response.text().await.unwrap()), expected);
        let answer = fakes.plan.requests().last().unwrap().answer.clone();
        assert_eq!(
            (answer.outcome, answer.error.as_deref()),
            (Outcome::ErrorSent, Some("overloaded_error"))
        );
        assert_eq!(answer.usage.is_some(), point != Point::Start);
    }
}

#[tokio::test]
async fn streams_break_off_between_and_inside_events() {
    let fakes = FakeUpstreams::start().await.unwrap();
    for (action, whole) in [(Action::Cut, true), (Action::CutInside, false)] {
        fakes
            .plan
            .next(Script::text("x").fault(Point::Deltas(1), action));
        let mut response = send(&fakes, true).await;
        let mut received = Vec::new();
        let error = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => received.extend(chunk),
                Ok(None) => panic!("the body ended as if it were whole"),
                Err(error) => break error,
            }
        };
        assert!(error.is_body() || error.is_decode(), "{error:?}");
        let text = String::from_utf8(received).unwrap();
        assert!(text.contains("text_delta"), "{text}");
        assert_eq!(text.ends_with("\n\n"), whole, "{text}");
        assert_eq!(
            fakes.plan.requests().last().unwrap().answer.outcome,
            Outcome::Cut
        );
    }
}

#[tokio::test]
async fn connections_are_reset_closed_or_left_hanging() {
    let fakes = FakeUpstreams::start().await.unwrap();
    for reply in [Reply::Reset, Reply::Close] {
        fakes.plan.push(Rule::once(reply.clone()));
        let error = post(&fakes, &body(false)).send().await.unwrap_err();
        let text = format!("{error:?}");
        assert_eq!(
            text.contains("ConnectionReset"),
            matches!(reply, Reply::Reset),
            "{text}"
        );
        assert_eq!(
            fakes.plan.requests().last().unwrap().answer.outcome,
            Outcome::Disconnected
        );
    }
    fakes.plan.push(Rule::once(Reply::Hang));
    let error = post(&fakes, &body(true))
        .timeout(Duration::from_millis(200))
        .send()
        .await
        .unwrap_err();
    assert!(error.is_timeout());
    fakes
        .plan
        .wait_requests(LIMIT, |seen| seen[2].answer.outcome == Outcome::ClientLeft)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_gate_holds_a_stream_and_notices_the_client_leave() {
    let fakes = FakeUpstreams::start().await.unwrap();
    fakes.plan.push(Rule::times(
        2,
        Script::text("held in the middle of it").hold(Point::Deltas(1), "middle"),
    ));
    let mut first = send(&fakes, true).await;
    let second = send(&fakes, true).await;
    assert!(fakes.gates.wait_held("middle", 2, LIMIT).await);
    let mut received = first.chunk().await.unwrap().unwrap().to_vec();
    assert_eq!(
        fakes.plan.requests()[0].answer.usage.unwrap().output_tokens,
        1,
        "only message_start has left"
    );
    drop(second);
    fakes
        .plan
        .wait_requests(LIMIT, |seen| seen[1].answer.outcome == Outcome::ClientLeft)
        .await
        .unwrap();
    assert_eq!(fakes.gates.list()["middle"].held, 1);

    fakes.gates.release("middle");
    while let Some(chunk) = first.chunk().await.unwrap() {
        received.extend(chunk);
    }
    assert_eq!(
        names(&String::from_utf8(received).unwrap()).last().unwrap(),
        "message_stop"
    );
}

#[tokio::test]
async fn down_fails_everything_and_refusing_closes_the_port() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let client = client();
    let probe = || client.get(&fakes.plan_url).send();
    assert_eq!(probe().await.unwrap().status(), 200);
    fakes.plan.down().await;
    assert_eq!(probe().await.unwrap().status(), 503);
    fakes
        .plan
        .set_mode(Mode::Down {
            reply: Failure::status(529).into(),
        })
        .await;
    assert_eq!(send(&fakes, false).await.status(), 529);
    fakes.plan.refuse().await;
    assert!(probe().await.unwrap_err().is_connect());
    fakes.plan.up().await;
    assert_eq!(probe().await.unwrap().status(), 200);
}

#[tokio::test]
async fn rules_match_by_model_marker_operation_and_stream() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let rule = |when, status| Rule::forever(Failure::status(status)).when(when);
    fakes.plan.push(rule(
        When {
            model: Some("other".to_owned()),
            ..When::default()
        },
        500,
    ));
    fakes.plan.push(rule(
        When {
            body_contains: Some("marker-7".to_owned()),
            ..When::default()
        },
        502,
    ));
    fakes.plan.push(rule(
        When {
            operation: Some(Operation::CountTokens),
            ..When::default()
        },
        503,
    ));
    fakes.plan.push(rule(
        When {
            stream: Some(true),
            ..When::default()
        },
        504,
    ));
    assert_eq!(send(&fakes, false).await.status(), 200);
    assert_eq!(send(&fakes, true).await.status(), 504);
    let mut other = body(false);
    other["model"] = json!("other");
    assert_eq!(post(&fakes, &other).send().await.unwrap().status(), 500);
    let mut marked = body(false);
    marked["metadata"] = json!({"user_id": "marker-7"});
    assert_eq!(post(&fakes, &marked).send().await.unwrap().status(), 502);
    let count = post(&fakes, &body(false)).build().unwrap();
    let mut url = count.url().clone();
    url.set_path("/v1/messages/count_tokens");
    let count = client()
        .post(url)
        .headers(count.headers().clone())
        .body(body(false).to_string());
    assert_eq!(
        count.try_clone().unwrap().send().await.unwrap().status(),
        503
    );
    fakes.plan.clear_rules();
    assert_eq!(
        json_of(count.send().await.unwrap()).await["input_tokens"],
        11
    );
}

#[tokio::test]
async fn bodies_are_compressed_flushed_and_as_big_as_asked() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let big = Script {
        text_bytes: Some(300_000),
        gzip: true,
        chunk_chars: Some(1000),
        ..Script::default()
    };
    fakes.plan.always(big);
    let response = post(&fakes, &body(true))
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let compressed = response.bytes().await.unwrap();
    let mut sse = String::new();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&compressed[..]), &mut sse)
        .unwrap();
    assert_eq!(
        names(&sse)
            .iter()
            .filter(|name| *name == "content_block_delta")
            .count(),
        300
    );
    // Who does not accept it gets it plain.
    let plain = json_of(send(&fakes, false).await).await;
    assert_eq!(plain["content"][0]["text"].as_str().unwrap().len(), 300_000);
}

#[tokio::test]
async fn models_are_listed() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let get = |path: &str| {
        client()
            .get(format!("{}{path}", fakes.plan_url))
            .header("x-api-key", PLAN_API_KEY)
            .header("anthropic-version", "2023-06-01")
    };
    let list = json_of(get("/v1/models?limit=1000").send().await.unwrap()).await;
    let id = list["data"][0]["id"].as_str().unwrap();
    assert_eq!(
        json_of(get(&format!("/v1/models/{id}")).send().await.unwrap()).await["id"],
        id
    );
    assert_eq!(get("/v1/models/none").send().await.unwrap().status(), 404);
}
