//! The API server refuses what can never work, in words that tell the fix.

use std::sync::Arc;

use crate::support::{Tenant, World};

/// Kind, specification, and what the refusal says.
const MALFORMED: &[(&str, &str, &str)] = &[
    (
        "AccessKey",
        "{userRef: {name: alice}}",
        "set exactly one of secretName (Spillway makes the key) and existingSecretRef",
    ),
    (
        "AccessKey",
        "{userRef: {name: alice}, secretName: a, existingSecretRef: {name: b, key: c}}",
        "set exactly one of secretName (Spillway makes the key) and existingSecretRef",
    ),
    (
        "AccessKey",
        "{userRef: {name: Alice!}, secretName: a}",
        "must be the name of an object: lower-case letters",
    ),
    (
        "AccessKey",
        "{userRef: {name: alice}, secretName: a, expiresAt: tomorrow}",
        "date-time",
    ),
    (
        "ProxyUser",
        "{email: alice}",
        "must be an email address such as alice@example.com",
    ),
    (
        "ProxyUser",
        "{displayName: Alice}",
        "spec.email: Required value",
    ),
    (
        "BedrockCredential",
        "{region: us-east-1, auth: {}}",
        "set exactly one of secretRef, apiKeySecretRef and podIdentity",
    ),
    (
        "BedrockCredential",
        "{region: us-east-1, auth: {secretRef: {name: aws}, podIdentity: {}}}",
        "set exactly one of secretRef, apiKeySecretRef and podIdentity",
    ),
    (
        "BedrockCredential",
        "{region: Virginia, auth: {podIdentity: {}}}",
        "must be an AWS region such as us-east-1",
    ),
    (
        "ProxyPool",
        "{usageReportInterval: 5min}",
        "must be a whole number with a unit: 30s, 5m or 1h",
    ),
    (
        "ProxyPool",
        "{allowedNamespaces: {from: Selector}}",
        "selector goes with from: Selector: set both, or neither",
    ),
    (
        "ProxyPool",
        "{plan: {apiUrl: api.anthropic.com}}",
        "must be an absolute URL",
    ),
    (
        "ProxyPool",
        "{models: [{name: a, bedrockModelId: b, price: {input: '3 dollars', output: '15'}}]}",
        "must be a quoted amount in US dollars",
    ),
    ("ProxyPool", "{replicas: -1}", "spec.replicas"),
];

pub async fn malformed(world: Arc<World>) {
    let tenant = Tenant::new(&world, "malformed").await;
    tenant.pool(0).await;
    for (kind, spec, says) in MALFORMED {
        refused(&world, kind, "malformed", spec, says).await;
    }
    world.apply(&tenant.alice()).await;
    world.apply(&tenant.access_key("laptop")).await;
    world.ready("AccessKey", "malformed", "laptop").await;
    refused(
        &world,
        "AccessKey",
        "laptop",
        "{userRef: {name: bob}, secretName: laptop}",
        "userRef is immutable",
    )
    .await;
    refused(
        &world,
        "AccessKey",
        "laptop",
        "{userRef: {name: alice}, secretName: other}",
        "secretName is immutable",
    )
    .await;
}

async fn refused(world: &World, kind: &str, name: &str, spec: &str, says: &str) {
    let manifest = format!(
        "apiVersion: spillway.dev/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}, namespace: malformed}}\nspec: {spec}\n"
    );
    match world.try_apply(&manifest).await {
        Err(kube::Error::Api(status)) => {
            assert!(
                status.message.contains(says),
                "{kind} {spec} is refused without {says:?}: {}",
                status.message
            );
        }
        other => panic!("{kind} {spec} is not refused: {other:?}"),
    }
}
