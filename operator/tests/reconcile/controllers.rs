//! The controllers on a real API server and a real Postgres: from resources to keys, rows and proxies.

use crate::scene::{Scene, entry};
use crate::support::eventually;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use serde_json::json;
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser, VersionState};

#[tokio::test(flavor = "multi_thread")]
async fn resources_become_keys_rows_and_proxies() {
    let scene = Scene::new().await;
    scene.everything().await;
    scene.ready::<BedrockCredential>("main", "Stored").await;
    scene
        .condition::<ProxyPool>("default", "Ready", "False", "ProxiesStarting")
        .await;
    scene.ready::<ProxyUser>("alice", "Active").await;
    let key = scene.ready::<AccessKey>("laptop", "Active").await;

    let status = key.status.unwrap();
    assert_eq!(status.secret_name.as_deref(), Some("laptop-key"));
    assert_eq!(status.versions.len(), 1);
    let secret = scene.world.api::<Secret>().get("laptop-key").await.unwrap();
    let token = entry(&secret, "ACCESS_KEY");
    let url = format!("http://spillway-default.{}.svc", scene.world.namespace);
    assert!(
        token.starts_with(&format!("sk-spw-{}-", status.key_id.unwrap())),
        "the public part is in the status"
    );
    assert_eq!(entry(&secret, "ANTHROPIC_AUTH_TOKEN"), token);
    assert_eq!(entry(&secret, "ANTHROPIC_BASE_URL"), url);
    assert_eq!(
        entry(&secret, "ACCESS_KEY_URL"),
        format!("{url}/ak/{token}")
    );
    assert_eq!(
        secret.metadata.owner_references.unwrap()[0].kind,
        "AccessKey"
    );

    let deployment = scene
        .world
        .api::<Deployment>()
        .get("spillway-default")
        .await
        .unwrap();
    assert_eq!(deployment.spec.unwrap().replicas, Some(2));
    scene
        .world
        .api::<Service>()
        .get("spillway-default")
        .await
        .unwrap();
    scene
        .world
        .api::<ServiceAccount>()
        .get("spillway-default")
        .await
        .unwrap();
    scene.proxies_are_ready(2).await;
    let pool = scene.ready::<ProxyPool>("default", "Serving").await;
    assert_eq!(pool.status.unwrap().url, Some(url));

    eventually("the counts are right", async || {
        let user = scene
            .get::<ProxyUser>("alice")
            .await
            .status
            .unwrap_or_default();
        let credential = scene
            .get::<BedrockCredential>("main")
            .await
            .status
            .unwrap_or_default();
        match (user.keys, credential.used_by) {
            (Some(1), Some(1)) => Ok(()),
            counts => Err(format!("{counts:?}")),
        }
    })
    .await;
    scene
        .nowhere(&[&token, "plan-key-of-the-test", "aws-secret-of-the-test"])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_unchanged_is_not_written() {
    let mut scene = Scene::new().await;
    scene.everything().await;
    scene.proxies_are_ready(2).await;
    scene.ready::<ProxyPool>("default", "Serving").await;
    scene.ready::<AccessKey>("laptop", "Active").await;
    scene.settled().await;
    let before = scene.versions().await;
    scene.restart().await;
    scene.reconciled_at_least(4).await;
    scene.settled().await;
    assert_eq!(scene.versions().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_references_are_told_and_heal() {
    let scene = Scene::new().await;
    scene
        .create::<ProxyPool>(
            "default",
            json!({ "plan": { "apiKeySecretRef": { "name": "plan", "key": "API_KEY" } } }),
        )
        .await;
    scene
        .create::<ProxyUser>(
            "alice",
            json!({ "email": "alice@example.com", "bedrockCredentialRef": { "name": "main" } }),
        )
        .await;
    scene
        .create::<AccessKey>(
            "laptop",
            json!({ "userRef": { "name": "alice" }, "secretName": "laptop-key" }),
        )
        .await;
    let credential = json!({ "region": "us-east-1", "auth": { "secretRef": { "name": "aws" } } });

    let message = scene
        .condition::<ProxyPool>("default", "ReferencesResolved", "False", "SecretNotFound")
        .await;
    assert!(
        message.contains("spec.plan.apiKeySecretRef")
            && message.contains("create it with the key API_KEY"),
        "{message}"
    );
    scene
        .secret("plan", &[("API_KEY", "sk-ant-oat01-somebodys-own")])
        .await;
    let message = scene
        .condition::<ProxyPool>(
            "default",
            "ReferencesResolved",
            "False",
            "OAuthTokenRefused",
        )
        .await;
    assert!(
        message.contains("Anthropic Console") && !message.contains("somebodys"),
        "{message}"
    );
    scene
        .replace_secret("plan", &[("OTHER", "sk-ant-api03-x")])
        .await;
    scene
        .condition::<ProxyPool>("default", "ReferencesResolved", "False", "SecretKeyMissing")
        .await;
    scene
        .replace_secret("plan", &[("API_KEY", "sk-ant-api03-x")])
        .await;
    scene
        .condition::<ProxyPool>("default", "ReferencesResolved", "True", "Resolved")
        .await;

    scene
        .condition::<ProxyUser>("alice", "Ready", "False", "CredentialNotFound")
        .await;
    scene
        .condition::<AccessKey>("laptop", "Ready", "False", "UserNotReady")
        .await;
    scene.create::<BedrockCredential>("main", credential).await;
    scene
        .condition::<BedrockCredential>("main", "Ready", "False", "SecretNotFound")
        .await;
    scene
        .condition::<ProxyUser>("alice", "Ready", "False", "CredentialNotReady")
        .await;
    assert!(
        scene
            .world
            .api::<Secret>()
            .get_opt("laptop-key")
            .await
            .unwrap()
            .is_none(),
        "no key before its user"
    );
    scene
        .secret(
            "aws",
            &[
                ("AWS_ACCESS_KEY_ID", "AKIA1"),
                ("AWS_SECRET_ACCESS_KEY", "s"),
            ],
        )
        .await;
    scene.ready::<BedrockCredential>("main", "Stored").await;
    scene.ready::<ProxyUser>("alice", "Active").await;
    scene.ready::<AccessKey>("laptop", "Active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_secret_in_the_way_is_left_alone() {
    let scene = Scene::new().await;
    scene
        .secret("laptop-key", &[("PASSWORD", "somebody-elses")])
        .await;
    scene.everything().await;
    let message = scene
        .condition::<AccessKey>("laptop", "KeyReady", "False", "SecretConflict")
        .await;
    assert!(
        message.contains(&format!("Secret {}/laptop-key", scene.world.namespace)),
        "{message}"
    );
    let secret = scene.world.api::<Secret>().get("laptop-key").await.unwrap();
    assert_eq!(
        (entry(&secret, "PASSWORD"), secret.data.unwrap().len()),
        ("somebody-elses".to_owned(), 1)
    );
    scene.delete::<Secret>("laptop-key").await;
    scene.ready::<AccessKey>("laptop", "Active").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_secret_gets_the_next_version() {
    let scene = Scene::new().await;
    scene.everything().await;
    let status = scene
        .ready::<AccessKey>("laptop", "Active")
        .await
        .status
        .unwrap();
    let first = status.key_id.unwrap();
    let token = entry(&scene.get::<Secret>("laptop-key").await, "ACCESS_KEY");
    scene.delete::<Secret>("laptop-key").await;
    eventually(
        "a new version is made and the lost one retires",
        async || {
            let versions = scene.key_versions("laptop").await;
            let retires = versions.get(1).is_some_and(|(key_id, state)| {
                *key_id == first && *state == VersionState::Retiring
            });
            let is_new = versions
                .first()
                .is_some_and(|(key_id, state)| *key_id != first && *state == VersionState::Current);
            if retires && is_new {
                Ok(())
            } else {
                Err(format!("{versions:?}"))
            }
        },
    )
    .await;
    let note = scene.event("SecretLost").await;
    assert!(note.contains(&first) && note.contains("24 hours"), "{note}");

    // The first one returns from a backup: it is the current one again.
    scene
        .replace_secret("laptop-key", &[("ACCESS_KEY", &token)])
        .await;
    eventually("the restored key is current", async || {
        let versions = scene.key_versions("laptop").await;
        let is_current = versions.contains(&(first.clone(), VersionState::Current));
        if is_current && versions.len() == 2 {
            Ok(())
        } else {
            Err(format!("{versions:?}"))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_secret_is_mended_around_its_key() {
    let scene = Scene::new().await;
    scene.everything().await;
    scene.ready::<AccessKey>("laptop", "Active").await;
    let key = scene.world.api::<Secret>().get("laptop-key").await.unwrap();
    let token = entry(&key, "ACCESS_KEY");
    scene
        .replace_secret(
            "laptop-key",
            &[
                ("ACCESS_KEY", &token),
                ("ANTHROPIC_BASE_URL", "http://elsewhere"),
            ],
        )
        .await;
    eventually("the Secret is whole again", async || {
        let secret = scene.world.api::<Secret>().get("laptop-key").await.unwrap();
        let whole = secret.data.as_ref().is_some_and(|data| data.len() == 4)
            && entry(&secret, "ACCESS_KEY") == token;
        if whole && !entry(&secret, "ANTHROPIC_BASE_URL").contains("elsewhere") {
            Ok(())
        } else {
            Err("not yet")
        }
    })
    .await;
    scene
        .replace_secret("laptop-key", &[("ACCESS_KEY", "no-key-at-all")])
        .await;
    scene
        .condition::<AccessKey>("laptop", "KeyReady", "False", "SecretDamaged")
        .await;
    assert_eq!(
        scene.living("access_keys").await,
        1,
        "who is served stays served"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brought_key_is_read_and_never_written() {
    let scene = Scene::new().await;
    scene.everything().await;
    scene.secret("mine", &[("KEY", "too-short")]).await;
    let spec = json!({ "userRef": { "name": "alice" }, "existingSecretRef": { "name": "mine", "key": "KEY" } });
    scene.create::<AccessKey>("brought", spec.clone()).await;
    let message = scene
        .condition::<AccessKey>("brought", "KeyReady", "False", "KeyMalformed")
        .await;
    assert!(
        message.contains("bring one of 32 to 256") && !message.contains("too-short"),
        "{message}"
    );
    scene
        .replace_secret("mine", &[("KEY", &"k".repeat(40))])
        .await;
    scene.ready::<AccessKey>("brought", "Active").await;
    let secret = scene.world.api::<Secret>().get("mine").await.unwrap();
    assert_eq!(
        (secret.data.unwrap().len(), secret.metadata.annotations),
        (1, None)
    );
    scene.create::<AccessKey>("copied", spec).await;
    scene
        .condition::<AccessKey>("copied", "KeyReady", "False", "KeyInUse")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switching_off_and_deleting_end_what_is_served() {
    let scene = Scene::new().await;
    scene.everything().await;
    scene.ready::<AccessKey>("laptop", "Active").await;
    scene
        .patch::<AccessKey>("laptop", json!({ "spec": { "disabled": true } }))
        .await;
    scene.ready::<AccessKey>("laptop", "Disabled").await;
    scene
        .patch::<AccessKey>(
            "laptop",
            json!({ "spec": { "disabled": false, "expiresAt": "2020-01-01T00:00:00Z" } }),
        )
        .await;
    scene
        .condition::<AccessKey>("laptop", "Ready", "False", "Expired")
        .await;
    scene
        .patch::<ProxyUser>("alice", json!({ "spec": { "suspended": true } }))
        .await;
    scene.ready::<ProxyUser>("alice", "Suspended").await;

    scene.delete::<AccessKey>("laptop").await;
    scene.gone::<AccessKey>("laptop").await;
    assert_eq!(scene.living("access_keys").await, 0);
    assert_eq!(scene.rows("access_keys").await, 1, "history is kept");
    for (name, gone) in [("alice", "users"), ("main", "bedrock_keys")] {
        if gone == "users" {
            scene.delete::<ProxyUser>(name).await;
            scene.gone::<ProxyUser>(name).await;
        } else {
            scene.delete::<BedrockCredential>(name).await;
            scene.gone::<BedrockCredential>(name).await;
        }
        assert_eq!(scene.living(gone).await, 0, "{gone}");
    }
    scene.delete::<ProxyPool>("default").await;
    scene.gone::<ProxyPool>("default").await;
    assert_eq!(
        (scene.rows("pools").await, scene.rows("plan_keys").await),
        (0, 0)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_resource_is_left_alone_until_it_is_not() {
    let scene = Scene::new().await;
    scene.everything().await;
    scene.ready::<ProxyUser>("alice", "Active").await;
    let paused = json!({ "metadata": { "annotations": { "spillway.dev/paused": "true" } }, "spec": { "suspended": true } });
    scene.patch::<ProxyUser>("alice", paused).await;
    scene
        .condition::<ProxyUser>("alice", "Paused", "True", "Paused")
        .await;
    assert_eq!(
        scene
            .count("SELECT count(*) FROM users WHERE suspended")
            .await,
        0
    );
    scene
        .patch::<ProxyUser>(
            "alice",
            json!({ "metadata": { "annotations": { "spillway.dev/paused": null } } }),
        )
        .await;
    scene.ready::<ProxyUser>("alice", "Suspended").await;
    assert_eq!(
        scene
            .count("SELECT count(*) FROM users WHERE suspended")
            .await,
        1
    );
    let conditions = scene
        .get::<ProxyUser>("alice")
        .await
        .status
        .unwrap()
        .conditions;
    assert!(
        conditions
            .iter()
            .all(|condition| condition.type_ != "Paused"),
        "{conditions:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxies_objects_are_kept_as_they_are_to_be() {
    let scene = Scene::new().await;
    scene.everything().await;
    scene
        .condition::<ProxyPool>("default", "Ready", "False", "ProxiesStarting")
        .await;
    scene
        .patch::<Deployment>("spillway-default", json!({ "spec": { "replicas": 7 } }))
        .await;
    eventually("the number of proxies is the pool's", async || match scene
        .get::<Deployment>("spillway-default")
        .await
        .spec
        .unwrap()
        .replicas
    {
        Some(2) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    scene.delete::<Service>("spillway-default").await;
    eventually("the Service is back", async || {
        scene.world.api::<Service>().get("spillway-default").await
    })
    .await;
    scene
        .patch::<ProxyPool>(
            "default",
            json!({ "spec": { "service": { "port": 8080 } } }),
        )
        .await;
    eventually("keys follow the pool's URL", async || {
        let secret = scene.get::<Secret>("laptop-key").await;
        if entry(&secret, "ANTHROPIC_BASE_URL").ends_with(".svc:8080") {
            Ok(())
        } else {
            Err(entry(&secret, "ANTHROPIC_BASE_URL"))
        }
    })
    .await;
}
