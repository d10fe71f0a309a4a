//! Streams that fail while they run, with a fallback.

use std::time::Duration;

use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use spillway_e2e::upstream::{Action, Block, Point, Script, Usage};
use spillway_proxy::routing::Timeouts;

use crate::stack::{LIMIT, Setup, Stack, events, final_error, text};

fn error(error_type: &str) -> Action {
    Action::Error {
        error_type: error_type.to_owned(),
        message: "told so".to_owned(),
    }
}

fn plan_script() -> Script {
    Script::text("words of the plan that are cut off").usage(Usage {
        input_tokens: 99,
        output_tokens: 9,
        ..Usage::default()
    })
}

#[tokio::test]
async fn a_failure_before_content_is_invisible_and_its_usage_is_kept() {
    let mut stack = Stack::start(Setup::default()).await;
    for (at, action, reason) in [
        (
            Point::Start,
            error("overloaded_error"),
            FallbackReason::Overloaded,
        ),
        (
            Point::Content,
            error("overloaded_error"),
            FallbackReason::Overloaded,
        ),
        (
            Point::Content,
            error("api_error"),
            FallbackReason::ServerError,
        ),
        (
            Point::Content,
            error("rate_limit_error"),
            FallbackReason::RateLimited,
        ),
        (Point::Start, Action::Cut, FallbackReason::StreamBroken),
        (Point::Content, Action::Cut, FallbackReason::StreamBroken),
        (
            Point::Content,
            Action::CutInside,
            FallbackReason::StreamBroken,
        ),
        (Point::Content, Action::Reset, FallbackReason::StreamBroken),
    ] {
        stack
            .fakes
            .plan
            .next(plan_script().fault(at, action.clone()));
        stack.fakes.bedrock.next(Script::text("words of bedrock"));
        let events = events(&stack.send(true).await.text().await.unwrap());
        assert_eq!(text(&events), "words of bedrock", "{at:?} {action:?}");
        assert_eq!(
            events
                .iter()
                .filter(|(name, _)| name == "message_start")
                .count(),
            1
        );
        let outcome = stack.outcome().await;
        assert_eq!(
            (outcome.status, outcome.provider),
            (UsageStatus::Ok, Some(Provider::Bedrock))
        );
        assert_eq!(outcome.fallback_reason, Some(reason), "{at:?} {action:?}");
        let abandoned = outcome
            .abandoned
            .map(|abandoned| (abandoned.provider, abandoned.tokens.input));
        let expected = (at == Point::Content).then_some((Provider::Plan, 99));
        assert_eq!(abandoned, expected, "{at:?} {action:?}");
    }
}

#[tokio::test]
async fn a_failure_after_content_is_an_error_event_and_no_second_answer() {
    let mut stack = Stack::start(Setup::default()).await;
    for (action, error_type) in [
        (error("overloaded_error"), "overloaded_error"),
        (Action::Cut, "api_error"),
        (Action::CutInside, "api_error"),
        (Action::Reset, "api_error"),
    ] {
        stack
            .fakes
            .plan
            .next(plan_script().fault(Point::Deltas(1), action.clone()));
        let response = stack.send(true).await;
        assert_eq!(response.status(), 200);
        let events = events(&response.text().await.unwrap());
        assert_eq!(text(&events), "words of the pla", "{action:?}");
        assert_eq!(final_error(&events), Some(error_type), "{action:?}");
        let outcome = stack.outcome().await;
        assert_eq!(
            (outcome.status, outcome.provider),
            (UsageStatus::UpstreamError, Some(Provider::Plan))
        );
        assert_eq!(
            (
                outcome.tokens.input,
                outcome.tokens.output,
                outcome.estimated
            ),
            (99, 4, true),
            "16 characters are 4 tokens"
        );
    }
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}

#[tokio::test]
async fn the_clients_own_failure_in_a_stream_passes_as_it_is() {
    let mut stack = Stack::start(Setup::default()).await;
    stack
        .fakes
        .plan
        .next(plan_script().fault(Point::Content, error("invalid_request_error")));
    let response = stack.send(true).await;
    assert_eq!(response.status(), 200);
    let events = events(&response.text().await.unwrap());
    assert_eq!(final_error(&events), Some("invalid_request_error"));
    assert_eq!(events[0].0, "message_start");
    let outcome = stack.outcome().await;
    assert_eq!(
        (outcome.status, outcome.tokens.input),
        (UsageStatus::ClientError, 99)
    );
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}

#[tokio::test]
async fn a_tool_call_is_content_and_an_answer_without_any_ends_the_wait() {
    let mut stack = Stack::start(Setup::default()).await;
    let call = Block::ToolUse {
        id: "toolu_1".to_owned(),
        name: "look".to_owned(),
        input: serde_json::json!({}),
    };
    stack
        .fakes
        .plan
        .next(Script::content(vec![call]).fault(Point::Content, error("overloaded_error")));
    let events_of_call = events(&stack.send(true).await.text().await.unwrap());
    assert_eq!(
        final_error(&events_of_call),
        Some("overloaded_error"),
        "the client has seen the call begin"
    );
    stack.outcome().await;
    stack.fakes.plan.next(Script {
        stop_reason: Some("refusal".to_owned()),
        ..Script::content(Vec::new())
    });
    let refusal = events(&stack.send(true).await.text().await.unwrap());
    assert_eq!(refusal.last().unwrap().0, "message_stop");
    assert_eq!(stack.outcome().await.status, UsageStatus::Ok);
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}

#[tokio::test]
async fn a_stream_is_held_no_longer_than_told() {
    let timeouts = Timeouts {
        hold_back: Duration::from_millis(100),
        ..Setup::default().timeouts
    };
    let mut stack = Stack::start(Setup {
        timeouts,
        ..Setup::default()
    })
    .await;
    let script = plan_script()
        .hold(Point::Content, "held")
        .fault(Point::Content, error("overloaded_error"));
    stack.fakes.plan.next(script);
    let response = stack.send(true).await;
    assert_eq!(
        response.status(),
        200,
        "the head came although there is no content"
    );
    stack.fakes.gates.release("held");
    let events = events(&response.text().await.unwrap());
    assert_eq!(final_error(&events), Some("overloaded_error"));
    assert_eq!(stack.outcome().await.status, UsageStatus::UpstreamError);
    assert_eq!(stack.fakes.bedrock.request_count(), 0);
}

#[tokio::test]
async fn content_leaves_while_the_rest_is_still_being_made() {
    for plan_works in [true, false] {
        let mut stack = Stack::start(Setup::default()).await;
        let script = plan_script().hold(Point::Deltas(1), "middle");
        if plan_works {
            stack.fakes.plan.next(script);
        } else {
            stack.fakes.plan.down().await;
            stack.fakes.bedrock.next(script);
        }
        let mut response = stack.send(true).await;
        let mut seen = String::new();
        while !seen.contains("content_block_delta") {
            let chunk = tokio::time::timeout(LIMIT, response.chunk())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            seen.push_str(std::str::from_utf8(&chunk).unwrap());
        }
        stack.fakes.gates.release("middle");
        seen.push_str(&response.text().await.unwrap());
        assert_eq!(text(&events(&seen)), "words of the plan that are cut off");
        assert_eq!(stack.outcome().await.status, UsageStatus::Ok);
    }
}
