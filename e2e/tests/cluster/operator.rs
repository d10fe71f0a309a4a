//! Two replicas, one leader, and the same end whatever happens to them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use chrono::TimeDelta;
use serde_json::Value;
use spillway_core::security::hasher::KeyHasher;

use crate::support::objects::name;
use crate::support::operator::metric;
use crate::support::{PLATFORM, Tenant, World, eventually};

pub async fn takeover(world: Arc<World>) {
    let tenant = Tenant::new(&world, "takeover").await;
    tenant.pool(0).await;
    world.apply(&tenant.alice()).await;
    world.ready("ProxyUser", "takeover", "alice").await;
    world.leader().await;
    let pods = world.operator_pods().await;
    assert_eq!(pods.len(), 2);
    let mut leaders = 0.0;
    for pod in &pods {
        leaders += metric(&world.metrics(name(pod)).await, "spillway_operator_leader");
    }
    assert!(
        (leaders - 1.0).abs() < f64::EPSILON,
        "one of two leads, not {leaders}"
    );

    let begin = Instant::now();
    let took = world.kill_leader().await;
    println!(
        "    another leads {:.1} s after the leader was killed",
        took.as_seconds_f32()
    );
    assert!(took < TimeDelta::seconds(20), "it took {took:?}");
    world.apply(&tenant.access_key("laptop")).await;
    world.ready("AccessKey", "takeover", "laptop").await;
    println!(
        "    and has made a key after {:.1} s",
        begin.elapsed().as_secs_f32()
    );
}

/// Keys that are asked for and not made yet, at any time until the operator is killed.
const IN_THE_MAKING: usize = 5;

pub async fn minting(world: Arc<World>) {
    let (tenant, _) = Tenant::serving(&world, "minting", 1).await;
    let killing = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.kill_leader().await }
    });
    let mut keys: usize = 0;
    while !killing.is_finished() {
        world
            .apply(&tenant.access_key(&format!("key-{keys}")))
            .await;
        keys += 1;
        if let Some(former) = keys.checked_sub(IN_THE_MAKING) {
            world
                .wait(
                    "Secret",
                    "minting",
                    &format!("key-{former}"),
                    "is made",
                    |secret| !secret.is_null(),
                )
                .await;
        }
    }
    killing.await.unwrap();
    println!("    the operator was killed while it made {keys} keys");
    assert!(keys > IN_THE_MAKING);

    let hasher = world
        .secret_entry(PLATFORM, "spillway-key-hasher", "PROXY_KEY_HASHER_SECRET")
        .await;
    let hasher = KeyHasher::from_config(&hasher.into()).expect("the operator's own hasher secret");
    for number in 0..keys {
        let key_name = format!("key-{number}");
        world.ready("AccessKey", "minting", &key_name).await;
        let key = tenant.key(&key_name).await;
        let stored: Vec<Vec<u8>> = sqlx::query_scalar(
            "SELECT v.key_hash FROM access_key_versions v JOIN access_keys k ON k.id = v.access_key_id \
             WHERE k.namespace = 'minting' AND k.name = $1 AND k.deleted_at IS NULL",
        )
        .bind(&key_name)
        .fetch_all(world.database().await)
        .await
        .unwrap();
        assert_eq!(stored.len(), 1, "{key_name} was minted once");
        assert_eq!(
            stored[0],
            hasher.hash(&key.token).0.0,
            "the row is of the key in the Secret"
        );
        eventually("the key is served", async || {
            match world.ask(&key, "hello", false).await.status {
                200 => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
    assert_eq!(secrets(&world).await.len(), keys);
}

async fn secrets(world: &World) -> Vec<Value> {
    let mut secrets = world
        .list(
            "Secret",
            "minting",
            "app.kubernetes.io/managed-by=spillway-operator",
        )
        .await;
    secrets.retain(|secret| name(secret).starts_with("key-"));
    secrets
}

/// Kinds that the operator reconciles, by the name that its metrics give them.
const RECONCILED: [&str; 4] = ["ProxyPool", "ProxyUser", "AccessKey", "BedrockCredential"];

pub async fn unchanged(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "unchanged", 1).await;
    world.served(&key, "hello", false).await;
    for (kind, name) in [("AccessKey", "laptop"), ("ProxyUser", "alice")] {
        world
            .wait(kind, tenant.name, name, "shows its usage", |object| {
                object["status"]["usage"]["requests"] == 1
            })
            .await;
    }
    let before = versions(&world).await;
    assert!(before.len() > 10, "there is something to be left alone");

    let leader = world.restart_operator().await;
    for kind in RECONCILED {
        let objects = before.keys().filter(|key| key.0 == kind).count();
        let series = format!("spillway_reconcile_duration_seconds_count{{kind=\"{kind}\"");
        eventually("everything is reconciled", async || {
            let done = metric(&world.metrics(&leader).await, &series);
            if done < f64::from(u32::try_from(objects).unwrap()) {
                Err(format!("{done} of {objects} {kind}"))
            } else {
                Ok(())
            }
        })
        .await;
    }
    let after = versions(&world).await;
    let changed: Vec<_> = before
        .iter()
        .filter(|(object, version)| after.get(*object) != Some(version))
        .collect();
    assert!(changed.is_empty(), "these were written: {changed:?}");
    assert_eq!(before.len(), after.len());
}

/// The version of every object that the operator writes, by kind, namespace and name.
async fn versions(world: &World) -> BTreeMap<(&'static str, String, String), String> {
    let mut versions = BTreeMap::new();
    for kind in RECONCILED
        .into_iter()
        .chain(["Secret", "Deployment", "Service", "ServiceAccount"])
    {
        let labels = if RECONCILED.contains(&kind) {
            ""
        } else {
            "app.kubernetes.io/managed-by=spillway-operator"
        };
        for object in world.list(kind, "", labels).await {
            let text = |field: &str| {
                object["metadata"][field]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            versions.insert(
                (kind, text("namespace"), text("name")),
                text("resourceVersion"),
            );
        }
    }
    versions
}
