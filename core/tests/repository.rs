//! The promises of the SQL, on a real `PostgreSQL` (`DATABASE_URL` names a server where databases may be made).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use spillway_core::domain::models::{BedrockApi, ModelMapping, ModelPattern};
use spillway_core::domain::money::MicroUsd;
use spillway_core::domain::pool::{CircuitBreakerConfig, KeyCheck, PoolConfig, SecretKind};
use spillway_core::domain::pricing::{Price, PriceSource};
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{AbandonedUsage, Provider, UsageRecord, UsageStatus};
use spillway_core::repository::access_keys::{self, AccessKeyRow, Version};
use spillway_core::repository::bedrock_keys::{self, NewBedrockKey};
use spillway_core::repository::leadership::{self, Fence};
use spillway_core::repository::plan_keys::{self, NewPlanKey};
use spillway_core::repository::pools::{self, NewPool};
use spillway_core::repository::users::{self, UserRow};
use spillway_core::repository::{
    Origin, RepositoryError, key_checks, snapshot, usage, usage_totals,
};
use spillway_core::security::envelope::Sealed;
use spillway_core::security::hasher::KeyHash;
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

const CLUSTER: &str = "cluster-a";

fn origin(name: &str, uid: &str) -> Origin {
    Origin {
        cluster_id: CLUSTER.into(),
        namespace: "team-a".into(),
        name: name.into(),
        uid: uid.into(),
    }
}

fn pool_config() -> PoolConfig {
    PoolConfig {
        id: Uuid::nil(),
        namespace: String::new(),
        name: String::new(),
        plan_api_url: Some("https://api.anthropic.com".into()),
        plan_key_id: None,
        fallback_enabled: None,
        bedrock_region: Some("eu-central-1".into()),
        bedrock_default_model: None,
        bedrock_key_id: None,
        circuit_breaker: CircuitBreakerConfig {
            failure_threshold: Some(3),
            ..CircuitBreakerConfig::default()
        },
        models: vec![ModelMapping {
            name: ModelPattern::new("claude-*").unwrap(),
            bedrock_model_id: Some("eu.anthropic.claude".into()),
            bedrock_api: BedrockApi::InvokeModel,
            price: Some(Price::of(MicroUsd(3_000_000), MicroUsd(15_000_000))),
        }],
    }
}

fn user(pool_id: Option<Uuid>) -> UserRow {
    UserRow {
        email: Some("alice@example.com".into()),
        display_name: None,
        pool_id,
        suspended: false,
        allowed_models: vec!["claude-*".into()],
        plan_key_id: None,
        bedrock_key_id: None,
    }
}

fn version(byte: u8) -> Version {
    Version {
        key_id: format!("key{byte}"),
        key_hash: KeyHash([byte; 32]),
        hasher_id: "0".into(),
        expires_at: None,
        created_at: Utc::now(),
    }
}

fn key(user_id: Uuid) -> AccessKeyRow {
    AccessKeyRow {
        user_id,
        disabled: false,
        expires_at: None,
        allowed_models: vec![],
        bedrock_key_id: None,
    }
}

/// A pool with one user and one key of hash `[1; 32]`: their ids.
async fn tenant(db: &mut PgConnection) -> (Uuid, Uuid, Uuid) {
    let new = NewPool {
        origin: origin("default", "pool-uid"),
        config: pool_config(),
    };
    let pool_id = pools::upsert(db, &new).await.unwrap().id;
    let user_id = users::upsert(db, &origin("alice", "user-uid"), &user(Some(pool_id)))
        .await
        .unwrap()
        .id;
    let key_id = access_keys::upsert(
        db,
        &origin("laptop", "key-uid"),
        &key(user_id),
        &[version(1)],
    )
    .await
    .unwrap()
    .id;
    (pool_id, user_id, key_id)
}

