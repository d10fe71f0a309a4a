//! Converse over real sockets: signatures, model ids, streams that fail, usage.

use std::time::Duration;

use serde_json::{Value, json};
use spillway_core::domain::models::BedrockApi;
use spillway_core::domain::usage::{Provider, UsageStatus};
use spillway_core::security::credentials::BedrockSecret;
use spillway_e2e::upstream::{
    Action, BEDROCK_API_KEY, Block, Failure, Operation, Point, Script, Usage,
};

use crate::stack::{BEDROCK_MODEL, MODEL, Setup, Stack, events, final_error, message, text};

const ARN: &str =
    "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3d4";
const GPT_OSS: &str = "openai.gpt-oss-120b-1:0";
const USAGE: Usage = Usage {
    input_tokens: 17,
    output_tokens: 5,
    cache_read_input_tokens: 3,
    cache_creation_5m_input_tokens: 2,
    cache_creation_1h_input_tokens: 4,
};

fn converse() -> Setup {
    Setup {
        plan: false,
        bedrock_api: BedrockApi::Converse,
        ..Setup::default()
    }
}

fn error(exception: &str) -> Action {
    Action::Error {
        error_type: exception.to_owned(),
        message: "arn:aws:secret".to_owned(),
    }
}

#[tokio::test]
async fn models_of_any_vendor_have_a_fallback_whatever_signs_it() {
    let key = || BedrockSecret::ApiKey(BEDROCK_API_KEY.to_owned().into());
    for (model, api, secret) in [
        (BEDROCK_MODEL, BedrockApi::Converse, None),
        (BEDROCK_MODEL, BedrockApi::Converse, Some(key())),
        (ARN, BedrockApi::Converse, None),
        (GPT_OSS, BedrockApi::Auto, None),
        ("eu.amazon.nova-lite-v1:0", BedrockApi::Auto, Some(key())),
    ] {
        let bedrock = secret.or(converse().bedrock);
        let mut stack = Stack::start(Setup {
            bedrock,
            bedrock_model: model,
            bedrock_api: api,
            ..converse()
        })
        .await;
        for stream in [false, true] {
            stack
                .fakes
                .bedrock
                .next(Script::text("said \"so\"").usage(USAGE));
            let response = stack.send(stream).await;
            assert_eq!(
                response.status(),
                200,
                "{model}: {}",
                response.text().await.unwrap()
            );
            assert!(response.headers().contains_key("request-id"));
            let said = message(&response.text().await.unwrap(), stream);
            assert_eq!(
                said["content"],
                json!([{"type": "text", "text": "said \"so\""}])
            );
            assert_eq!(
                (&said["model"], &said["role"]),
                (&MODEL.into(), &"assistant".into())
            );
            let outcome = stack.outcome().await;
            assert_eq!(
                (outcome.upstream_model.as_deref(), outcome.estimated),
                (Some(model), false)
            );
            assert!(outcome.upstream_request_id.is_some());
            let tokens = outcome.tokens;
            assert_eq!((tokens.input, tokens.output, tokens.cache_read), (17, 5, 3));
            assert_eq!((tokens.cache_creation_5m, tokens.cache_creation_1h), (2, 4));
        }
        let seen = stack.fakes.bedrock.requests();
        let operations: Vec<_> = seen.iter().map(|seen| seen.operation).collect();
        assert_eq!(operations, [Operation::Converse, Operation::ConverseStream]);
        assert_eq!(seen[0].model.as_deref(), Some(model));
    }
}

#[tokio::test]
async fn usage_that_was_guessed_for_the_start_is_never_metered() {
    let mut stack = Stack::start(converse()).await;
    // Before any content the upstream bills what it reports, which is nothing yet.
    stack
        .fakes
        .bedrock
        .next(Script::text("never seen").fault(Point::Content, error("throttlingException")));
    stack.send(true).await.text().await.unwrap();
    assert!(stack.outcome().await.tokens.is_zero());
    // Cut off before it was reported, the usage is an estimate.
    stack.fakes.bedrock.next(
        Script::text("words")
            .usage(USAGE)
            .fault(Point::End, Action::Cut),
    );
    let answer = stack.send(true).await.text().await.unwrap();
    assert!(
        events(&answer)[0].1["message"]["usage"]["input_tokens"]
            .as_u64()
            .unwrap()
            > 0
    );
    let outcome = stack.outcome().await;
    assert!(outcome.estimated);
    assert_ne!(outcome.tokens.input, 17);
}

