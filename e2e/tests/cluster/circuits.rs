//! A Plan that fails is left alone by every proxy; that can be seen, and ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spillway_e2e::upstream::{Failure, Kind, Rule};

use crate::support::tenant::Key;
use crate::support::{PLATFORM, Tenant, World, eventually};

/// Within which every proxy follows what another found, or a reset. Twice as long as promised, for all tests share two cores.
const FOLLOWED: Duration = Duration::from_secs(4);

/// The circuits that a pool's status shows.
fn circuits(pool: &Value) -> &[Value] {
    pool["status"]["circuits"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

async fn threshold(world: &World, pool: &str, failures: u32) {
    let breaker = json!({ "spec": { "circuitBreaker": { "failureThreshold": failures } } });
    world.patch("ProxyPool", PLATFORM, pool, breaker).await;
    world.ready("ProxyPool", PLATFORM, pool).await;
}

/// Sends through one proxy until it leaves the Plan alone, and says how many requests had reached the Plan by then.
async fn left_alone(world: &World, tenant: &Tenant, key: &Key) -> usize {
    eventually("the Plan is left alone", async || {
        let before = tenant.fakes.generated(Kind::Plan).await.len();
        world.served(key, "while the Plan fails", false).await;
        let after = tenant.fakes.generated(Kind::Plan).await.len();
        if after == before {
            Ok(after)
        } else {
            Err("the Plan is still asked")
        }
    })
    .await
}

fn followed(what: &str, since: Instant) {
    let took = since.elapsed();
    println!("    {what} was followed within {} ms", took.as_millis());
    assert!(took < FOLLOWED, "{took:?}");
}

pub async fn shown_and_reset(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "circuit", 2).await;
    threshold(&world, "circuit", 2).await;
    let proxies: Vec<Key> = tenant
        .proxies()
        .await
        .into_iter()
        .map(|base| Key {
            base,
            ..key.clone()
        })
        .collect();
    tenant
        .fakes
        .push(Rule::times(100, Failure::status(529)))
        .await;
    left_alone(&world, &tenant, &proxies[0]).await;
    let began = Instant::now();
    let asked = left_alone(&world, &tenant, &proxies[1]).await;
    followed("what another found", began);

    let pool = world
        .wait("ProxyPool", PLATFORM, "circuit", "shows it", |pool| {
            !circuits(pool).is_empty()
        })
        .await;
    let shown = &circuits(&pool)[0];
    assert_eq!(
        (&shown["state"], &shown["reason"], &shown["credential"]),
        (
            &json!("Open"),
            &json!("Overloaded"),
            &json!(format!("{PLATFORM}/circuit-plan/key"))
        ),
        "{shown}"
    );
    assert_eq!(shown["model"], crate::support::tenant::MODEL);
    assert!(shown["openedAt"].is_string() && shown["retryAt"].is_string());
    let table = world
        .kubectl(&["get", "proxypool", "circuit", "-n", PLATFORM])
        .await;
    assert!(
        table.contains("CIRCUIT") && table.contains("Open"),
        "{table}"
    );
    for proxy in &proxies {
        world.served(proxy, "the Plan is left alone", false).await;
    }
    assert_eq!(tenant.fakes.generated(Kind::Plan).await.len(), asked);

    tenant.fakes.clear_rules().await;
    let began = Instant::now();
    let annotate = json!({ "metadata": { "annotations": { "spillway.dev/reset-circuit": "1" } } });
    world
        .patch("ProxyPool", PLATFORM, "circuit", annotate)
        .await;
    for (number, proxy) in (1..).zip(&proxies) {
        eventually("the Plan is asked again", async || {
            world.served(proxy, "after the reset", false).await;
            let now = tenant.fakes.generated(Kind::Plan).await.len();
            if now >= asked + number {
                Ok(())
            } else {
                Err("not yet")
            }
        })
        .await;
    }
    followed("the reset", began);
    world
        .wait("ProxyPool", PLATFORM, "circuit", "shows none", |pool| {
            circuits(pool).is_empty()
        })
        .await;
}

pub async fn refused_key(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "refused", 1).await;
    tenant
        .fakes
        .push(Rule::once(Failure::credit_balance()))
        .await;
    world.served(&key, "while the key is refused", false).await;
    let pool = world
        .wait("ProxyPool", PLATFORM, "refused", "shows it", |pool| {
            !circuits(pool).is_empty()
        })
        .await;
    let shown = &circuits(&pool)[0];
    assert_eq!(
        (&shown["reason"], &shown["model"]),
        (&json!("Account"), &Value::Null),
        "{shown}"
    );
    eventually("there is an event", async || {
        let events = world.list("Event", PLATFORM, "").await;
        let found = events.into_iter().find(|event| {
            event["reason"] == "PlanRefused" && event["regarding"]["name"] == "refused"
        });
        found.ok_or("not yet")
    })
    .await;

    // The fake accepts one key: that it is asked again shows that the new one is tried.
    let asked = tenant.fakes.generated(Kind::Plan).await.len();
    let replaced = json!({ "stringData": { "key": "sk-ant-api03-another-key-of-the-test" } });
    world
        .patch("Secret", PLATFORM, "refused-plan", replaced)
        .await;
    eventually("the new key is tried", async || {
        world.served(&key, "with another key", false).await;
        let now = tenant.fakes.generated(Kind::Plan).await.len();
        if now > asked { Ok(()) } else { Err("not yet") }
    })
    .await;
}