fn record(access_key_id: Uuid, user_id: Uuid, created_at: DateTime<Utc>) -> UsageRecord {
    UsageRecord {
        request_id: Uuid::now_v7(),
        created_at,
        access_key_id,
        user_id,
        key_id: "key1".into(),
        namespace: "team-a".into(),
        key_name: "laptop".into(),
        user_name: "alice".into(),
        pool: "team-a/default".into(),
        model: "claude-sonnet-4-5".into(),
        upstream_model: None,
        upstream_request_id: Some("req_1".into()),
        provider: Some(Provider::Plan),
        is_fallback: false,
        fallback_reason: None,
        status: UsageStatus::Ok,
        http_status: 200,
        stream: true,
        tokens: TokenUsage {
            input: 10,
            output: 20,
            cache_read: 3,
            cache_creation_5m: 4,
            cache_creation_1h: 5,
        },
        cost: MicroUsd(330),
        abandoned: None,
        price_source: PriceSource::Table,
        estimated: false,
        latency_ms: 1200,
        ttft_ms: Some(300),
        session_id: None,
        agent_id: None,
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_snapshot_holds_all_that_a_pool_serves_by(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.pool.models, pool_config().models);
    assert_eq!(loaded.pool.circuit_breaker.failure_threshold, Some(3));
    assert_eq!(
        (loaded.users[0].id, loaded.users[0].name.as_str()),
        (user_id, "alice")
    );
    assert_eq!(loaded.access_keys[0].id, key_id);
    assert_eq!(loaded.versions[0].key_hash, KeyHash([1; 32]));
    assert!(
        snapshot::load(&db, "cluster-b", "team-a", "default")
            .await
            .unwrap()
            .is_none()
    );
    let json = serde_json::to_string(&loaded).unwrap();
    let read: spillway_core::domain::pool::PoolSnapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(read.versions, loaded.versions);
}

#[sqlx::test(migrations = "../migrations")]
async fn storing_the_same_again_writes_nothing_and_tells_nobody(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, user_id, _) = tenant(&mut connection).await;
    let mut listener = PgListener::connect_with(&db).await.unwrap();
    listener.listen("spillway_changes").await.unwrap();
    let new = NewPool {
        origin: origin("default", "pool-uid"),
        config: pool_config(),
    };
    assert!(!pools::upsert(&mut connection, &new).await.unwrap().changed);
    let same = users::upsert(
        &mut connection,
        &origin("alice", "user-uid"),
        &user(Some(pool_id)),
    )
    .await
    .unwrap();
    assert!(!same.changed);
    let same = access_keys::upsert(
        &mut connection,
        &origin("laptop", "key-uid"),
        &key(user_id),
        &[version(1)],
    )
    .await
    .unwrap();
    assert!(!same.changed);
    // A change is heard, and it is the first thing that is heard.
    let suspended = UserRow {
        suspended: true,
        ..user(Some(pool_id))
    };
    sqlx::query("SELECT pg_notify('spillway_changes', 'before')")
        .execute(&mut *connection)
        .await
        .unwrap();
    users::upsert(&mut connection, &origin("alice", "user-uid"), &suspended)
        .await
        .unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "before");
    assert_eq!(listener.recv().await.unwrap().payload(), "all");
}

