//! Pods go, requests stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kube::api::DeleteParams;
use serde_json::json;
use spillway_e2e::upstream::{Point, Rule, Script};
use tokio::task::JoinSet;

use crate::support::objects::name;
use crate::support::tenant::is_available;
use crate::support::{PLATFORM, Tenant, World};

pub async fn stream(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "drain", 1).await;
    tenant
        .fakes
        .push(Rule::once(
            Script::text("a story with an end").hold(Point::Deltas(1), "middle"),
        ))
        .await;
    let (pod, proxy) = (
        tenant.proxy_pods().await.remove(0),
        tenant.proxies().await.remove(0),
    );
    let stream = tokio::spawn({
        let (world, token) = (Arc::clone(&world), key.token.clone());
        async move { world.try_ask(&proxy, &token, "tell me", true).await }
    });
    tenant.fakes.wait_held("middle", 1).await;

    world
        .delete("Pod", PLATFORM, name(&pod), &DeleteParams::default())
        .await;
    // A replacement serves and this one is no longer ready: it is draining, and the stream still stands.
    let unready = |pod: &serde_json::Value| pod["status"]["containerStatuses"][0]["ready"] == false;
    world
        .wait(
            "Pod",
            PLATFORM,
            name(&pod),
            "is not ready any more",
            unready,
        )
        .await;
    world
        .wait(
            "Deployment",
            PLATFORM,
            "spillway-drain",
            "has a replacement",
            is_available,
        )
        .await;
    world.served(&key, "meanwhile", false).await;
    assert!(!stream.is_finished(), "the stream waits");
    tenant.fakes.release("middle").await;

    let answer = stream.await.unwrap().expect("the stream began");
    assert!(answer.is_complete(), "{answer:?}");
    assert_eq!(answer.text(), "a story with an end");
    world.gone("Pod", PLATFORM, name(&pod)).await;
    let rows = tenant.usage(2).await;
    let row = rows
        .iter()
        .find(|row| row.upstream_request_id.as_deref() == Some(&answer.request_id));
    assert_eq!(
        row.map(|row| row.status.as_str()),
        Some("ok"),
        "the pod wrote its usage before it went: {rows:?}"
    );
}

pub async fn rolling(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "rolling", 2).await;
    let former = tenant.proxy_pods().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for client in 0..3 {
        let (world, key, stop) = (Arc::clone(&world), key.clone(), Arc::clone(&stop));
        load.spawn(async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                ids.push(world.served(&key, "hello", client == 0).await.request_id);
            }
            ids
        });
    }
    let resources =
        json!({ "spec": { "resources": { "requests": { "cpu": "11m", "memory": "33Mi" } } } });
    world
        .patch("ProxyPool", PLATFORM, "rolling", resources)
        .await;
    for pod in &former {
        world.gone("Pod", PLATFORM, name(pod)).await;
    }
    world
        .wait(
            "Deployment",
            PLATFORM,
            "spillway-rolling",
            "has new pods",
            is_available,
        )
        .await;
    stop.store(true, Ordering::Relaxed);
    let ids: Vec<String> = load.join_all().await.into_iter().flatten().collect();
    println!(
        "    {} requests while two pods were replaced, none lost",
        ids.len()
    );

    let rows = tenant.usage(ids.len()).await;
    assert_eq!(rows.len(), ids.len());
    for id in &ids {
        let count = rows
            .iter()
            .filter(|row| row.upstream_request_id.as_ref() == Some(id))
            .count();
        assert_eq!(count, 1, "rows of {id}");
    }
}
