//! The rules of the definitions, as a real API server enforces them.

use crate::support::World;
use kube::Api;
use kube::api::{DynamicObject, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

/// What the API server says of a manifest, or nothing when it takes it.
async fn judged(world: &World, kind: &str, name: &str, spec: Value) -> Option<String> {
    let api = dynamic(world, kind);
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
        spillway_crds::GROUP,
        spillway_crds::VERSION,
        kind,
    ));
    let mut object = DynamicObject::new(name, &resource);
    object.data = json!({ "spec": spec });
    api.create(&PostParams::default(), &object)
        .await
        .err()
        .map(|error| error.to_string())
}

async fn changed(world: &World, kind: &str, name: &str, spec: Value) -> Option<String> {
    let patch = kube::api::Patch::Merge(json!({ "spec": spec }));
    dynamic(world, kind)
        .patch(name, &kube::api::PatchParams::default(), &patch)
        .await
        .err()
        .map(|error| error.to_string())
}

fn dynamic(world: &World, kind: &str) -> Api<DynamicObject> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(
        spillway_crds::GROUP,
        spillway_crds::VERSION,
        kind,
    ));
    Api::namespaced_with(world.client.clone(), &world.namespace, &resource)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_meant_is_refused_with_the_fix() {
    let world = World::new().await;
    let cases = [
        (
            "ProxyPool",
            "a.b",
            json!({}),
            "metadata.name must have at most 50",
        ),
        (
            "ProxyPool",
            "p",
            json!({ "usageReportInterval": "30" }),
            "must be a whole number with a unit: 30s, 5m or 1h",
        ),
        (
            "ProxyPool",
            "p",
            json!({ "plan": { "apiUrl": "api.anthropic.com" } }),
            "must be an absolute URL",
        ),
        (
            "ProxyPool",
            "p",
            json!({ "allowedNamespaces": { "from": "Selector" } }),
            "set both, or neither",
        ),
        (
            "ProxyPool",
            "p",
            json!({ "models": [{ "name": "a", "bedrockModelId": "b", "price": { "input": "3,0", "output": "1" } }] }),
            "quoted amount in US dollars",
        ),
        (
            "ProxyUser",
            "u",
            json!({ "email": "alice" }),
            "must be an email address such as alice@example.com",
        ),
        (
            "AccessKey",
            "k",
            json!({ "userRef": { "name": "u" } }),
            "set exactly one of secretName",
        ),
        (
            "AccessKey",
            "k",
            json!({ "userRef": { "name": "u" }, "secretName": "s", "expiresAt": "9999-12-31T23:59:59Z" }),
            "must be a time before 9999-12-30",
        ),
        (
            "AccessKey",
            "k",
            json!({ "userRef": { "name": "u" }, "secretName": "s", "expiresAt": "2030-01-01T00:00:00x5Z" }),
            "must be a time before 9999-12-30",
        ),
        (
            "AccessKey",
            "k",
            json!({ "userRef": { "name": "u" }, "secretName": "s", "existingSecretRef": { "name": "s", "key": "k" } }),
            "set exactly one of secretName",
        ),
        (
            "BedrockCredential",
            "b",
            json!({ "region": "us-east-1", "auth": {} }),
            "set exactly one of secretRef",
        ),
        (
            "BedrockCredential",
            "b",
            json!({ "region": "virginia", "auth": { "podIdentity": {} } }),
            "must be an AWS region",
        ),
    ];
    for (kind, name, spec, words) in cases {
        let message = judged(&world, kind, name, spec.clone())
            .await
            .unwrap_or_default();
        assert!(message.contains(words), "{kind} {spec}: {message:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_orphan_a_key_cannot_be_changed() {
    let world = World::new().await;
    let spec = json!({ "userRef": { "name": "alice" }, "secretName": "s" });
    assert_eq!(judged(&world, "AccessKey", "k", spec).await, None);
    for (spec, words) in [
        (
            json!({ "userRef": { "name": "bob" } }),
            "userRef is immutable",
        ),
        (json!({ "secretName": "other" }), "secretName is immutable"),
        (
            json!({ "secretName": null, "existingSecretRef": { "name": "x", "key": "k" } }),
            "secretName is immutable",
        ),
    ] {
        let message = changed(&world, "AccessKey", "k", spec.clone())
            .await
            .unwrap_or_default();
        assert!(message.contains(words), "{spec}: {message:?}");
    }
    assert_eq!(
        changed(
            &world,
            "AccessKey",
            "k",
            json!({ "disabled": true, "allowedModels": ["claude-*"] })
        )
        .await,
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_resource_does_not_read_as_current() {
    let world = World::new().await;
    assert_eq!(
        judged(
            &world,
            "ProxyUser",
            "alice",
            json!({ "email": "alice@example.com" })
        )
        .await,
        None
    );
    let user = dynamic(&world, "ProxyUser").get("alice").await.unwrap();
    assert_eq!(user.data["status"], json!({ "observedGeneration": -1 }));
    assert_eq!(judged(&world, "ProxyPool", "p", json!({})).await, None);
    let pool = dynamic(&world, "ProxyPool").get("p").await.unwrap();
    assert_eq!(pool.data["spec"]["replicas"], 2);
    assert_eq!(
        pool.data["spec"].get("plan"),
        None,
        "what is left out falls to the environment"
    );
}
