//! Who may no longer ask is refused at once, everywhere, with words that say why.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::message::Answer;
use crate::support::wait::PATIENCE;
use crate::support::{Tenant, World, eventually};

/// Far below the time after which a proxy reloads its keys unasked: what is refused sooner was refused because it was told.
const AT_ONCE: Duration = Duration::from_secs(5);

pub async fn deleted(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "deleted", 2).await;
    world.served(&key, "before", false).await;
    let rows = tenant.usage(1).await;
    let proxies = tenant.proxies().await;
    assert_eq!(proxies.len(), 2);

    let watching = proxies.iter().map(|proxy| {
        let (world, proxy, token) = (Arc::clone(&world), proxy.clone(), key.token.clone());
        tokio::spawn(async move {
            loop {
                let answer = world
                    .try_ask(&proxy, &token, "after", false)
                    .await
                    .expect("an answer");
                if answer.status != 200 {
                    return (Utc::now(), answer);
                }
            }
        })
    });
    let watching: Vec<_> = watching.collect();
    world
        .delete("AccessKey", "deleted", "laptop", &DeleteParams::default())
        .await;
    for (proxy, refused) in proxies.iter().zip(watching) {
        let (at, answer) = timeout(PATIENCE, refused)
            .await
            .expect("the key is refused")
            .unwrap();
        assert_eq!(answer.status, 401);
        assert_eq!(
            (answer.error_type().as_str(), answer.should_retry.as_deref()),
            ("authentication_error", Some("false"))
        );
        let committed = committed(&world).await;
        let after = (at - committed).to_std().unwrap_or_default();
        println!(
            "    {proxy} refused the key {} ms after the commit",
            after.as_millis()
        );
        assert!(after < AT_ONCE, "{proxy} went on for {after:?}");
    }

    world.gone("AccessKey", "deleted", "laptop").await;
    world.gone("Secret", "deleted", "laptop").await;
    let after = world.usage("deleted").await;
    assert!(
        after.len() >= rows.len()
            && after
                .iter()
                .all(|row| row.key_name == "laptop" && row.user_name == "alice"),
        "{after:?}"
    );
}

async fn committed(world: &World) -> DateTime<Utc> {
    let query = "SELECT deleted_at FROM access_keys WHERE namespace = 'deleted' AND name = 'laptop' AND deleted_at IS NOT NULL ORDER BY deleted_at DESC LIMIT 1";
    sqlx::query_scalar(query)
        .fetch_one(world.database().await)
        .await
        .expect("the row is kept, marked as deleted")
}

pub async fn standing(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "standing", 1).await;
    let patch = async |kind: &str, name: &str, spec: Value| {
        world
            .patch(kind, "standing", name, json!({ "spec": spec }))
            .await;
    };
    let ask = async || world.ask(&key, "hello", false).await;
    let becomes_refused = async |word: &str| {
        let answer = eventually("the key is refused", async || refused(ask().await)).await;
        assert_eq!(
            (answer.status, answer.error_type().as_str()),
            (403, "permission_error")
        );
        assert!(
            answer.error_message().contains(word),
            "{}",
            answer.error_message()
        );
        assert_eq!(answer.should_retry.as_deref(), Some("false"));
    };
    let heals = async || eventually("the key is served again", async || served(ask().await)).await;
    let reason = async |kind: &str, name: &str, reason: &str| {
        let says = |object: &Value| {
            object["status"]["conditions"]
                .as_array()
                .is_some_and(|all| {
                    all.iter()
                        .any(|one| one["type"] == "Ready" && one["reason"] == reason)
                })
        };
        world
            .wait(kind, "standing", name, &format!("says {reason}"), says)
            .await;
    };
    heals().await;

    patch("AccessKey", "laptop", json!({ "disabled": true })).await;
    becomes_refused("disabled").await;
    reason("AccessKey", "laptop", "Disabled").await;
    patch("AccessKey", "laptop", json!({ "disabled": false })).await;
    heals().await;

    patch("ProxyUser", "alice", json!({ "suspended": true })).await;
    becomes_refused("suspended").await;
    reason("ProxyUser", "alice", "Suspended").await;
    patch("ProxyUser", "alice", json!({ "suspended": false })).await;
    heals().await;

    let soon = Utc::now() + chrono::TimeDelta::seconds(2);
    patch(
        "AccessKey",
        "laptop",
        json!({ "expiresAt": soon.format("%FT%TZ").to_string() }),
    )
    .await;
    becomes_refused("expired").await;
    reason("AccessKey", "laptop", "Expired").await;
    patch("AccessKey", "laptop", json!({ "expiresAt": null })).await;
    heals().await;
    world.ready("AccessKey", tenant.name, "laptop").await;
}

fn refused(answer: Answer) -> Result<Answer, String> {
    if answer.status == 200 {
        Err("200".to_owned())
    } else {
        Ok(answer)
    }
}

fn served(answer: Answer) -> Result<Answer, String> {
    if answer.status == 200 {
        Ok(answer)
    } else {
        Err(answer.error_message())
    }
}
