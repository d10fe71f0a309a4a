//! The circuit: when it opens, what it does to calls, and how it closes.

use std::time::Duration;

use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use spillway_e2e::upstream::{Action, Failure, Point, Script};
use spillway_proxy::call::CircuitSettings;

use crate::stack::{Setup, Stack};

fn circuit(reset_timeout: Duration) -> CircuitSettings {
    CircuitSettings {
        failure_threshold: 2,
        failure_rate: 50,
        failure_window: Duration::from_mins(1),
        reset_timeout,
    }
}

fn setup() -> Setup {
    Setup {
        circuit: circuit(Duration::from_mins(30)),
        ..Setup::default()
    }
}

/// Sends a message and returns who answered, and why.
async fn send(stack: &mut Stack, stream: bool) -> (Option<Provider>, Option<FallbackReason>) {
    let response = stack.send(stream).await;
    assert_eq!(response.status(), 200);
    response.text().await.unwrap();
    let outcome = stack.outcome().await;
    assert_eq!(outcome.status, UsageStatus::Ok);
    (outcome.provider, outcome.fallback_reason)
}

#[tokio::test]
async fn it_opens_at_the_threshold_and_then_the_plan_is_left_alone() {
    let mut stack = Stack::start(setup()).await;
    stack.fakes.plan.always(Failure::status(529));
    for _ in 0..2 {
        assert_eq!(
            send(&mut stack, true).await,
            (Some(Provider::Bedrock), Some(FallbackReason::Overloaded))
        );
    }
    assert_eq!(stack.router.open_circuits().len(), 1);
    for stream in [false, true] {
        assert_eq!(
            send(&mut stack, stream).await,
            (Some(Provider::Bedrock), Some(FallbackReason::CircuitOpen))
        );
    }
    assert_eq!(stack.fakes.plan.request_count(), 2);
}

#[tokio::test]
async fn failures_in_streams_count_and_clients_failures_do_not() {
    let mut stack = Stack::start(setup()).await;
    for status in [400, 404, 413, 422] {
        stack.fakes.plan.next(Failure::status(status));
        assert_eq!(stack.send(true).await.status(), status);
        stack.outcome().await;
    }
    stack
        .fakes
        .plan
        .next(Failure::status(429).message("long context"));
    send(&mut stack, true).await;
    assert_eq!(stack.router.open_circuits(), []);
    for action in [
        Action::Error {
            error_type: "api_error".to_owned(),
            message: String::new(),
        },
        Action::Cut,
    ] {
        stack
            .fakes
            .plan
            .next(Script::default().fault(Point::Content, action));
        send(&mut stack, true).await;
    }
    assert_eq!(stack.router.open_circuits().len(), 1);
}

#[tokio::test]
async fn a_probe_closes_it_again() {
    let mut stack = Stack::start(Setup {
        circuit: circuit(Duration::from_secs(1)),
        ..setup()
    })
    .await;
    stack.fakes.plan.down().await;
    for _ in 0..2 {
        send(&mut stack, true).await;
    }
    stack.fakes.plan.up().await;
    assert_eq!(
        send(&mut stack, true).await.1,
        Some(FallbackReason::CircuitOpen)
    );
    let until = stack.router.open_circuits()[0].until;
    tokio::time::sleep_until(until.into()).await;
    assert_eq!(send(&mut stack, true).await, (Some(Provider::Plan), None));
    assert_eq!(stack.router.open_circuits(), []);
}

#[tokio::test]
async fn a_rate_limit_opens_it_for_as_long_as_it_says() {
    let mut stack = Stack::start(setup()).await;
    stack
        .fakes
        .plan
        .always(Failure::status(429).retry_after(90));
    for _ in 0..2 {
        send(&mut stack, true).await;
    }
    let open = &stack.router.open_circuits()[0];
    assert_eq!(open.until - open.since, Duration::from_secs(90));
}

#[tokio::test]
async fn a_refused_account_opens_it_at_once_for_every_model() {
    let mut stack = Stack::start(setup()).await;
    stack.fakes.plan.next(Failure::credit_balance());
    assert_eq!(
        send(&mut stack, true).await.1,
        Some(FallbackReason::Account)
    );
    assert_eq!(stack.router.open_circuits()[0].model, None);
    assert_eq!(
        send(&mut stack, true).await.1,
        Some(FallbackReason::CircuitOpen)
    );
}

#[tokio::test]
async fn when_bedrock_fails_too_the_plan_is_tried_once() {
    let mut stack = Stack::start(setup()).await;
    stack.fakes.plan.next(Failure::status(500));
    stack.fakes.plan.next(Failure::status(500));
    for _ in 0..2 {
        send(&mut stack, true).await;
    }
    for stream in [false, true] {
        stack.fakes.bedrock.always(Failure::status(429));
        stack
            .fakes
            .plan
            .next(Failure::status(503).message("still away"));
        let response = stack.send(stream).await;
        assert_eq!(response.status(), 503);
        assert!(response.text().await.unwrap().contains("still away"));
        assert_eq!(
            stack.outcome().await.fallback_reason,
            Some(FallbackReason::CircuitOpen)
        );
    }
    // It has recovered meanwhile, which closes the circuit.
    assert_eq!(
        send(&mut stack, true).await,
        (Some(Provider::Plan), Some(FallbackReason::CircuitOpen))
    );
    assert_eq!(stack.router.open_circuits(), []);
    assert_eq!(send(&mut stack, true).await, (Some(Provider::Plan), None));
}

#[tokio::test]
async fn without_a_fallback_it_blocks_nothing() {
    let mut stack = Stack::start(Setup {
        bedrock: None,
        ..setup()
    })
    .await;
    stack.fakes.plan.always(Failure::status(529));
    for _ in 0..4 {
        assert_eq!(stack.send(true).await.status(), 529);
        stack.outcome().await;
    }
    assert_eq!(stack.fakes.plan.request_count(), 4);
    stack.fakes.plan.clear_rules();
    assert_eq!(send(&mut stack, true).await, (Some(Provider::Plan), None));
}
