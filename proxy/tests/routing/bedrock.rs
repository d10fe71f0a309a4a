//! Bedrock's side: credentials, model ids, bodies, and streams that fail there.

use spillway_core::domain::usage::{Provider, UsageStatus};
use spillway_core::security::credentials::BedrockSecret;
use spillway_e2e::upstream::{
    AWS_SECRET_ACCESS_KEY, Action, BEDROCK_API_KEY, Failure, PLAN_API_KEY, Point, Script,
};

use crate::stack::{Setup, Stack, events, final_error, text};

const ARN: &str =
    "arn:aws:bedrock:eu-central-1:123456789012:application-inference-profile/a1b2c3d4";

fn bedrock_only() -> Setup {
    Setup {
        plan: false,
        ..Setup::default()
    }
}

#[tokio::test]
async fn every_credential_and_model_id_is_accepted() {
    let session = BedrockSecret::ApiKey(BEDROCK_API_KEY.to_owned().into());
    for (secret, model) in [
        (None, crate::stack::BEDROCK_MODEL),
        (None, ARN),
        (Some(session), ARN),
    ] {
        let bedrock = secret.or(bedrock_only().bedrock);
        let mut stack = Stack::start(Setup {
            bedrock,
            bedrock_model: model,
            ..bedrock_only()
        })
        .await;
        for stream in [false, true] {
            let response = stack.send(stream).await;
            assert_eq!(
                response.status(),
                200,
                "{model}: {}",
                response.text().await.unwrap()
            );
            assert!(response.text().await.unwrap().contains("Echo: "));
            assert_eq!(stack.outcome().await.upstream_model.as_deref(), Some(model));
        }
        assert_eq!(
            stack.fakes.bedrock.requests()[0].model.as_deref(),
            Some(model)
        );
    }
}

#[tokio::test]
async fn nothing_of_the_client_but_its_body_and_betas_reaches_bedrock() {
    let mut stack = Stack::start(bedrock_only()).await;
    let sent = stack
        .request(true)
        .header("x-api-key", "sk-spw-mine")
        .header("x-unheard-of", "yes")
        .header(
            "anthropic-beta",
            "interleaved-thinking-2025-05-14,claude-code-20250219",
        );
    sent.send().await.unwrap().text().await.unwrap();
    stack.outcome().await;
    let seen = &stack.fakes.bedrock.requests()[0];
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    assert_eq!(
        body["anthropic_beta"],
        serde_json::json!(["interleaved-thinking-2025-05-14"])
    );
    assert_eq!(body["anthropic_version"], "bedrock-2023-05-31");
    assert!(body.get("model").is_none() && body.get("stream").is_none());
    for name in [
        "x-api-key",
        "x-unheard-of",
        "anthropic-beta",
        "anthropic-version",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let everything = format!("{seen:?}");
    assert!(!everything.contains(PLAN_API_KEY) && !everything.contains(AWS_SECRET_ACCESS_KEY));
}

#[tokio::test]
async fn a_stream_that_fails_ends_in_an_error_of_anthropics() {
    let mut stack = Stack::start(bedrock_only()).await;
    for (exception, error_type) in [
        ("throttlingException", "rate_limit_error"),
        ("serviceUnavailableException", "overloaded_error"),
        ("modelStreamErrorException", "api_error"),
        ("internalServerException", "api_error"),
        ("modelTimeoutException", "timeout_error"),
        ("validationException", "invalid_request_error"),
    ] {
        let error = Action::Error {
            error_type: exception.to_owned(),
            message: "arn:aws:secret".to_owned(),
        };
        stack
            .fakes
            .bedrock
            .next(Script::text("words that are cut off").fault(Point::Deltas(1), error));
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
        assert_eq!(final_error(&events), Some("api_error"));
        assert_eq!(stack.outcome().await.status, UsageStatus::UpstreamError);
    }
    // The request was sent, whatever became of it.
    stack
        .fakes
        .bedrock
        .next(Script::text("nothing of it").fault(Point::Headers, Action::Reset));
    assert_eq!(stack.send(true).await.status(), 502);
    assert_eq!(stack.outcome().await.status, UsageStatus::UpstreamError);
}

#[tokio::test]
async fn refusals_have_anthropics_shape_and_tell_nothing_of_the_account() {
    let mut stack = Stack::start(bedrock_only()).await;
    for (failure, status, error_type, message) in [
        (
            Failure::status(429),
            429,
            "rate_limit_error",
            "Bedrock is throttling",
        ),
        (
            Failure::status(503),
            529,
            "overloaded_error",
            "Bedrock is overloaded",
        ),
        (
            Failure::status(400).message("arn:aws:iam::123456789012:role/x"),
            400,
            "invalid_request_error",
            "Bedrock refused the request as invalid",
        ),
        (
            Failure::input_too_long(),
            400,
            "invalid_request_error",
            "Input is too long.",
        ),
        (
            Failure::input_too_long_for_model(),
            400,
            "invalid_request_error",
            "prompt is too long: the input is longer than the requested model takes",
        ),
        (
            Failure::prompt_too_long(),
            400,
            "invalid_request_error",
            "prompt is too long: 210000 tokens > 200000 maximum",
        ),
    ] {
        for stream in [false, true] {
            stack.fakes.bedrock.next(failure.clone());
            let response = stack.send(stream).await;
            assert_eq!(response.status(), status);
            assert!(response.headers().contains_key("request-id"));
            let body: serde_json::Value = response.json().await.unwrap();
            assert_eq!(
                (&body["error"]["type"], &body["error"]["message"]),
                (&error_type.into(), &message.into())
            );
            stack.outcome().await;
        }
    }
}

#[tokio::test]
async fn what_bedrock_cannot_express_is_not_sent() {
    let mut stack = Stack::start(Setup::default()).await;
    stack.fakes.plan.next(Failure::status(529));
    let mut body = crate::stack::body(true);
    body["mcp_servers"] = serde_json::json!([{"type": "url", "url": "https://example.com"}]);
    let response = stack
        .request(true)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 529, "the plan's own answer");
    stack.outcome().await;
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}
