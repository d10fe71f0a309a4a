//! The promises of the SQL, on a real `PostgreSQL` (`DATABASE_URL` names a server where databases may be made).

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod configuration;
mod credentials;
mod fencing;
mod rows;

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
