//! With a fallback a failing Plan is invisible, and what is the client's own fault stays so.

use std::time::Duration;

use serde_json::json;
use spillway_core::domain::models::BedrockApi;
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use spillway_e2e::upstream::{Action, Failure, Operation, Point, Reply, Script, Usage};
use spillway_proxy::call::CircuitSettings;
use spillway_proxy::routing::Timeouts;

use crate::stack::{BEDROCK_MODEL, Setup, Stack, body, events, text};

const USAGE: Usage = Usage {
    input_tokens: 17,
    output_tokens: 5,
    cache_read_input_tokens: 3,
    cache_creation_5m_input_tokens: 2,
    cache_creation_1h_input_tokens: 0,
};

/// Sends one message while the Plan fails so, and asserts that Bedrock answers it.
async fn assert_falls_back(stack: &mut Stack, reply: Reply, stream: bool, reason: FallbackReason) {
    stack.fakes.plan.next(reply.clone());
    stack
        .fakes
        .bedrock
        .next(Script::text("from the other side").usage(USAGE));
    let response = stack.send(stream).await;
    assert_eq!(response.status(), 200, "{reply:?}");
    assert!(response.headers().contains_key("request-id"));
    let content_type = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    let body = response.text().await.unwrap();
    if stream {
        assert!(content_type.starts_with("text/event-stream"));
        let events = events(&body);
        assert_eq!(text(&events), "from the other side");
        assert_eq!(
            events.first().unwrap().1["message"]["usage"]["input_tokens"],
            17
        );
        assert_eq!(events.last().unwrap().0, "message_stop");
        assert!(!body.contains("amazon-bedrock"));
    } else {
        assert_eq!(content_type, "application/json");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&body).unwrap()["content"][0]["text"],
            "from the other side"
        );
    }
    let outcome = stack.outcome().await;
    assert_eq!(
        (outcome.status, outcome.provider),
        (UsageStatus::Ok, Some(Provider::Bedrock)),
        "{reply:?}"
    );
    assert_eq!(
        (outcome.is_fallback, outcome.fallback_reason),
        (true, Some(reason)),
        "{reply:?}"
    );
    assert_eq!(outcome.upstream_model.as_deref(), Some(BEDROCK_MODEL));
    let tokens = outcome.tokens;
    assert_eq!(
        (
            tokens.input,
            tokens.output,
            tokens.cache_read,
            tokens.cache_creation()
        ),
        (17, 5, 3, 2)
    );
    assert!(!outcome.estimated);
    stack.assert_metered_once();
    let asked = stack.fakes.bedrock.requests();
    let operation = if stream {
        Operation::InvokeStream
    } else {
        Operation::Invoke
    };
    assert_eq!(asked.last().unwrap().operation, operation);
}

#[tokio::test]
async fn every_failure_of_upstream_and_account_falls_back() {
    let mut stack = Stack::start(Setup::default()).await;
    for (failure, reason) in [
        (Failure::status(500), FallbackReason::ServerError),
        (Failure::status(502), FallbackReason::ServerError),
        (Failure::status(503), FallbackReason::ServerError),
        (Failure::status(504), FallbackReason::ServerError),
        (Failure::status(529), FallbackReason::Overloaded),
        (Failure::status(429), FallbackReason::RateLimited),
        (
            Failure::status(429).message("Extra usage is required for long context requests."),
            FallbackReason::Feature,
        ),
        (Failure::status(401), FallbackReason::Account),
        (Failure::status(402), FallbackReason::Account),
        (
            Failure::status(403).message("Your API key does not have permission."),
            FallbackReason::Account,
        ),
        (Failure::credit_balance(), FallbackReason::Account),
        (Failure::usage_limit(), FallbackReason::Account),
    ] {
        for stream in [false, true] {
            // Account failures open the circuit, so each case has a router of its own memory.
            if reason == FallbackReason::Account {
                stack = Stack::start(Setup::default()).await;
            }
            assert_falls_back(&mut stack, failure.clone().into(), stream, reason).await;
        }
    }
}

