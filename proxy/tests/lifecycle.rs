//! Start and end of the process.

mod support;

use std::time::{Duration, Instant};

use spillway_e2e::upstream::{Point, Script};
use support::{World, client, message, send, within};

#[tokio::test]
async fn on_sigterm_readiness_goes_first_the_stream_is_finished_and_the_spool_flushed() {
    let mut world = World::create().await;
    let mut proxy = world.spawn(&[("PROXY_DRAIN_DELAY", "2")]);
    proxy.ready().await;
    world
        .fakes
        .plan
        .next(Script::text("a long answer").hold(Point::Deltas(1), "middle"));
    let stream = send(&proxy, world.key.expose(), &message("held", true)).await;
    assert!(world.fakes.gates.wait_held("middle", 1, within()).await);
    proxy.terminate();
    while proxy.admin("/readyz").await.unwrap().0 != 503 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let late = send(&proxy, world.key.expose(), &message("late", false)).await;
    assert_eq!(
        late.status(),
        200,
        "endpoints are removed only after a while"
    );
    until_closed(&proxy).await;
    world.fakes.gates.release("middle");
    assert!(stream.text().await.unwrap().contains("message_stop"));
    assert_eq!(proxy.ended().await.code(), Some(0));
    let rows = world.rows(2).await;
    assert!(rows.iter().all(|row| row.status == "ok"), "{rows:?}");
    world.postgres.stop();
}

async fn until_closed(proxy: &support::Proxy) {
    let until = Instant::now() + within();
    while tokio::net::TcpStream::connect(proxy.address())
        .await
        .is_ok()
    {
        assert!(Instant::now() < until, "it still accepts");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_outlasts_the_grace_period_ends_in_words_and_as_interrupted() {
    let world = World::create().await;
    let mut proxy = world.spawn(&[("PROXY_SHUTDOWN_GRACE", "1")]);
    proxy.ready().await;
    let plan = &world.fakes.plan;
    plan.next(Script::text("a long answer").hold(Point::Deltas(1), "middle"));
    let stream = send(&proxy, world.key.expose(), &message("held", true)).await;
    assert!(world.fakes.gates.wait_held("middle", 1, within()).await);
    plan.next(Script::text("another").hold(Point::Start, "start"));
    let body = message("not begun", false);
    let pending = send(&proxy, world.key.expose(), &body);
    let end = async {
        assert!(world.fakes.gates.wait_held("start", 1, within()).await);
        proxy.terminate();
        stream.text().await.unwrap()
    };
    let (refused, text) = tokio::join!(pending, end);
    assert_eq!(proxy.ended().await.code(), Some(0));
    assert!(text.contains("content_block_delta"), "{text}");
    let last = text.rsplit("event: ").next().unwrap();
    assert!(
        last.starts_with("error\n") && last.contains("overloaded_error") && last.ends_with("\n\n"),
        "{text}"
    );
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let rows = world.rows(2).await;
    assert!(
        rows.len() == 2 && rows.iter().all(|row| row.status == "interrupted"),
        "{rows:?}"
    );
    assert!(rows[0].estimated && rows[0].output_tokens > 0, "{rows:?}");
}

#[tokio::test]
async fn told_to_end_twice_it_does_not_wait() {
    let world = World::create().await;
    for (delay, wait_for_close) in [("0", true), ("3600", false)] {
        let mut proxy = world.spawn(&[("PROXY_DRAIN_DELAY", delay)]);
        proxy.ready().await;
        let held = Script::text("a long answer").hold(Point::Deltas(1), delay);
        world.fakes.plan.next(held);
        let stream = send(&proxy, world.key.expose(), &message("held", true)).await;
        assert!(world.fakes.gates.wait_held(delay, 1, within()).await);
        proxy.terminate();
        if wait_for_close {
            until_closed(&proxy).await;
        } else {
            while proxy.admin("/readyz").await.unwrap().0 != 503 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        proxy.terminate();
        assert!(stream.text().await.unwrap().contains("event: error"));
        assert_eq!(proxy.ended().await.code(), Some(0));
    }
    let rows = world.rows(2).await;
    assert!(
        rows.iter().all(|row| row.status == "interrupted"),
        "{rows:?}"
    );
}

#[tokio::test]
async fn a_wrong_environment_is_one_message_and_exit_code_2() {
    let world = World::create().await;
    let mut proxy = world.spawn(&[
        ("PROXY_LISTEN_ADDR", "nowhere"),
        ("PROXY_PLAN_API_KEY", "sk-ant-oat01-not-allowed"),
        ("PROXY_PLAN_HOLD_BACK", "soon"),
    ]);
    assert_eq!(proxy.ended().await.code(), Some(2));
    for name in [
        "PROXY_LISTEN_ADDR",
        "PROXY_PLAN_API_KEY",
        "PROXY_PLAN_HOLD_BACK",
    ] {
        assert!(proxy.log().contains(name), "{}", proxy.log());
    }
    assert!(!proxy.log().contains("not-allowed"));
}

#[tokio::test]
async fn a_request_that_comes_while_it_starts_is_answered() {
    let world = World::create().await;
    let proxy = world.spawn(&[]);
    let url = format!("{}/v1/messages", proxy.url());
    let until = Instant::now() + within();
    loop {
        let request = client()
            .post(&url)
            .header("x-api-key", world.key.expose())
            .json(&message("first", false));
        if let Ok(response) = request.send().await {
            assert_eq!(response.status(), 200);
            break;
        }
        assert!(Instant::now() < until, "it does not listen");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_admin_listener_shows_metrics_and_serves_no_messages() {
    let world = World::create().await;
    let proxy = world.start().await;
    assert_eq!(
        send(&proxy, world.key.expose(), &message("x", false))
            .await
            .status(),
        200
    );
    let (status, text) = proxy.admin("/metrics").await.unwrap();
    assert_eq!(status, 200);
    for name in [
        r#"spillway_requests_total{code="200",provider="plan",route="messages"} 1"#,
        "spillway_overhead_seconds_count 1",
        "spillway_directory_keys 1",
        r#"spillway_tokens_total{kind="input",provider="plan"}"#,
    ] {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert_eq!(proxy.admin("/v1/messages").await.unwrap().0, 404);
    assert_eq!(
        client()
            .get(format!("{}/metrics", proxy.url()))
            .send()
            .await
            .unwrap()
            .status(),
        404
    );
}
