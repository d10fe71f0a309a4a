//! Usage reaches the status of keys and users, and nothing is written when nothing changed.

use std::time::Duration;

use crate::support::{OperatorProcess, World, eventually};
use chrono::Utc;
use kube::api::PostParams;
use serde_json::json;
use spillway_core::domain::money::MicroUsd;
use spillway_core::domain::pricing::PriceSource;
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{Provider, UsageRecord, UsageStatus};
use spillway_core::repository::{PgPool, access_keys, usage};
use spillway_crds::{AccessKey, ProxyPool, ProxyUser};
use uuid::Uuid;

async fn create<K>(world: &World, manifest: serde_json::Value)
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let object: K = serde_json::from_value(manifest).unwrap();
    world
        .api::<K>()
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}

fn manifest(kind: &str, name: &str, spec: &serde_json::Value) -> serde_json::Value {
    json!({ "apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

async fn record(pool: &PgPool, access_key_id: Uuid, user_id: Uuid, is_fallback: bool) {
    let record = UsageRecord {
        request_id: Uuid::now_v7(),
        created_at: Utc::now(),
        access_key_id,
        user_id,
        key_id: "0123456789".into(),
        namespace: "team".into(),
        key_name: "laptop".into(),
        user_name: "alice".into(),
        pool: "default".into(),
        model: "claude-sonnet-4-5".into(),
        upstream_model: None,
        upstream_request_id: None,
        provider: Some(if is_fallback {
            Provider::Bedrock
        } else {
            Provider::Plan
        }),
        is_fallback,
        fallback_reason: None,
        status: UsageStatus::Ok,
        http_status: 200,
        stream: false,
        tokens: TokenUsage {
            input: 100,
            output: 20,
            ..TokenUsage::default()
        },
        cost: MicroUsd(600_000),
        abandoned: None,
        price_source: PriceSource::Table,
        estimated: false,
        latency_ms: 10,
        ttft_ms: None,
        session_id: None,
        agent_id: None,
    };
    assert_eq!(usage::insert(pool, &[record]).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn usage_reaches_status_and_a_quiet_interval_writes_nothing() {
    let world = World::new().await;
    let operator = OperatorProcess::run(&world, world.database.url().as_str(), &[], &[]);
    operator.ready_leader().await;
    create::<ProxyPool>(
        &world,
        manifest(
            "ProxyPool",
            "default",
            &json!({ "usageReportInterval": "10s" }),
        ),
    )
    .await;
    create::<ProxyUser>(
        &world,
        manifest(
            "ProxyUser",
            "alice",
            &json!({ "email": "alice@example.com" }),
        ),
    )
    .await;
    let spec = json!({ "userRef": { "name": "alice" }, "secretName": "laptop-key" });
    create::<AccessKey>(&world, manifest("AccessKey", "laptop", &spec)).await;

    let pool = world.database.pool().await;
    let cluster_id = world.cluster_id().await;
    let row = eventually("the key has a row", async || {
        let mut connection = pool.acquire().await.unwrap();
        let found = access_keys::find(&mut connection, &cluster_id, &world.namespace, "laptop")
            .await
            .unwrap();
        found.ok_or_else(|| operator.log())
    })
    .await;
    let (key_id, user_id) = (row.0, row.2.user_id);
    record(&pool, key_id, user_id, false).await;
    record(&pool, key_id, user_id, true).await;

    let (keys, users) = (world.api::<AccessKey>(), world.api::<ProxyUser>());
    eventually("the usage is in status", async || {
        let key = keys
            .get("laptop")
            .await
            .unwrap()
            .status
            .and_then(|status| status.usage);
        let user = users
            .get("alice")
            .await
            .unwrap()
            .status
            .and_then(|status| status.usage);
        match (key, user) {
            (Some(key), Some(user)) if key.requests == 2 && user.requests == 2 => {
                assert_eq!(
                    (key.input_tokens, key.output_tokens, key.fallback_requests),
                    (200, 40, 1)
                );
                assert_eq!(
                    (key.cost_usd.as_str(), user.cost_usd.as_str()),
                    ("1.20", "1.20")
                );
                assert_eq!(key.last_used_at.unwrap().0.as_second() % 300, 0);
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    // Longer than an interval: what must not happen cannot be waited for.
    let settled = operator
        .metric("spillway_usage_status_writes_total")
        .await
        .unwrap();
    let version = keys.get("laptop").await.unwrap().metadata.resource_version;
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(
        operator.metric("spillway_usage_status_writes_total").await,
        Some(settled)
    );
    assert_eq!(
        keys.get("laptop").await.unwrap().metadata.resource_version,
        version
    );
}