#[tokio::test]
async fn no_connection_and_no_answer_fall_back() {
    let mut stack = Stack::start(Setup::default()).await;
    for stream in [false, true] {
        assert_falls_back(
            &mut stack,
            Reply::Reset,
            stream,
            FallbackReason::StreamBroken,
        )
        .await;
        assert_falls_back(
            &mut stack,
            Reply::Close,
            stream,
            FallbackReason::StreamBroken,
        )
        .await;
        stack.fakes.plan.refuse().await;
        stack.fakes.bedrock.next(Script::text("hello"));
        assert_eq!(stack.send(stream).await.status(), 200);
        assert_eq!(
            stack.outcome().await.fallback_reason,
            Some(FallbackReason::Connect)
        );
        stack.fakes.plan.up().await;
    }
}

#[tokio::test]
async fn a_stream_without_first_byte_falls_back_and_a_silent_answer_is_no_second_bill() {
    let timeouts = Timeouts {
        plan_first_byte: Duration::from_millis(300),
        plan_request: Duration::from_millis(300),
        ..Setup::default().timeouts
    };
    let mut stack = Stack::start(Setup {
        timeouts,
        ..Setup::default()
    })
    .await;
    assert_falls_back(&mut stack, Reply::Hang, true, FallbackReason::Timeout).await;
    let before = stack.fakes.bedrock.request_count();
    stack.fakes.plan.next(Reply::Hang);
    let response = stack.send(false).await;
    assert_eq!(response.status(), 504);
    assert_eq!(response.headers()["x-should-retry"], "false");
    let outcome = stack.outcome().await;
    assert_eq!(
        (outcome.provider, outcome.estimated, outcome.is_fallback),
        (Some(Provider::Plan), true, false)
    );
    assert_eq!(stack.fakes.bedrock.request_count(), before);
    // Bedrock's is at work and paid, whatever the Plan said before.
    stack.fakes.plan.next(Failure::status(529));
    stack.fakes.bedrock.next(Reply::Hang);
    assert_eq!(stack.send(false).await.status(), 504);
    let outcome = stack.outcome().await;
    assert_eq!(
        (outcome.provider, outcome.estimated, outcome.is_fallback),
        (Some(Provider::Bedrock), true, true)
    );
    assert!(!outcome.tokens.is_zero());
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_given_by_the_other_upstream() {
    for (plan_works, api) in [
        (true, BedrockApi::Auto),
        (false, BedrockApi::InvokeModel),
        (false, BedrockApi::Converse),
    ] {
        let mut stack = Stack::start(Setup {
            bedrock_api: api,
            circuit: CircuitSettings {
                failure_threshold: 1,
                ..Setup::default().circuit
            },
            ..Setup::default()
        })
        .await;
        if !plan_works {
            // From here on Bedrock is asked first, and the Plan after it.
            stack.fakes.plan.next(Failure::status(529));
            stack.send(false).await;
            stack.outcome().await;
        }
        let upstream = if plan_works {
            &stack.fakes.plan
        } else {
            &stack.fakes.bedrock
        };
        upstream.next(Script::text("half of it").fault(Point::Content, Action::Cut));
        assert_eq!(stack.send(false).await.status(), 200, "{api:?}");
        let outcome = stack.outcome().await;
        let provider = if plan_works {
            Provider::Bedrock
        } else {
            Provider::Plan
        };
        assert_eq!(
            (outcome.status, outcome.provider, outcome.estimated),
            (UsageStatus::Ok, Some(provider), false),
            "{api:?}"
        );
    }
}

#[tokio::test]
async fn the_clients_own_failures_stay() {
    let mut stack = Stack::start(Setup::default()).await;
    for status in [400, 404, 413, 422] {
        for stream in [false, true] {
            stack.fakes.plan.next(Failure::status(status));
            assert_eq!(stack.send(stream).await.status(), status);
            assert_eq!(stack.outcome().await.status, UsageStatus::ClientError);
        }
    }
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}

#[tokio::test]
async fn when_both_fail_the_more_useful_error_is_shown() {
    for (plan, bedrock, status, message) in [
        (
            Failure::status(529),
            Failure::status(429),
            529,
            "Overloaded",
        ),
        (
            Failure::status(529),
            Failure::input_too_long(),
            400,
            "Input is too long.",
        ),
        (
            Failure::status(529),
            Failure::input_too_long_for_model(),
            400,
            "prompt is too long: the input is longer than the requested model takes",
        ),
        (
            Failure::status(529),
            Failure::status(400).message("tools.0.custom.new: Extra inputs are not permitted"),
            529,
            "Overloaded",
        ),
        (
            Failure::status(529),
            Failure::status(400).message("arn:aws:bedrock is wrong"),
            529,
            "Overloaded",
        ),
        (
            Failure::status(401).message("invalid x-api-key"),
            Failure::status(403),
            401,
            "invalid x-api-key",
        ),
        (
            Failure::status(401).message("invalid x-api-key"),
            Failure::status(429),
            429,
            "Bedrock is throttling",
        ),
    ] {
        for stream in [false, true] {
            let mut stack = Stack::start(Setup::default()).await;
            stack.fakes.plan.next(plan.clone());
            stack.fakes.bedrock.next(bedrock.clone());
            let response = stack.send(stream).await;
            assert_eq!(response.status(), status, "{plan:?} {bedrock:?}");
            let body: serde_json::Value = response.json().await.unwrap();
            assert_eq!(
                (&body["type"], &body["error"]["message"]),
                (&"error".into(), &message.into())
            );
            let outcome = stack.outcome().await;
            assert_eq!(
                (outcome.http_status, outcome.provider, outcome.is_fallback),
                (status, Some(Provider::Bedrock), true)
            );
            assert!(outcome.tokens.is_zero());
        }
    }
}

#[tokio::test]
async fn what_bedrock_does_not_have_is_told_where_that_helps() {
    let url = json!([{"type": "image", "source": {"type": "url", "url": "https://example.com"}}]);
    let mut by_url = body(false);
    by_url["messages"][0]["content"] = url;
    let mut guarded = body(false);
    guarded["safeguards"] = json!({"level": "strict"});
    let refused = || Failure::status(401).message("invalid x-api-key");
    for (body, plan, status, words) in [
        // Clients leave this out by themselves, and Bedrock serves them through the outage.
        (
            &guarded,
            Failure::status(529),
            400,
            "capability_rejected: safeguards",
        ),
        (&guarded, refused(), 400, "capability_rejected: safeguards"),
        // Of this nobody can let go, but the Plan may be back soon.
        (&by_url, Failure::status(529), 529, "Overloaded"),
        (
            &by_url,
            refused(),
            400,
            "capability_rejected: image_source_url",
        ),
    ] {
        let mut stack = Stack::start(Setup {
            bedrock_api: BedrockApi::Converse,
            ..Setup::default()
        })
        .await;
        stack.fakes.plan.next(plan);
        let response = stack.send_body(body).await;
        assert_eq!(response.status(), status, "{words}");
        let error: serde_json::Value = response.json().await.unwrap();
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(words), "{message}");
        assert_eq!(stack.fakes.bedrock.request_count(), 0);
        stack.outcome().await;
    }
}

