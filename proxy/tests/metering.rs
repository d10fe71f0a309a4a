//! One row for each request, whatever is killed.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use spillway_e2e::upstream::{Point, Script};
use support::{World, message, send, try_send, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_under_load_every_request_has_its_row_once_and_those_cut_off_are_interrupted()
{
    const CLIENTS: usize = 8;
    const CUT_OFF: usize = 3;
    let world = World::create().await;
    let mut proxy = world.start().await;
    // Some streams stop in the middle, and will never end.
    for _ in 0..CUT_OFF {
        world
            .fakes
            .plan
            .next(Script::text("a long answer").hold(Point::Deltas(1), "middle"));
    }
    let mut held = Vec::new();
    for _ in 0..CUT_OFF {
        held.push(send(&proxy, world.key.expose(), &message("held", true)).await);
    }
    assert!(
        world
            .fakes
            .gates
            .wait_held("middle", CUT_OFF, within())
            .await
    );
    let load: Vec<_> = (0..CLIENTS)
        .map(|_| tokio::spawn(ask_until_killed(proxy.url(), world.key.expose().to_owned())))
        .collect();
    world
        .fakes
        .plan
        .wait_requests(within(), |seen| seen.len() >= 300)
        .await
        .unwrap();
    proxy.kill();
    let mut answered = BTreeSet::new();
    for client in load {
        answered.extend(client.await.unwrap());
    }
    drop(held);
    let asked = world.fakes.plan.request_count();
    assert!(answered.len() > 100, "{} answers", answered.len());

    let proxy = world.start().await;
    let rows = world.rows(asked).await;
    while proxy.metric("spillway_spool_records").await != Some(0.0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let metered: Vec<String> = rows
        .iter()
        .filter_map(|row| row.upstream_request_id.clone())
        .collect();
    assert_eq!(
        metered.len(),
        metered.iter().collect::<BTreeSet<_>>().len(),
        "none twice"
    );
    let metered: BTreeSet<String> = metered.into_iter().collect();
    let missing: Vec<_> = answered.difference(&metered).collect();
    assert!(
        missing.is_empty(),
        "{} of {} answered requests without a row",
        missing.len(),
        answered.len()
    );
    let interrupted: Vec<_> = rows
        .iter()
        .filter(|row| row.status == "interrupted")
        .collect();
    assert!(
        interrupted.len() >= CUT_OFF,
        "{} interrupted",
        interrupted.len()
    );
    assert!(
        interrupted
            .iter()
            .all(|row| row.estimated && row.cost_micro_usd > 0 && row.key_name == "laptop")
    );
    // A request whose record was open may have been killed before its upstream was asked, never the other way round.
    let after = world.rows(asked).await.len();
    assert!(
        (asked..=asked + CLIENTS).contains(&after),
        "{asked} asked, {after} rows"
    );
}

/// Asks again and again; returns the ids of the requests that were answered whole.
async fn ask_until_killed(url: String, key: String) -> BTreeSet<String> {
    let mut answered = BTreeSet::new();
    for stream in [true, false].into_iter().cycle() {
        let request = support::client()
            .post(format!("{url}/v1/messages"))
            .header("x-api-key", &key);
        let Ok(response) = request.json(&message("load", stream)).send().await else {
            break;
        };
        let id = response
            .headers()
            .get("request-id")
            .and_then(|id| id.to_str().ok())
            .map(str::to_owned);
        let Ok(text) = response.text().await else {
            break;
        };
        if text.contains("\"usage\"") && (!stream || text.contains("message_stop")) {
            answered.extend(id);
        }
    }
    answered
}

#[tokio::test]
async fn a_client_that_leaves_is_metered_as_aborted() {
    let world = World::create().await;
    let proxy = world.start().await;
    world
        .fakes
        .plan
        .next(Script::text("a long answer").hold(Point::Deltas(1), "middle"));
    let response = send(&proxy, world.key.expose(), &message("leaving", true)).await;
    assert!(world.fakes.gates.wait_held("middle", 1, within()).await);
    drop(response);
    let rows = world.rows(1).await;
    assert_eq!(
        (rows[0].status.as_str(), rows[0].estimated),
        ("client_aborted", true)
    );
    assert!(rows[0].input_tokens > 0);
}

#[tokio::test]
async fn a_full_spool_refuses_requests_and_readiness_until_there_is_room() {
    let mut world = World::create().await;
    let mut proxy = world.spawn(&[("PROXY_SPOOL_MAX_RECORDS", "3")]);
    proxy.ready().await;
    world.postgres.stop();
    for _ in 0..3 {
        assert_eq!(
            send(&proxy, world.key.expose(), &message("x", false))
                .await
                .status(),
            200
        );
    }
    let refused = send(&proxy, world.key.expose(), &message("x", false)).await;
    assert_eq!(refused.status(), 503);
    assert!(refused.headers().contains_key("retry-after"));
    let (status, reason) = proxy.admin("/readyz").await.unwrap();
    assert_eq!(status, 503);
    assert!(reason.contains("spool"), "{reason}");
    assert_eq!(proxy.metric("spillway_spool_blocked").await, Some(1.0));
    assert_eq!(world.fakes.plan.request_count(), 3);
    world.postgres.resume().await;
    world.rows(3).await;
    proxy.ready().await;
    assert_eq!(
        send(&proxy, world.key.expose(), &message("x", false))
            .await
            .status(),
        200
    );
}

#[tokio::test]
async fn a_second_process_on_the_same_spool_is_refused() {
    let world = World::create().await;
    let first = world.start().await;
    let mut second = world.spawn(&[]);
    assert_eq!(second.ended().await.code(), Some(1));
    assert!(second.log().contains("PROXY_SPOOL_DIR"), "{}", second.log());
    assert_eq!(
        try_send(&first, world.key.expose(), &message("x", false))
            .await
            .unwrap()
            .status(),
        200
    );
}

#[tokio::test]
async fn a_row_that_the_database_never_takes_is_kept_apart_and_stops_nobody() {
    let world = World::create().await;
    sqlx::raw_sql(
        "ALTER TABLE token_usages ADD CONSTRAINT picky CHECK (session_id IS DISTINCT FROM 'refused')",
    )
    .execute(&world.tenant.database)
    .await
    .unwrap();
    let proxy = world.start().await;
    for session in ["refused", "taken"] {
        let url = format!("{}/v1/messages", proxy.url());
        let request = support::client()
            .post(url)
            .header("x-api-key", world.key.expose())
            .header("x-claude-code-session-id", session);
        assert_eq!(
            request
                .json(&message("x", false))
                .send()
                .await
                .unwrap()
                .status(),
            200
        );
    }
    world.rows(1).await;
    while proxy.metric("spillway_usage_rejects_total").await != Some(1.0) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let rejected: (String, String) =
        sqlx::query_as("SELECT record->>'session_id', error FROM usage_rejects")
            .fetch_one(&world.tenant.database)
            .await
            .unwrap();
    assert_eq!(rejected.0, "refused");
    assert!(rejected.1.contains("picky"), "{}", rejected.1);
}

#[tokio::test]
async fn rows_wait_in_the_spool_while_the_database_is_there_but_cannot_take_them() {
    let world = World::create().await;
    let rename = async |from: &str, to: &str| {
        let statement = sqlx::AssertSqlSafe(format!("ALTER TABLE {from} RENAME TO {to}"));
        sqlx::raw_sql(statement)
            .execute(&world.tenant.database)
            .await
            .unwrap();
    };
    rename("token_usages", "moved").await;
    let proxy = world.start().await;
    let response = send(&proxy, world.key.expose(), &message("x", false)).await;
    assert_eq!(response.status(), 200);
    while proxy
        .metric("spillway_flush_failures_total")
        .await
        .is_none_or(|failures| failures < 2.0)
    {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(
        proxy.metric("spillway_usage_rejects_total").await,
        Some(0.0)
    );
    assert_eq!(proxy.metric("spillway_spool_records").await, Some(1.0));
    rename("moved", "token_usages").await;
    world.rows(1).await;
}
