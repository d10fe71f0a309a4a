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
async fn a_stream_that_outlasts_the_grace_period_is_cut_off_and_metered() {
    let world = World::create().await;
    let mut proxy = world.spawn(&[("PROXY_SHUTDOWN_GRACE", "1")]);
    proxy.ready().await;
    world
        .fakes
        .plan
        .next(Script::text("a long answer").hold(Point::Deltas(1), "middle"));
    let stream = send(&proxy, world.key.expose(), &message("held", true)).await;
    assert!(world.fakes.gates.wait_held("middle", 1, within()).await);
    proxy.terminate();
    assert_eq!(proxy.ended().await.code(), Some(0));
    drop(stream);
    assert_eq!(world.rows(1).await.len(), 1);
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
async fn the_first_request_is_served_soon_after_the_start() {
    let world = World::create().await;
    let began = Instant::now();
    let proxy = world.spawn(&[]);
    let url = format!("{}/v1/messages", proxy.url());
    loop {
        let request = client()
            .post(&url)
            .header("x-api-key", world.key.expose())
            .json(&message("first", false));
        if let Ok(response) = request.send().await {
            assert_eq!(response.status(), 200);
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // Ten times what it takes on an idle machine: this one also compiles.
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
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
