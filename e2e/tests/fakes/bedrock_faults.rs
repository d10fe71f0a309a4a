//! What Bedrock refuses, and what goes wrong there on command.

use aws_sdk_bedrockruntime::error::ProvideErrorMetadata;
use serde_json::json;
use spillway_e2e::upstream::{Action, Failure, FakeUpstreams, Outcome, Point, Script};

use crate::bedrock::{MODEL, blob, body, client, invoke_stream, user};

#[tokio::test]
async fn what_bedrock_refuses_is_a_validation_exception() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let mut extra = body();
    extra["stream"] = json!(true);
    let error = client(&fakes)
        .invoke_model()
        .model_id(MODEL)
        .body(blob(&extra))
        .send()
        .await
        .unwrap_err();
    assert_eq!(error.code(), Some("ValidationException"));
    assert_eq!(
        error.message(),
        Some("stream: Extra inputs are not permitted")
    );

    let twice = client(&fakes)
        .converse()
        .model_id(MODEL)
        .messages(user("a"))
        .messages(user("b"))
        .send()
        .await;
    let error = twice.unwrap_err().into_service_error();
    assert!(error.is_validation_exception());
    assert!(error.message().unwrap().contains("must alternate"));

    // Encoded twice, an id keeps a percent sign.
    let encoded = MODEL.replace(':', "%3A");
    let error = client(&fakes)
        .invoke_model()
        .model_id(encoded)
        .body(blob(&body()))
        .send()
        .await
        .unwrap_err();
    assert_eq!(
        error.message(),
        Some("The provided model identifier is invalid.")
    );
}

#[tokio::test]
async fn every_status_comes_on_command() {
    let fakes = FakeUpstreams::start().await.unwrap();
    for (failure, code) in [
        (Failure::input_too_long(), "ValidationException"),
        (Failure::status(403), "AccessDeniedException"),
        (Failure::status(404), "ResourceNotFoundException"),
        (Failure::status(408), "ModelTimeoutException"),
        (Failure::status(424), "ModelErrorException"),
        (Failure::status(429), "ThrottlingException"),
        (
            Failure::status(429).error_type("ModelNotReadyException"),
            "ModelNotReadyException",
        ),
        (Failure::status(500), "InternalServerException"),
        (Failure::status(503), "ServiceUnavailableException"),
    ] {
        fakes.bedrock.next(failure.clone());
        let error = client(&fakes)
            .invoke_model()
            .model_id(MODEL)
            .body(blob(&body()))
            .send()
            .await
            .unwrap_err();
        assert_eq!(
            error.raw_response().unwrap().status().as_u16(),
            failure.status
        );
        assert_eq!(error.code(), Some(code));
    }
}

#[tokio::test]
async fn streams_end_with_exceptions_or_break_off() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let throttled = || Action::Error {
        error_type: "throttlingException".to_owned(),
        message: "Too many tokens".to_owned(),
    };
    for (point, events) in [
        (Point::Start, 0),
        (Point::Content, 2),
        (Point::Deltas(1), 3),
    ] {
        fakes
            .bedrock
            .next(Script::text("x").fault(point, throttled()));
        let (received, error) = invoke_stream(&client(&fakes), MODEL).await;
        assert_eq!(received.len(), events);
        assert!(error.unwrap().is_throttling_exception());
    }
    fakes
        .bedrock
        .next(Script::text("x").fault(Point::Deltas(1), Action::CutInside));
    let (received, error) = invoke_stream(&client(&fakes), MODEL).await;
    assert_eq!(received.len(), 3);
    assert!(error.is_some());
    let seen = fakes.bedrock.requests().pop().unwrap();
    assert_eq!(seen.answer.outcome, Outcome::Cut);

    fakes
        .bedrock
        .next(Script::text("x").fault(Point::Start, throttled()));
    let sent = client(&fakes)
        .converse_stream()
        .model_id(MODEL)
        .messages(user("a"))
        .send()
        .await;
    let mut stream = sent.unwrap().stream;
    let error = stream.recv().await.unwrap_err().into_service_error();
    assert!(error.is_throttling_exception(), "{error:?}");
}