#[tokio::test]
async fn an_exception_of_bedrocks_before_content_is_the_answers_status() {
    let exception = || Action::Error {
        error_type: "throttlingException".to_owned(),
        message: "slow down".to_owned(),
    };
    for bedrock_api in [BedrockApi::InvokeModel, BedrockApi::Converse] {
        for (plan, point, status, message) in [
            (true, Point::Start, 529, "Overloaded"),
            (true, Point::Content, 529, "Overloaded"),
            (false, Point::Start, 429, "Bedrock is throttling"),
        ] {
            let mut stack = Stack::start(Setup {
                plan,
                bedrock_api,
                ..Setup::default()
            })
            .await;
            if plan {
                stack.fakes.plan.next(Failure::status(529));
            }
            let script = Script::text("never seen").fault(point, exception());
            stack.fakes.bedrock.next(script);
            let response = stack.send(true).await;
            assert_eq!(response.status(), status, "{bedrock_api:?} {point:?}");
            let error: serde_json::Value = response.json().await.unwrap();
            assert_eq!(error["error"]["message"], message);
            assert_eq!(stack.outcome().await.status, UsageStatus::UpstreamError);
        }
    }
}

#[tokio::test]
async fn bedrock_alone_serves_callers_without_a_plan() {
    let mut stack = Stack::start(Setup {
        plan: false,
        ..Setup::default()
    })
    .await;
    stack.fakes.bedrock.next(Script::text("hello"));
    assert_eq!(stack.send(true).await.status(), 200);
    assert_eq!(
        stack.outcome().await.fallback_reason,
        Some(FallbackReason::NoPlanCredential)
    );
    let mut stack = Stack::start(Setup {
        plan: false,
        ..Setup::plan_only()
    })
    .await;
    assert_eq!(stack.send(true).await.status(), 503);
    assert_eq!(stack.outcome().await.provider, None);
}
