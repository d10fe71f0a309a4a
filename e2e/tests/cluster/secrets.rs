//! The Secret that holds a key: lost, or somebody else's.

use std::sync::Arc;

use kube::api::DeleteParams;
use serde_json::Value;

use crate::support::objects::decoded;
use crate::support::{Tenant, World, eventually};

pub async fn lost(world: Arc<World>) {
    let (tenant, former) = Tenant::serving(&world, "lost", 1).await;
    world
        .delete("Secret", "lost", "laptop", &DeleteParams::default())
        .await;
    let entry = |secret: &Value| decoded(&secret["data"]["ACCESS_KEY"]);
    let is_new = |secret: &Value| entry(secret).is_some_and(|key| key != former.token);
    world
        .wait("Secret", "lost", "laptop", "holds a new key", is_new)
        .await;
    let key = tenant.key("laptop").await;

    eventually("the new key is served", async || {
        let answer = world.ask(&key, "hello", false).await;
        if answer.status == 200 {
            Ok(())
        } else {
            Err(answer.body)
        }
    })
    .await;
    world
        .served(&former, "a deleted Secret is no revocation", false)
        .await;
    let states = |key: &Value| {
        let versions = key["status"]["versions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        versions
            .iter()
            .map(|version| version["state"].clone())
            .collect::<Vec<_>>()
    };
    world
        .wait(
            "AccessKey",
            "lost",
            "laptop",
            "shows both versions",
            |key| states(key) == ["Current", "Retiring"],
        )
        .await;
    eventually("an event tells of it", async || {
        let events = world.list("Event", "lost", "").await;
        let told = events
            .iter()
            .find(|event| event["reason"] == "SecretLost" && event["type"] == "Warning");
        let note = told
            .and_then(|event| event["note"].as_str())
            .ok_or("no event SecretLost")?;
        if note.contains("spec.disabled") {
            Ok(())
        } else {
            Err("it does not tell how to revoke")
        }
    })
    .await;
}

pub async fn foreign(world: Arc<World>) {
    let tenant = Tenant::new(&world, "foreign").await;
    tenant.pool(0).await;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: laptop, namespace: foreign}\nstringData: {PASSWORD: of-somebody-else}\n";
    world.apply(secret).await;
    world.apply(&tenant.alice()).await;
    world.apply(&tenant.access_key("laptop")).await;
    let message = world
        .refused("AccessKey", "foreign", "laptop", "SecretConflict")
        .await;
    for part in [
        "spec.secretName",
        "Secret foreign/laptop",
        "delete it",
        "spillway.dev/access-key=foreign/laptop",
    ] {
        assert!(
            message.contains(part),
            "{message:?} says nothing of {part:?}"
        );
    }
    let left = world.get("Secret", "foreign", "laptop").await;
    assert_eq!(
        left["data"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["PASSWORD"],
        "it is left alone"
    );

    world
        .delete("Secret", "foreign", "laptop", &DeleteParams::default())
        .await;
    world.ready("AccessKey", "foreign", "laptop").await;
    world.secret_entry("foreign", "laptop", "ACCESS_KEY").await;
}
