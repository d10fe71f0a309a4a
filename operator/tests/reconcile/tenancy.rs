//! Pools and tenants in namespaces of their own.

use crate::scene::Scene;
use crate::support::World;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};

/// An operator for the namespace of its pools and that of a tenant, and what happens in the tenant's.
async fn platform_and_tenant() -> (Scene, Scene) {
    let (world, pool) = World::migrated().await;
    let tenant = World::new().await;
    let (platform, both) = (
        world.namespace.clone(),
        format!("{},{}", world.namespace, tenant.namespace),
    );
    let args = ["--watch-namespaces", &both, "--pool-namespaces", &platform];
    let platform = Scene::in_world(world, pool, &args).await;
    let tenant = platform.elsewhere(tenant);
    (platform, tenant)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_serves_whom_it_lets_in() {
    let (platform, tenant) = platform_and_tenant().await;
    platform.create::<ProxyPool>("default", json!({})).await;
    tenant
        .create::<ProxyUser>("alice", json!({ "email": "alice@example.com" }))
        .await;
    tenant
        .create::<AccessKey>(
            "laptop",
            json!({ "userRef": { "name": "alice" }, "secretName": "laptop-key" }),
        )
        .await;
    let message = tenant
        .condition::<ProxyUser>("alice", "Ready", "False", "PoolNotAllowed")
        .await;
    assert!(
        message.contains(&format!("{}/default", platform.world.namespace))
            && message.contains("allowedNamespaces"),
        "{message}"
    );

    let selector = json!({ "from": "Selector", "selector": { "matchLabels": { "tier": "gold" } } });
    platform
        .patch::<ProxyPool>(
            "default",
            json!({ "spec": { "allowedNamespaces": selector } }),
        )
        .await;
    tenant
        .condition::<ProxyUser>("alice", "Ready", "False", "PoolNotAllowed")
        .await;
    let namespaces: Api<Namespace> = Api::all(tenant.world.client.clone());
    let label = Patch::Merge(json!({ "metadata": { "labels": { "tier": "gold" } } }));
    namespaces
        .patch(&tenant.world.namespace, &PatchParams::default(), &label)
        .await
        .unwrap();
    tenant.ready::<ProxyUser>("alice", "Active").await;
    tenant.ready::<AccessKey>("laptop", "Active").await;
    assert_eq!(
        platform
            .count("SELECT count(*) FROM users WHERE pool_id IS NOT NULL")
            .await,
        1
    );

    platform
        .patch::<ProxyPool>(
            "default",
            json!({ "spec": { "allowedNamespaces": { "from": "Same", "selector": null } } }),
        )
        .await;
    tenant
        .condition::<ProxyUser>("alice", "Ready", "False", "PoolNotAllowed")
        .await;
    assert_eq!(
        platform
            .count("SELECT count(*) FROM users WHERE pool_id IS NOT NULL")
            .await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_runs_no_proxies_and_borrows_no_identity() {
    let (platform, tenant) = platform_and_tenant().await;
    tenant.create::<ProxyPool>("mine", json!({})).await;
    let message = tenant
        .condition::<ProxyPool>("mine", "Accepted", "False", "NamespaceNotAllowed")
        .await;
    assert!(message.contains(&platform.world.namespace), "{message}");
    tenant
        .create::<BedrockCredential>(
            "free",
            json!({ "region": "us-east-1", "auth": { "podIdentity": {} } }),
        )
        .await;
    tenant
        .condition::<BedrockCredential>("free", "Accepted", "False", "PodIdentityNotAllowed")
        .await;
    let metadata = json!({ "region": "us-east-1", "auth": { "podIdentity": {} }, "endpointUrl": "http://169.254.169.254" });
    platform
        .create::<BedrockCredential>("metadata", metadata)
        .await;
    platform
        .condition::<BedrockCredential>("metadata", "Accepted", "False", "UpstreamRefused")
        .await;
    assert_eq!(
        (
            platform.rows("pools").await,
            platform.rows("bedrock_keys").await
        ),
        (0, 0)
    );
    // A tenant that leaves with everything in it leaves nothing behind.
    tenant.delete::<ProxyPool>("mine").await;
    tenant.gone::<ProxyPool>("mine").await;
}
