//! Without a fallback every failure of the Plan reaches the client as it is.

use std::time::Duration;

use spillway_core::domain::usage::{Provider, UsageStatus};
use spillway_e2e::upstream::{Action, Failure, Point, Reply, Script};
use spillway_proxy::routing::Timeouts;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use url::Url;

use crate::stack::{Setup, Stack, events, final_error};

/// A Plan that answers the first request with `head`, and after a while with `rest`, and closes the connection.
async fn raw_plan(head: &'static str, pause: Duration, rest: &'static str) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let _ = connection.read(&mut [0; 4096]).await.unwrap();
        connection.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(pause).await;
        connection.write_all(rest.as_bytes()).await.unwrap();
    });
    Url::parse(&url).unwrap()
}

#[tokio::test]
async fn an_answer_without_stream_may_take_as_long_to_one_who_asked_for_a_stream() {
    let plan = raw_plan(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 46\r\n\r\n",
        Duration::from_millis(900),
        r#"{"usage":{"input_tokens":3,"output_tokens":5}}"#,
    );
    let mut stack = Stack::start(Setup {
        timeouts: Timeouts {
            plan_first_byte: Duration::from_millis(300),
            ..Setup::default().timeouts
        },
        ..Setup::of_plan_at(plan.await)
    })
    .await;
    assert_eq!(stack.send(true).await.status(), 200);
    assert_eq!(stack.outcome().await.tokens.output, 5);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_paid_by_an_estimate() {
    let plan = raw_plan(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 46\r\n\r\n{",
        Duration::ZERO,
        "",
    );
    let mut stack = Stack::start(Setup::of_plan_at(plan.await)).await;
    assert_eq!(stack.send(false).await.status(), 502);
    let outcome = stack.outcome().await;
    assert_eq!(
        (outcome.status, outcome.estimated, outcome.tokens.is_zero()),
        (UsageStatus::UpstreamError, true, false)
    );
}

#[tokio::test]
async fn an_error_whose_body_breaks_off_keeps_its_headers() {
    let plan = raw_plan(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nretry-after: 7\r\nrequest-id: req_plan\r\nx-should-retry: true\r\ncontent-length: 100\r\n\r\nhalf",
        Duration::ZERO,
        "",
    );
    let mut stack = Stack::start(Setup::of_plan_at(plan.await)).await;
    let response = stack.send(true).await;
    assert_eq!(response.status(), 429);
    for (name, value) in [
        ("retry-after", "7"),
        ("request-id", "req_plan"),
        ("x-should-retry", "true"),
        ("content-type", "application/json"),
    ] {
        assert_eq!(response.headers()[name], value);
    }
    let error: serde_json::Value = response.json().await.unwrap();
    assert_eq!(error["type"], "error");
    stack.outcome().await;
}

#[tokio::test]
async fn errors_pass_unmodified_with_body_and_headers() {
    let mut stack = Stack::start(Setup::plan_only()).await;
    for (status, error_type, message, metered) in [
        (
            400,
            "invalid_request_error",
            "messages: bad",
            UsageStatus::ClientError,
        ),
        (
            400,
            "invalid_request_error",
            "Your credit balance is too low",
            UsageStatus::UpstreamError,
        ),
        (
            401,
            "authentication_error",
            "invalid x-api-key",
            UsageStatus::UpstreamError,
        ),
        (402, "billing_error", "pay", UsageStatus::UpstreamError),
        (
            403,
            "permission_error",
            "Your API key does not have permission",
            UsageStatus::UpstreamError,
        ),
        (404, "not_found_error", "model", UsageStatus::ClientError),
        (413, "request_too_large", "large", UsageStatus::ClientError),
        (
            422,
            "invalid_request_error",
            "Input tag 'x'",
            UsageStatus::ClientError,
        ),
        (
            429,
            "rate_limit_error",
            "slower",
            UsageStatus::UpstreamError,
        ),
        (
            429,
            "rate_limit_error",
            "long context",
            UsageStatus::UpstreamError,
        ),
        (500, "api_error", "broken", UsageStatus::UpstreamError),
        (503, "api_error", "away", UsageStatus::UpstreamError),
        (
            529,
            "overloaded_error",
            "Overloaded",
            UsageStatus::UpstreamError,
        ),
    ] {
        for stream in [false, true] {
            let body = format!(
                r#"{{ "type":"error","error":{{"type":"{error_type}","message":"{message}"}},"extra":1 }}"#
            );
            stack.fakes.plan.next(Failure {
                status,
                body: Some(body.clone()),
                retry_after: Some(7),
                headers: [("x-should-retry".to_owned(), "true".to_owned())].into(),
                ..Failure::default()
            });
            let response = stack.send(stream).await;
            assert_eq!(response.status(), status);
            assert_eq!(response.headers()["retry-after"], "7");
            assert_eq!(response.headers()["x-should-retry"], "true");
            assert!(response.headers().contains_key("request-id"));
            assert_eq!(response.text().await.unwrap(), body);
            let outcome = stack.outcome().await;
            assert_eq!(
                (outcome.status, outcome.http_status),
                (metered, status),
                "{status} {message}"
            );
            assert_eq!(
                (outcome.provider, outcome.is_fallback),
                (Some(Provider::Plan), false)
            );
            assert!(outcome.tokens.is_zero() && !outcome.estimated);
        }
    }
}

#[tokio::test]
async fn an_error_in_a_stream_passes_unmodified_before_and_after_content() {
    let mut stack = Stack::start(Setup::plan_only()).await;
    for (error_type, metered) in [
        ("overloaded_error", UsageStatus::UpstreamError),
        ("rate_limit_error", UsageStatus::UpstreamError),
        ("authentication_error", UsageStatus::UpstreamError),
        ("invalid_request_error", UsageStatus::ClientError),
    ] {
        for at in [Point::Start, Point::Content, Point::Deltas(1)] {
            let error = Action::Error {
                error_type: error_type.to_owned(),
                message: "told so".to_owned(),
            };
            stack
                .fakes
                .plan
                .next(Script::text("some words that are cut").fault(at, error));
            let response = stack.send(true).await;
            assert_eq!(response.status(), 200);
            let events = events(&response.text().await.unwrap());
            assert_eq!(final_error(&events), Some(error_type));
            assert_eq!(events.iter().filter(|(name, _)| name == "error").count(), 1);
            assert_eq!(events.last().unwrap().1["error"]["message"], "told so");
            let outcome = stack.outcome().await;
            assert_eq!(outcome.status, metered);
            // Before content the upstream bills what it reported, which is nothing before `message_start`.
            assert_eq!(outcome.estimated, at == Point::Deltas(1), "{at:?}");
            if at == Point::Start {
                assert!(outcome.tokens.is_zero());
            }
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_ends_in_whole_events_and_an_error() {
    let mut stack = Stack::start(Setup::plan_only()).await;
    for action in [Action::Cut, Action::CutInside, Action::Reset] {
        for at in [Point::Start, Point::Content, Point::Deltas(2), Point::End] {
            stack.fakes.plan.next(
                Script::text("some words that are cut off in the middle").fault(at, action.clone()),
            );
            let events = events(&stack.send(true).await.text().await.unwrap());
            assert_eq!(final_error(&events), Some("api_error"), "{action:?} {at:?}");
            let outcome = stack.outcome().await;
            assert_eq!(
                (outcome.status, outcome.http_status, outcome.estimated),
                (UsageStatus::UpstreamError, 200, true)
            );
        }
    }
}

#[tokio::test]
async fn no_connection_is_502_and_silence_504() {
    let timeouts = spillway_proxy::routing::Timeouts {
        plan_first_byte: Duration::from_millis(300),
        plan_request: Duration::from_millis(300),
        ..Setup::default().timeouts
    };
    let mut stack = Stack::start(Setup {
        timeouts,
        ..Setup::plan_only()
    })
    .await;
    for stream in [false, true] {
        for (reply, status, error_type) in [
            (Reply::Hang, 504, "timeout_error"),
            (Reply::Reset, 502, "api_error"),
            (Reply::Close, 502, "api_error"),
        ] {
            stack.fakes.plan.next(reply);
            let response = stack.send(stream).await;
            assert_eq!(response.status(), status);
            let body: serde_json::Value = response.json().await.unwrap();
            assert_eq!(
                (&body["type"], &body["error"]["type"]),
                (&"error".into(), &error_type.into())
            );
            let outcome = stack.outcome().await;
            assert_eq!(
                (outcome.status, outcome.http_status),
                (UsageStatus::UpstreamError, status)
            );
        }
        stack.fakes.plan.refuse().await;
        assert_eq!(stack.send(stream).await.status(), 502);
        stack.outcome().await;
        stack.fakes.plan.up().await;
    }
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends_in_an_error() {
    let timeouts = spillway_proxy::routing::Timeouts {
        plan_idle: Duration::from_millis(300),
        ..Setup::default().timeouts
    };
    let mut stack = Stack::start(Setup {
        timeouts,
        ..Setup::plan_only()
    })
    .await;
    stack
        .fakes
        .plan
        .next(Script::text("some words that stop").hold(Point::Deltas(1), "never"));
    let events = events(&stack.send(true).await.text().await.unwrap());
    assert_eq!(final_error(&events), Some("timeout_error"));
    assert_eq!(stack.outcome().await.status, UsageStatus::UpstreamError);
}
