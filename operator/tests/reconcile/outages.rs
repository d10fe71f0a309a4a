//! What the controllers do while Postgres is away, and when they are killed in the middle.

use crate::scene::{Scene, entry};
use crate::support::eventually;
use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use spillway_core::security::key::AccessKeyToken;
use spillway_crds::{AccessKey, ProxyUser};

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_does_not_wait_for_postgres_for_ever() {
    let scene = Scene::gated().await;
    scene.everything().await;
    scene.ready::<AccessKey>("laptop", "Active").await;
    scene.shut_database();
    scene.delete::<AccessKey>("laptop").await;
    scene
        .create::<ProxyUser>("bob", json!({ "email": "bob@example.com" }))
        .await;
    let message = scene
        .condition::<ProxyUser>("bob", "Ready", "False", "DatabaseUnavailable")
        .await;
    assert!(message.contains("when it returns"), "{message}");
    assert_eq!(scene.living("access_keys").await, 1);
    scene.gone_slowly::<AccessKey>("laptop").await;
    scene.event("ReleasedWithoutDatabase").await;

    scene.open_database();
    scene.ready::<ProxyUser>("bob", "Active").await;
    scene.ready::<ProxyUser>("alice", "Active").await;
    eventually("the deletion takes effect", async || {
        match scene.living("access_keys").await {
            0 => Ok(()),
            living => Err(format!("{living} keys live\n{}", scene.operator.log())),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_is_killed_in_the_middle_ends_in_the_same_state() {
    let mut scene = Scene::new().await;
    scene.everything().await;
    let names: Vec<_> = (0..20).map(|n| format!("key-{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        scene
            .create::<AccessKey>(
                name,
                json!({ "userRef": { "name": "alice" }, "secretName": name }),
            )
            .await;
        if n % 10 == 9 {
            scene.kill().await;
        }
    }
    for name in &names {
        scene.ready::<AccessKey>(name, "Active").await;
        let status = scene.get::<AccessKey>(name).await.status.unwrap();
        let token =
            AccessKeyToken::parse(&entry(&scene.get::<Secret>(name).await, "ACCESS_KEY")).unwrap();
        assert_eq!(
            status.key_id.as_deref(),
            token.id(),
            "the status shows the Secret's key"
        );
        assert_eq!(status.versions.len(), 1, "no key was minted twice");
    }
    assert_eq!(scene.living("access_key_versions").await, 21);
}