#[sqlx::test(migrations = "../migrations")]
async fn versions_become_exactly_those_wanted(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    let ends = Utc::now() + TimeDelta::hours(24);
    let old = Version {
        expires_at: Some(ends),
        ..version(1)
    };
    let laptop = origin("laptop", "key-uid");
    access_keys::upsert(&mut connection, &laptop, &key(user_id), &[version(2), old])
        .await
        .unwrap();
    let stored = access_keys::versions(&mut connection, key_id)
        .await
        .unwrap();
    assert_eq!(
        stored.iter().map(|v| v.key_hash.0[0]).collect::<Vec<_>>(),
        [2, 1]
    );
    assert!(stored[1].expires_at.is_some() && stored[0].expires_at.is_none());
    access_keys::upsert(&mut connection, &laptop, &key(user_id), &[version(2)])
        .await
        .unwrap();
    let stored = access_keys::versions(&mut connection, key_id)
        .await
        .unwrap();
    assert_eq!(stored.len(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_belongs_to_one_living_access_key_of_a_pool(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, _) = tenant(&mut connection).await;
    let other = origin("desktop", "other-uid");
    let error = access_keys::upsert(&mut connection, &other, &key(user_id), &[version(1)])
        .await
        .unwrap_err();
    assert!(matches!(error, RepositoryError::DuplicateKey), "{error}");
    access_keys::soft_delete(&mut connection, CLUSTER, "key-uid")
        .await
        .unwrap();
    access_keys::upsert(&mut connection, &other, &key(user_id), &[version(1)])
        .await
        .unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deleted_user_takes_its_keys_along_and_leaves_its_history(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    usage::insert(&db, &[record(key_id, user_id, Utc::now())])
        .await
        .unwrap();
    assert!(
        !users::soft_delete(&mut connection, "cluster-b", "user-uid")
            .await
            .unwrap()
    );
    assert!(
        users::soft_delete(&mut connection, CLUSTER, "user-uid")
            .await
            .unwrap()
    );
    assert!(
        !users::soft_delete(&mut connection, CLUSTER, "user-uid")
            .await
            .unwrap()
    );
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert!(loaded.users.is_empty() && loaded.access_keys.is_empty() && loaded.versions.is_empty());
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM token_usages WHERE key_name = 'laptop'")
            .fetch_one(&db)
            .await
            .unwrap();
    assert_eq!(kept, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_resource_made_anew_under_an_old_name_is_another_one(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, user_id, key_id) = tenant(&mut connection).await;
    let anew = users::upsert(
        &mut connection,
        &origin("alice", "new-uid"),
        &user(Some(pool_id)),
    )
    .await
    .unwrap();
    assert_ne!(anew.id, user_id);
    let (kept, _, row) = access_keys::find(&mut connection, CLUSTER, "team-a", "laptop")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (kept, row.user_id),
        (key_id, anew.id),
        "keys follow the name that they refer to"
    );
    let again = access_keys::upsert(
        &mut connection,
        &origin("laptop", "new-key-uid"),
        &key(anew.id),
        &[version(1)],
    )
    .await
    .unwrap();
    assert_ne!(again.id, key_id);
}

#[sqlx::test(migrations = "../migrations")]
async fn refusals_are_stored_on_their_own(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, user_id, key_id) = tenant(&mut connection).await;
    let ends = DateTime::from_timestamp(1_900_000_000, 0);
    access_keys::restrict(&mut connection, key_id, true, ends)
        .await
        .unwrap();
    users::suspend(&mut connection, user_id, true)
        .await
        .unwrap();
    let found = access_keys::find(&mut connection, CLUSTER, "team-a", "laptop").await;
    let wanted = AccessKeyRow {
        disabled: true,
        expires_at: ends,
        ..key(user_id)
    };
    assert_eq!(found.unwrap().unwrap().2, wanted);
    let found = users::find(&mut connection, CLUSTER, "team-a", "alice").await;
    let wanted = UserRow {
        suspended: true,
        ..user(Some(pool_id))
    };
    assert_eq!(found.unwrap().unwrap().2, wanted);
}

#[sqlx::test(migrations = "../migrations")]
async fn whoever_had_a_key_is_remembered(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, _) = tenant(&mut connection).await;
    let hash = version(1).key_hash;
    let living = |holders: Vec<access_keys::Holder>| {
        let mut living: Vec<_> = holders
            .into_iter()
            .map(|holder| (holder.uid, holder.is_living))
            .collect();
        living.sort();
        living
    };
    let before = access_keys::holders(&mut connection, CLUSTER, &hash)
        .await
        .unwrap();
    assert_eq!(living(before), [("key-uid".to_owned(), true)]);
    access_keys::upsert(
        &mut connection,
        &origin("laptop", "new-uid"),
        &key(user_id),
        &[version(1)],
    )
    .await
    .unwrap();
    let after = access_keys::holders(&mut connection, CLUSTER, &hash)
        .await
        .unwrap();
    assert_eq!(
        living(after),
        [("key-uid".to_owned(), false), ("new-uid".to_owned(), true)]
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn usage_is_stored_once_and_added_up_once(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    let now = Utc::now();
    usage::ensure_partitions(&db, now, 2).await.unwrap();
    usage::ensure_partitions(&db, now, 2).await.unwrap();
    let records: Vec<_> = (0..5).map(|_| record(key_id, user_id, now)).collect();
    assert_eq!(usage::insert(&db, &records[..3]).await.unwrap(), 3);
    assert_eq!(usage::insert(&db, &records).await.unwrap(), 2);
    let since = now - TimeDelta::hours(1);
    for totals in [
        usage_totals::by_access_key(&db, CLUSTER, since)
            .await
            .unwrap(),
        usage_totals::by_user(&db, CLUSTER, since).await.unwrap(),
    ] {
        assert_eq!(totals.len(), 1);
        assert_eq!(
            (
                totals[0].requests,
                totals[0].input_tokens,
                totals[0].output_tokens,
                totals[0].cost
            ),
            (5, 5 * 22, 100, MicroUsd(5 * 330))
        );
    }
    assert!(
        usage_totals::by_user(&db, "cluster-b", since)
            .await
            .unwrap()
            .is_empty()
    );
    let in_default: i64 = sqlx::query_scalar("SELECT count(*) FROM token_usages_default")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(in_default, 0, "the month's own partition takes the rows");
    let mut fallen_over = record(key_id, user_id, now);
    fallen_over.provider = Some(Provider::Bedrock);
    fallen_over.abandoned = Some(AbandonedUsage {
        provider: Provider::Plan,
        input_tokens: 7,
        output_tokens: 1,
        cost: MicroUsd(70),
    });
    usage::insert(&db, &[fallen_over]).await.unwrap();
    let by_provider: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT provider, requests, cost_micro_usd FROM usage_aggregates ORDER BY provider",
    )
    .fetch_all(&db)
    .await
    .unwrap();
    assert_eq!(
        by_provider,
        [
            ("bedrock".to_owned(), 1, 330),
            ("plan".to_owned(), 5, 5 * 330 + 70)
        ],
        "an abandoned attempt is paid to whom it was made at"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn usage_of_a_key_that_is_gone_is_kept_without_it(db: PgPool) {
    let gone = record(Uuid::new_v4(), Uuid::new_v4(), Utc::now());
    assert_eq!(
        usage::insert(&db, std::slice::from_ref(&gone))
            .await
            .unwrap(),
        1
    );
    let (key, name): (Option<Uuid>, String) =
        sqlx::query_as("SELECT access_key_id, key_name FROM token_usages")
            .fetch_one(&db)
            .await
            .unwrap();
    assert_eq!((key, name.as_str()), (None, "laptop"));
    usage::reject(&db, &gone, "why").await.unwrap();
    usage::reject(&db, &gone, "why").await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_row_is_refused_for_what_is_in_it_and_for_nothing_else(db: PgPool) {
    let records = [record(Uuid::new_v4(), Uuid::new_v4(), Utc::now())];
    for (broken, mended, refused) in [
        (
            "ALTER TABLE token_usages ADD CONSTRAINT picky CHECK (input_tokens < 0)",
            "ALTER TABLE token_usages DROP CONSTRAINT picky",
            true,
        ),
        (
            "ALTER TABLE token_usages RENAME TO moved",
            "ALTER TABLE moved RENAME TO token_usages",
            false,
        ),
        (
            "ALTER TABLE token_usages RENAME model TO moved",
            "ALTER TABLE token_usages RENAME moved TO model",
            false,
        ),
    ] {
        sqlx::raw_sql(broken).execute(&db).await.unwrap();
        let error = usage::insert(&db, &records).await.unwrap_err();
        assert_eq!(error.is_row_refused(), refused, "{error}");
        assert!(!error.is_unavailable(), "{error}");
        sqlx::raw_sql(mended).execute(&db).await.unwrap();
    }
    assert_eq!(usage::insert(&db, &records).await.unwrap(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_server_that_does_not_answer_in_time_is_hung_up_on(db: PgPool) {
    let records = [record(Uuid::new_v4(), Uuid::new_v4(), Utc::now())];
    let mut lock = db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE token_usages")
        .execute(&mut *lock)
        .await
        .unwrap();
    let before = db.size();
    let patience = Duration::from_millis(100);
    let error = usage::insert_within(patience, &db, &records)
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(db.size() <= before, "its connection is gone");
    lock.rollback().await.unwrap();
    usage::insert(&db, &records).await.unwrap();
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM token_usages")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(stored, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deposed_leader_cannot_write(db: PgPool) {
    let first = leadership::acquire(&db, CLUSTER, "one").await.unwrap();
    let elsewhere = leadership::acquire(&db, "cluster-b", "one").await.unwrap();
    let second = leadership::acquire(&db, CLUSTER, "two").await.unwrap();
    let error = leadership::fenced(&db, &first).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Deposed { ours: 1, found: 2 }),
        "{error}"
    );
    for fence in [&second, &elsewhere] {
        let transaction = leadership::fenced(&db, fence).await.unwrap();
        leadership::commit(transaction).await.unwrap();
    }
    let unknown = Fence {
        cluster_id: "never-led".into(),
        epoch: 1,
    };
    assert!(leadership::fenced(&db, &unknown).await.is_err());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_takeover_waits_for_the_writes_under_way(db: PgPool) {
    let first = leadership::acquire(&db, CLUSTER, "one").await.unwrap();
    let mut writing = leadership::fenced(&db, &first).await.unwrap();
    let takeover = tokio::spawn({
        let db = db.clone();
        async move { leadership::acquire(&db, CLUSTER, "two").await }
    });
    // The takeover is waiting for our lock once the server says so.
    loop {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .fetch_one(&db)
            .await
            .unwrap();
        if waiting > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    tenant(&mut writing).await;
    leadership::commit(writing).await.unwrap();
    assert_eq!(takeover.await.unwrap().unwrap().epoch, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_first_check_value_of_a_secret_stays(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let check = |byte| KeyCheck {
        kind: SecretKind::Hasher,
        secret_id: "0".into(),
        value: [byte; 32],
    };
    assert_eq!(
        key_checks::remember(&mut connection, CLUSTER, &check(1))
            .await
            .unwrap(),
        [1; 32]
    );
    assert_eq!(
        key_checks::remember(&mut connection, CLUSTER, &check(2))
            .await
            .unwrap(),
        [1; 32]
    );
    assert_eq!(key_checks::list(&db, CLUSTER).await.unwrap(), [check(1)]);
}

#[sqlx::test(migrations = "../migrations")]
async fn credentials_follow_their_secret_and_unused_plan_keys_go(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, ..) = tenant(&mut connection).await;
    let plan = NewPlanKey {
        id: Uuid::new_v4(),
        secret: origin("plan-key", "secret-uid"),
        secret_key: "ANTHROPIC_API_KEY".into(),
        secret_version: "1".into(),
        fingerprint: vec![1],
        sealed: Sealed(vec![1, 2, 3]),
        encrypted_with: "local:0".into(),
    };
    plan_keys::upsert(&mut connection, &plan).await.unwrap();
    let user = UserRow {
        plan_key_id: Some(plan.id),
        ..user(Some(pool_id))
    };
    users::upsert(&mut connection, &origin("alice", "user-uid"), &user)
        .await
        .unwrap();
    assert_eq!(plan_keys::prune(&mut connection, CLUSTER).await.unwrap(), 0);
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.plan_keys[0].sealed, plan.sealed);
    users::soft_delete(&mut connection, CLUSTER, "user-uid")
        .await
        .unwrap();
    assert_eq!(plan_keys::prune(&mut connection, CLUSTER).await.unwrap(), 1);
    assert!(
        plan_keys::find(
            &mut connection,
            CLUSTER,
            "team-a",
            "plan-key",
            "ANTHROPIC_API_KEY"
        )
        .await
        .unwrap()
        .is_none()
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deleted_bedrock_credential_serves_nobody_any_more(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_row) = tenant(&mut connection).await;
    let new = |id, uid: &str| NewBedrockKey {
        id,
        origin: origin("bedrock", uid),
        region: "eu-central-1".into(),
        endpoint_url: None,
        auth_kind: "api_key",
        secret_version: Some("7".into()),
        fingerprint: vec![1],
        sealed: Sealed(vec![9]),
        encrypted_with: "local:0".into(),
    };
    let shared = new(Uuid::new_v4(), "bc-uid");
    bedrock_keys::upsert(&mut connection, &shared)
        .await
        .unwrap();
    let with = AccessKeyRow {
        bedrock_key_id: Some(shared.id),
        ..key(user_id)
    };
    access_keys::upsert(
        &mut connection,
        &origin("laptop", "key-uid"),
        &with,
        &[version(1)],
    )
    .await
    .unwrap();
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.bedrock_keys[0].id, shared.id);
    // Made anew under the same name: the old row ends.
    let anew = new(Uuid::new_v4(), "bc-uid-2");
    bedrock_keys::upsert(&mut connection, &anew).await.unwrap();
    let found = bedrock_keys::find(&mut connection, CLUSTER, "team-a", "bedrock")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, anew.id);
    // One that belongs to a key alone goes before the one it names.
    sqlx::query("UPDATE bedrock_keys SET access_key_id = $1 WHERE id = $2")
        .bind(key_row)
        .bind(anew.id)
        .execute(&db)
        .await
        .unwrap();
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.access_keys[0].bedrock_key_id, Some(anew.id));
    bedrock_keys::soft_delete(&mut connection, CLUSTER, "bc-uid-2")
        .await
        .unwrap();
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert!(loaded.bedrock_keys.is_empty());
}
