//! The Plan's answers.

use serde_json::json;
use spillway_e2e::upstream::{
    Block, FakeUpstreams, Outcome, PLAN_API_KEY, Rule, Script, Usage, digest, sha256_hex,
};

use crate::support::{body, client, events, json_of, names, post, send};

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
