//! The promises of shared circuits, on a real `PostgreSQL` (`DATABASE_URL` names a server where databases may be made).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use spillway_core::domain::pool::{CircuitBreakerConfig, PoolConfig};
use spillway_core::repository::Origin;
use spillway_core::repository::circuits::{
    self, CircuitName, Claim, FORGOTTEN_AFTER, OpenRow, Opening, PROBE_CLAIM,
};
use spillway_core::repository::plan_keys::{self, NewPlanKey};
use spillway_core::repository::pools::{self, NewPool};
use spillway_core::security::envelope::Sealed;
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use uuid::Uuid;

const CLUSTER: &str = "cluster-a";
const CREDENTIAL: Uuid = Uuid::from_u128(7);
const SECOND: Duration = Duration::from_secs(1);

fn origin(name: &str) -> Origin {
    Origin {
        cluster_id: CLUSTER.into(),
        namespace: "platform".into(),
        name: name.into(),
        uid: format!("uid-{name}"),
    }
}

async fn pool(db: &PgPool, plan_key_id: Option<Uuid>) -> Uuid {
    let config = PoolConfig {
        id: Uuid::nil(),
        namespace: String::new(),
        name: String::new(),
        plan_api_url: None,
        plan_key_id,
        fallback_enabled: None,
        bedrock_region: None,
        bedrock_default_model: None,
        bedrock_key_id: None,
        circuit_breaker: CircuitBreakerConfig::default(),
        models: Vec::new(),
    };
    let new = NewPool {
        origin: origin("default"),
        config,
    };
    let mut connection = db.acquire().await.unwrap();
    pools::upsert(&mut connection, &new).await.unwrap().id
}

fn name(model: Option<&str>) -> CircuitName {
    CircuitName {
        credential: CREDENTIAL,
        model: model.map(str::to_owned),
    }
}

fn opening(name: &CircuitName, id: u128, pause: Duration) -> Opening {
    Opening {
        name: name.clone(),
        id: Uuid::from_u128(id),
        reason: "overloaded".into(),
        age: Duration::ZERO,
        pause,
    }
}

async fn open(db: &PgPool, pool: Uuid, opening: &Opening) {
    assert!(circuits::open(db, pool, 0, opening).await.unwrap());
}

async fn rows(db: &PgPool, pool: Uuid) -> Vec<OpenRow> {
    circuits::load(db, pool).await.unwrap().open
}

