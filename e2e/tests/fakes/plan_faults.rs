//! What goes wrong at the Plan on command.

use std::time::Duration;

use serde_json::json;
use spillway_e2e::upstream::{
    Action, Failure, FakeUpstreams, Mode, Operation, Outcome, Point, Reply, Rule, Script, When,
};

use crate::support::{LIMIT, body, client, json_of, names, post, send};

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
    let probe = || client().get(&fakes.plan_url).send();
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
