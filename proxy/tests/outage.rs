//! Postgres away: valid keys are served, others told to wait, and every request has its row afterwards, once.

mod support;

use std::time::Duration;

use chrono::Utc;
use spillway_core::security::key::AccessKeyToken;
use support::{World, message, send, until_status};

#[tokio::test]
async fn keys_that_are_known_are_served_and_their_rows_arrive_once() {
    let mut world = World::create().await;
    let proxy = world.start().await;
    assert_eq!(
        send(&proxy, world.key.expose(), &message("before", false))
            .await
            .status(),
        200
    );
    world.rows(1).await;
    world.postgres.stop();
    for at in 0..20 {
        let response = send(&proxy, world.key.expose(), &message("during", at % 2 == 0)).await;
        assert_eq!(response.status(), 200);
        response.text().await.unwrap();
    }
    let (_, unknown) =
        until_status(&proxy, AccessKeyToken::generate().unwrap().expose(), 503).await;
    assert_eq!(unknown["error"]["type"], "overloaded_error");
    let response = send(
        &proxy,
        AccessKeyToken::generate().unwrap().expose(),
        &message("x", false),
    )
    .await;
    assert!(response.headers().contains_key("retry-after"));
    let known = until_status(&proxy, world.key.expose(), 200).await;
    assert!(
        known.0 < Duration::from_secs(1),
        "a known key waited {:?}",
        known.0
    );
    assert_eq!(
        proxy.admin("/readyz").await.unwrap().0,
        200,
        "an outage of the database takes no pod away"
    );
    assert!(proxy.metric("spillway_spool_records").await.unwrap() >= 21.0);

    world.postgres.resume().await;
    let rows = world.rows(22).await;
    assert_eq!(rows.len(), world.fakes.plan.request_count());
    let mut ids: Vec<_> = rows
        .iter()
        .map(|row| row.upstream_request_id.clone().unwrap())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), rows.len(), "each request once");
    // A key that is deleted afterwards is refused as ever.
    world.tenant.delete_key("laptop").await;
    until_status(&proxy, world.key.expose(), 401).await;
}

#[tokio::test]
async fn a_start_without_the_database_serves_the_keys_of_the_mirror() {
    let mut world = World::create().await;
    let mut first = world.start().await;
    assert_eq!(
        send(&first, world.key.expose(), &message("before", false))
            .await
            .status(),
        200
    );
    first.terminate();
    assert!(first.ended().await.success());
    world.postgres.stop();

    let second = world.start().await;
    assert_eq!(
        send(
            &second,
            world.key.expose(),
            &message("from the mirror", true)
        )
        .await
        .status(),
        200
    );
    until_status(&second, AccessKeyToken::generate().unwrap().expose(), 503).await;
    let mirror = world.dir.path().join("spool/directory.json");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&mirror).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    world.postgres.resume().await;
    world.rows(2).await;
    world.tenant.delete_key("laptop").await;
    until_status(&second, world.key.expose(), 401).await;
}

#[tokio::test]
async fn a_start_without_database_and_mirror_refuses_until_it_has_keys() {
    let mut world = World::create().await;
    world.postgres.stop();
    let mut proxy = world.spawn(&[]);
    until_listening(&proxy).await;
    assert_eq!(proxy.admin("/readyz").await.unwrap().0, 503);
    assert_eq!(proxy.admin("/healthz").await.unwrap().0, 200);
    assert_eq!(
        send(&proxy, world.key.expose(), &message("x", false))
            .await
            .status(),
        503
    );
    world.postgres.resume().await;
    proxy.ready().await;
    until_status(&proxy, world.key.expose(), 200).await;
}

async fn until_listening(proxy: &support::Proxy) {
    while proxy.admin("/healthz").await.is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn while_changes_cannot_be_heard_keys_are_checked_in_the_database() {
    let world = World::create().await;
    // Nobody listens on this port: the database answers, but says nothing of changes.
    let deaf = format!(
        "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
        support::free_port()
    );
    let mut proxy = world.spawn(&[("PROXY_DATABASE_LISTEN_URL", &deaf)]);
    proxy.ready().await;
    until_status(&proxy, world.key.expose(), 200).await;
    while proxy.metric("spillway_directory_current").await != Some(0.0) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let newer = world.tenant.mint("newer").await;
    until_status(&proxy, newer.expose(), 200).await;
    world
        .tenant
        .write_key("newer", &newer, |row| row.expires_at = Some(Utc::now()))
        .await;
    let (took, _) = until_status(&proxy, newer.expose(), 403).await;
    assert!(took < Duration::from_millis(1_500), "{took:?}");
    world.tenant.delete_key("laptop").await;
    until_status(&proxy, world.key.expose(), 401).await;
}

#[tokio::test]
async fn another_secret_than_the_rows_were_made_with_stops_the_start() {
    let world = World::create().await;
    for (variable, value) in [
        (
            "PROXY_KEY_HASHER_SECRET",
            "another-hasher-secret-of-this-length",
        ),
        (
            "PROXY_LOCAL_ENCRYPTION_KEY",
            "another-key-of-32-bytes-00000000",
        ),
    ] {
        let mut proxy = world.spawn(&[(variable, value)]);
        assert_eq!(proxy.ended().await.code(), Some(2));
        assert!(proxy.log().contains(variable), "{}", proxy.log());
        assert!(!proxy.log().contains(value));
    }
}

#[tokio::test]
async fn a_start_after_its_pool_was_deleted_serves_nobody_of_the_mirror() {
    let mut world = World::create().await;
    let mut first = world.start().await;
    let response = send(&first, world.key.expose(), &message("before", false)).await;
    assert_eq!(response.status(), 200);
    world.rows(1).await;
    first.terminate();
    assert!(first.ended().await.success());
    sqlx::query("DELETE FROM pools")
        .execute(&world.tenant.database)
        .await
        .unwrap();

    let mut second = world.spawn(&[]);
    let refused = until_answered(&second, world.key.expose()).await;
    let refused: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(refused["error"]["type"], "overloaded_error", "{refused}");
    assert_eq!(second.admin("/readyz").await.unwrap().0, 503);
    // Nor when the database is away at the next start.
    second.terminate();
    assert!(second.ended().await.success());
    world.postgres.stop();
    let third = world.spawn(&[]);
    let refused = until_answered(&third, world.key.expose()).await;
    assert_eq!(refused.status(), 503);
}

/// The first answer of a proxy that starts.
async fn until_answered(proxy: &support::Proxy, key: &str) -> reqwest::Response {
    let until = std::time::Instant::now() + support::within();
    loop {
        if let Ok(response) = support::try_send(proxy, key, &message("again", false)).await {
            return response;
        }
        assert!(std::time::Instant::now() < until, "it does not listen");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