/// Lets time pass for everything that is stored.
async fn pass(db: &PgPool, seconds: u64) {
    let by = i64::try_from(seconds).unwrap();
    sqlx::query(
        "UPDATE circuit_states SET opened_at = opened_at - $1 * interval '1 second',
           open_until = open_until - $1 * interval '1 second', probe_until = probe_until - $1 * interval '1 second'",
    )
    .bind(by)
    .execute(db)
    .await
    .unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn an_opening_is_loaded_as_durations(db: PgPool) {
    let pool = pool(&db, None).await;
    let opened = Opening {
        age: SECOND * 5,
        ..opening(&name(Some("a")), 1, SECOND * 60)
    };
    open(&db, pool, &opened).await;
    open(&db, pool, &opening(&name(None), 2, SECOND * 60)).await;
    let rows = rows(&db, pool).await;
    assert_eq!(rows[0].name, name(None), "whole credentials come first");
    let row = &rows[1];
    assert_eq!((row.name.clone(), row.opening), (opened.name, opened.id));
    assert!((5_000..7_000).contains(&row.age_ms), "{row:?}");
    assert!((58_000..=60_000).contains(&row.remaining_ms), "{row:?}");
    assert_eq!(row.probe, None);
    pass(&db, 70).await;
    let later = self::rows(&db, pool).await;
    assert!((-12_000..=-10_000).contains(&later[1].remaining_ms));
}

#[sqlx::test(migrations = "../migrations")]
async fn of_openings_at_once_the_longer_pause_counts_and_the_beginning_stays(db: PgPool) {
    let (pool, name) = (pool(&db, None).await, name(Some("a")));
    open(&db, pool, &opening(&name, 1, SECOND * 60)).await;
    pass(&db, 10).await;
    open(&db, pool, &opening(&name, 2, SECOND * 5)).await;
    let row = rows(&db, pool).await.remove(0);
    assert_eq!(row.opening, Uuid::from_u128(2));
    assert!(row.remaining_ms > 45_000 && row.age_ms >= 10_000, "{row:?}");
    // After its pause it opens again for as long as the probe says.
    pass(&db, 60).await;
    open(&db, pool, &opening(&name, 3, SECOND * 5)).await;
    let row = rows(&db, pool).await.remove(0);
    assert!((3_000..=5_000).contains(&row.remaining_ms), "{row:?}");
    assert!(row.age_ms >= 70_000, "{row:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn only_who_knows_the_last_opening_closes_it(db: PgPool) {
    let (pool, name) = (pool(&db, None).await, name(None));
    open(&db, pool, &opening(&name, 1, SECOND)).await;
    open(&db, pool, &opening(&name, 2, SECOND)).await;
    let close = async |opening| {
        circuits::close(&db, pool, &name, Uuid::from_u128(opening))
            .await
            .unwrap()
    };
    assert!(!close(1).await);
    assert!(close(2).await);
    assert!(!close(2).await);
    assert_eq!(rows(&db, pool).await, []);
}

#[sqlx::test(migrations = "../migrations")]
async fn one_of_many_gets_the_probe_until_it_is_given_back_or_ends(db: PgPool) {
    let (pool, name) = (pool(&db, None).await, name(Some("a")));
    let claim = async |by: u128| {
        circuits::claim(&db, pool, &name, Uuid::from_u128(by))
            .await
            .unwrap()
    };
    assert_eq!(claim(1).await, Claim::Closed);
    open(&db, pool, &opening(&name, 1, SECOND * 60)).await;
    assert!(
        matches!(claim(1).await, Claim::Refused(row) if row.remaining_ms > 0),
        "it is too early"
    );
    pass(&db, 60).await;
    let all = futures::future::join_all((1..=8).map(&claim)).await;
    let granted: Vec<_> = (1..=8_u128)
        .zip(&all)
        .filter(|(_, claim)| **claim == Claim::Granted)
        .map(|(by, _)| Uuid::from_u128(by))
        .collect();
    assert_eq!(granted.len(), 1, "{all:?}");
    let (by, left) = rows(&db, pool).await[0].probe.unwrap();
    assert_eq!(by, granted[0]);
    let most = i64::try_from(PROBE_CLAIM.as_millis()).unwrap();
    assert!((most - 5_000..=most).contains(&left), "{left}");
    assert!(matches!(claim(9).await, Claim::Refused(row) if row.probe.is_some()));

    circuits::free(&db, pool, &name, Uuid::from_u128(9))
        .await
        .unwrap();
    assert!(
        matches!(claim(9).await, Claim::Refused(_)),
        "another's claim is not given back"
    );
    circuits::free(&db, pool, &name, by).await.unwrap();
    assert_eq!(claim(9).await, Claim::Granted);
    pass(&db, PROBE_CLAIM.as_secs()).await;
    assert_eq!(claim(10).await, Claim::Granted, "a lost claim ends");
    open(&db, pool, &opening(&name, 2, SECOND * 60)).await;
    assert_eq!(
        rows(&db, pool).await[0].probe,
        None,
        "opening again ends it too"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_reset_closes_everything_and_refuses_what_was_found_before(db: PgPool) {
    let pool = pool(&db, None).await;
    let mut connection = db.acquire().await.unwrap();
    for model in [None, Some("a"), Some("b")] {
        open(&db, pool, &opening(&name(model), 1, SECOND * 60)).await;
    }
    assert_eq!(
        circuits::handled_reset(&mut connection, pool)
            .await
            .unwrap(),
        None
    );
    let reset = circuits::reset(&mut connection, pool, "now").await;
    assert_eq!(reset.unwrap(), 3);
    assert_eq!(
        circuits::handled_reset(&mut connection, pool)
            .await
            .unwrap()
            .as_deref(),
        Some("now")
    );
    let loaded = circuits::load(&db, pool).await.unwrap();
    assert_eq!((loaded.resets, loaded.open), (1, vec![]));
    let late = opening(&name(None), 2, SECOND * 60);
    assert!(!circuits::open(&db, pool, 0, &late).await.unwrap());
    assert!(circuits::open(&db, pool, 1, &late).await.unwrap());
    let gone = circuits::open(&db, Uuid::from_u128(99), 0, &late).await;
    assert!(!gone.unwrap(), "a pool that is gone has no circuits");
}

#[sqlx::test(migrations = "../migrations")]
async fn nothing_lives_for_ever(db: PgPool) {
    let pool = pool(&db, None).await;
    open(&db, pool, &opening(&name(None), 1, SECOND * 1800)).await;
    circuits::shorten(&db, pool, SECOND * 60).await.unwrap();
    let row = rows(&db, pool).await.remove(0);
    assert!((58_000..=60_000).contains(&row.remaining_ms), "{row:?}");
    pass(&db, 62 + FORGOTTEN_AFTER.as_secs()).await;
    assert_eq!(rows(&db, pool).await, []);
    assert_eq!(circuits::list(&db, CLUSTER).await.unwrap(), []);
    // Should it open again, it is another time.
    open(&db, pool, &opening(&name(None), 2, SECOND)).await;
    assert!(rows(&db, pool).await[0].age_ms < 60_000);
    pass(&db, 2 + FORGOTTEN_AFTER.as_secs()).await;
    circuits::forget(&db, pool).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM circuit_states")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

fn plan_key(fingerprint: u8) -> NewPlanKey {
    NewPlanKey {
        id: CREDENTIAL,
        secret: origin("plan"),
        secret_key: "key".into(),
        secret_version: fingerprint.to_string(),
        fingerprint: vec![fingerprint],
        sealed: Sealed(vec![fingerprint]),
        encrypted_with: "local:0".into(),
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn another_key_in_the_secret_is_another_credential(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    plan_keys::upsert(&mut connection, &plan_key(1))
        .await
        .unwrap();
    let pool = pool(&db, Some(CREDENTIAL)).await;
    let refused = Opening {
        reason: "account".into(),
        ..opening(&name(None), 1, SECOND * 60)
    };
    open(&db, pool, &refused).await;
    plan_keys::upsert(&mut connection, &plan_key(1))
        .await
        .unwrap();
    assert_eq!(rows(&db, pool).await.len(), 1, "it is the same key");
    plan_keys::upsert(&mut connection, &plan_key(2))
        .await
        .unwrap();
    assert_eq!(rows(&db, pool).await, []);
    let stored = circuits::open(&db, pool, 0, &refused).await.unwrap();
    assert!(!stored, "a proxy has not heard of the new key yet");
    sqlx::query("UPDATE plan_keys SET updated_at = now() - interval '10 seconds', created_at = now() - interval '20 seconds'")
        .execute(&db)
        .await
        .unwrap();
    open(&db, pool, &refused).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn the_list_names_credentials_and_leaves_out_those_that_are_gone(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    plan_keys::upsert(&mut connection, &plan_key(1))
        .await
        .unwrap();
    let pool = pool(&db, Some(CREDENTIAL)).await;
    let of = |credential, model: Option<&str>| CircuitName {
        credential,
        model: model.map(str::to_owned),
    };
    open(&db, pool, &opening(&of(CREDENTIAL, Some("a")), 1, SECOND)).await;
    pass(&db, 2).await;
    open(&db, pool, &opening(&of(pool, None), 2, SECOND * 60)).await;
    let stranger = of(Uuid::from_u128(8), None);
    open(&db, pool, &opening(&stranger, 3, SECOND * 60)).await;
    let listed = circuits::list(&db, CLUSTER).await.unwrap();
    let short: Vec<_> = listed
        .iter()
        .map(|it| {
            let secret = it.secret.as_ref().map(|(_, name, _)| name.as_str());
            (secret, it.model.as_deref(), it.is_open)
        })
        .collect();
    assert_eq!(
        short,
        [(None, None, true), (Some("plan"), Some("a"), false)]
    );
    assert_eq!(
        (listed[0].pool.as_str(), listed[0].uid.as_str()),
        ("default", "uid-default")
    );
    assert_eq!(circuits::list(&db, "cluster-b").await.unwrap(), []);

    pools::delete(&mut connection, CLUSTER, "uid-default")
        .await
        .unwrap();
    assert_eq!(rows(&db, pool).await, []);
    assert_eq!(plan_keys::prune(&mut connection, CLUSTER).await.unwrap(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_circuits_of_a_deleted_plan_key_go_with_it(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    plan_keys::upsert(&mut connection, &plan_key(1))
        .await
        .unwrap();
    let pool = pool(&db, None).await;
    open(&db, pool, &opening(&name(None), 1, SECOND * 60)).await;
    assert_eq!(plan_keys::prune(&mut connection, CLUSTER).await.unwrap(), 1);
    assert_eq!(rows(&db, pool).await, []);
}

#[sqlx::test(migrations = "../migrations")]
async fn changes_are_told_with_the_pool_and_are_no_change_of_configuration(db: PgPool) {
    let pool = pool(&db, None).await;
    let mut connection = db.acquire().await.unwrap();
    let mut listener = PgListener::connect_with(&db).await.unwrap();
    listener
        .listen_all(["spillway_changes", "spillway_circuits"])
        .await
        .unwrap();
    open(&db, pool, &opening(&name(None), 1, Duration::ZERO)).await;
    circuits::claim(&db, pool, &name(None), Uuid::from_u128(1))
        .await
        .unwrap();
    circuits::close(&db, pool, &name(None), Uuid::from_u128(1))
        .await
        .unwrap();
    circuits::reset(&mut connection, pool, "now").await.unwrap();
    for _ in 0..4 {
        let heard = listener.recv().await.unwrap();
        assert_eq!(
            (heard.channel(), heard.payload()),
            ("spillway_circuits", pool.to_string().as_str())
        );
    }
    // What changes nothing is not told: the next that is heard is this.
    circuits::shorten(&db, pool, SECOND).await.unwrap();
    circuits::forget(&db, pool).await.unwrap();
    sqlx::query("SELECT pg_notify('spillway_circuits', 'last')")
        .execute(&db)
        .await
        .unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "last");
}