#[tokio::test]
async fn a_stream_that_fails_ends_in_an_error_of_anthropics() {
    let mut stack = Stack::start(converse()).await;
    for (exception, error_type) in [
        ("throttlingException", "rate_limit_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("modelStreamErrorException", "api_error"),
        ("internalServerException", "api_error"),
        ("validationException", "invalid_request_error"),
    ] {
        stack
            .fakes
            .bedrock
            .next(Script::text("words that are cut off").fault(Point::Deltas(1), error(exception)));
        let body = stack.send(true).await.text().await.unwrap();
        assert!(!body.contains("arn:aws"));
        let events = events(&body);
        assert_eq!(
            (final_error(&events), text(&events).as_str()),
            (Some(error_type), "words that are c")
        );
        let outcome = stack.outcome().await;
        assert_eq!(
            (outcome.provider, outcome.estimated),
            (Some(Provider::Bedrock), true)
        );
    }
    for action in [Action::Cut, Action::CutInside, Action::Reset] {
        stack
            .fakes
            .bedrock
            .next(Script::text("words that are cut off").fault(Point::Deltas(1), action));
        let events = events(&stack.send(true).await.text().await.unwrap());
        assert_eq!(final_error(&events), Some("api_error"), "no silent cut");
        assert_eq!(stack.outcome().await.status, UsageStatus::UpstreamError);
    }
}

#[tokio::test]
async fn refusals_have_anthropics_shape_and_keep_the_words_that_clients_act_on() {
    let mut stack = Stack::start(converse()).await;
    for (failure, status, error_type, words) in [
        (Failure::status(429).retry_after(7), 429, "rate_limit_error", "Bedrock is throttling"),
        (Failure::status(503), 529, "overloaded_error", "Bedrock is overloaded"),
        (Failure::status(403), 403, "permission_error", "Bedrock refused its credential for this model"),
        (Failure::status(400).message("arn:aws:iam::123456789012:role/x"), 400, "invalid_request_error", "Bedrock refused the request as invalid"),
        (Failure::input_too_long(), 400, "invalid_request_error", "Input is too long."),
        (
            Failure::status(400).message("The model returned the following errors: prompt is too long: 210000 tokens > 200000 maximum"),
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
    ] {
        for stream in [false, true] {
            stack.fakes.bedrock.next(failure.clone());
            let response = stack.send(stream).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers().get("retry-after").is_some(), status == 429);
            let body: Value = response.json().await.unwrap();
            assert_eq!((&body["error"]["type"], &body["error"]["message"]), (&error_type.into(), &words.into()));
            stack.outcome().await;
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_and_nothing_is_sent() {
    let mut stack = Stack::start(converse()).await;
    let mut body = crate::stack::body(false);
    for (content, words) in [
        (
            json!([{"type": "image", "source": {"type": "url", "url": "https://example.com"}}]),
            "capability_rejected: image_source_url",
        ),
        (
            json!([{"type": "text"}]),
            "messages.0.content.0.text: Field required",
        ),
    ] {
        body["messages"][0]["content"] = content;
        let response = stack.send_body(&body).await;
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        assert!(
            error["error"]["message"].as_str().unwrap().contains(words),
            "{error}"
        );
        assert_eq!(stack.outcome().await.status, UsageStatus::ClientError);
    }
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}

#[tokio::test]
async fn events_leave_as_they_come() {
    let mut stack = Stack::start(converse()).await;
    stack
        .fakes
        .bedrock
        .next(Script::text("first and then much later").hold(Point::Deltas(1), "rest"));
    let mut response = stack.send(true).await;
    let mut seen = String::new();
    while !seen.contains("text_delta") {
        let chunk = tokio::time::timeout(Duration::from_secs(20), response.chunk());
        seen.push_str(std::str::from_utf8(&chunk.await.unwrap().unwrap().unwrap()).unwrap());
    }
    assert!(!seen.contains("later"));
    stack.fakes.gates.release("rest");
    seen.push_str(&response.text().await.unwrap());
    assert_eq!(text(&events(&seen)), "first and then much later");
    assert_eq!(stack.outcome().await.status, UsageStatus::Ok);
}

#[tokio::test]
async fn reasoning_of_another_model_is_counted_though_it_is_not_shown() {
    let mut stack = Stack::start(Setup {
        bedrock_model: GPT_OSS,
        bedrock_api: BedrockApi::Auto,
        ..converse()
    })
    .await;
    let content = vec![
        Block::Thinking {
            thinking: "secretly ".repeat(100),
            signature: String::new(),
        },
        Block::Text {
            text: "said and cut off".into(),
        },
    ];
    stack
        .fakes
        .bedrock
        .next(Script::content(content).fault(Point::End, Action::Reset));
    let answer = stack.send(true).await.text().await.unwrap();
    assert!(!answer.contains("secretly") && text(&events(&answer)).starts_with("said"));
    let outcome = stack.outcome().await;
    assert!(
        outcome.estimated && outcome.tokens.output > 200,
        "{:?}",
        outcome.tokens
    );
}
