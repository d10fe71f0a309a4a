//! Clients that leave.

use std::time::Duration;

use spillway_core::domain::usage::{Provider, UsageStatus};
use spillway_e2e::upstream::{Outcome, Point, Script, Usage};
use spillway_proxy::call::CircuitSettings;

use crate::stack::{LIMIT, Setup, Stack};

fn script() -> Script {
    Script::text("words that are never read to their end").usage(Usage {
        input_tokens: 99,
        output_tokens: 9,
        ..Usage::default()
    })
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_is_billed_for_what_came() {
    for plan_works in [true, false] {
        let mut stack = Stack::start(Setup::default()).await;
        let upstream = if plan_works {
            &stack.fakes.plan
        } else {
            &stack.fakes.bedrock
        };
        upstream.next(script().hold(Point::Deltas(1), "middle"));
        if !plan_works {
            stack.fakes.plan.down().await;
        }
        let mut response = stack.send(true).await;
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains("content_block_delta") {
            seen.extend_from_slice(
                &tokio::time::timeout(LIMIT, response.chunk())
                    .await
                    .unwrap()
                    .unwrap()
                    .unwrap(),
            );
        }
        drop(response);
        let outcome = stack.outcome().await;
        assert_eq!(
            (outcome.status, outcome.http_status),
            (UsageStatus::ClientAborted, 200)
        );
        assert_eq!(
            outcome.provider,
            Some(if plan_works {
                Provider::Plan
            } else {
                Provider::Bedrock
            })
        );
        assert_eq!(
            (
                outcome.tokens.input,
                outcome.tokens.output,
                outcome.estimated
            ),
            (99, 4, true)
        );
        stack.assert_metered_once();
        let upstream = if plan_works {
            &stack.fakes.plan
        } else {
            &stack.fakes.bedrock
        };
        let left = upstream
            .wait_requests(LIMIT, |seen| {
                seen.last()
                    .is_some_and(|one| one.answer.outcome == Outcome::ClientLeft)
            })
            .await;
        assert!(left.is_ok(), "the upstream's stream goes on: {left:?}");
    }
}

#[tokio::test]
async fn a_client_that_leaves_before_content_starts_no_fallback() {
    for stream in [false, true] {
        let mut stack = Stack::start(Setup::default()).await;
        stack.fakes.plan.next(script().hold(Point::Headers, "head"));
        let request = tokio::spawn(stack.request(stream).send());
        assert!(stack.fakes.gates.wait_held("head", 1, LIMIT).await);
        request.abort();
        let outcome = stack.outcome().await;
        assert_eq!(
            (outcome.status, outcome.http_status),
            (UsageStatus::ClientAborted, 499)
        );
        assert!(outcome.estimated && outcome.tokens.input > 0);
        assert_eq!(
            (outcome.is_fallback, stack.fakes.bedrock.request_count()),
            (false, 0)
        );
        stack.assert_metered_once();
    }
}

#[tokio::test]
async fn an_aborted_probe_decides_nothing() {
    let circuit = CircuitSettings {
        failure_threshold: 1,
        failure_rate: 0,
        failure_window: Duration::from_mins(1),
        reset_timeout: Duration::from_secs(1),
    };
    let mut stack = Stack::start(Setup {
        circuit,
        ..Setup::default()
    })
    .await;
    stack
        .fakes
        .plan
        .next(spillway_e2e::upstream::Failure::status(500));
    stack.send(true).await.text().await.unwrap();
    stack.outcome().await;
    let until = stack.router.open_circuits()[0].until;
    tokio::time::sleep_until(until.into()).await;
    stack.fakes.plan.next(script().hold(Point::Headers, "head"));
    let request = tokio::spawn(stack.request(true).send());
    assert!(stack.fakes.gates.wait_held("head", 1, LIMIT).await);
    request.abort();
    assert_eq!(stack.outcome().await.status, UsageStatus::ClientAborted);
    assert_eq!(stack.router.open_circuits().len(), 1, "it is still open");
    stack.send(true).await.text().await.unwrap();
    assert_eq!(
        stack.outcome().await.provider,
        Some(Provider::Plan),
        "and the next call is the probe"
    );
    assert_eq!(stack.router.open_circuits(), []);
}
