//! Postgres is away, and nobody with a valid key notices.

use std::collections::BTreeSet;
use std::sync::Arc;

use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::Kind;

use crate::support::tenant::Key;
use crate::support::{Tenant, World, eventually};

/// A well-formed key that nobody gave out.
fn unknown() -> String {
    AccessKeyToken::generate()
        .expect("a key")
        .expose()
        .to_owned()
}

pub async fn serving(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "away", 2).await;
    let proxies = tenant.proxies().await;
    let refused = world
        .try_ask(&proxies[0], &unknown(), "hello", false)
        .await
        .unwrap();
    assert_eq!(
        refused.status, 401,
        "with Postgres there, an unknown key is known to be none"
    );

    world.stop_postgres().await;
    for proxy in &proxies {
        cannot_tell(&world, proxy).await;
        for number in 0..10 {
            let own = Key {
                base: proxy.clone(),
                ..key.clone()
            };
            world
                .served(&own, &format!("request {number}"), number % 2 == 0)
                .await;
        }
    }
    for _ in 0..5 {
        world.served(&key, "through the Service", false).await;
    }
    world.start_postgres().await;
    is_written_once(&tenant, 25).await;
}

pub async fn restart(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "restart", 1).await;
    world.served(&key, "before", false).await;
    tenant.usage(1).await;
    world.stop_postgres().await;
    let pod = tenant.proxy_pods().await.remove(0);
    world.kill(&pod).await;
    world.restarted(&pod).await;
    let proxy = tenant.proxies().await.remove(0);
    let own = Key {
        base: proxy.clone(),
        ..key.clone()
    };
    world.served(&own, "the key is known", false).await;
    world.served(&own, "and the credentials", true).await;
    cannot_tell(&world, &proxy).await;
    world.start_postgres().await;
    is_written_once(&tenant, 3).await;
    let becomes_unknown = async || {
        let answer = world
            .try_ask(&proxy, &unknown(), "hello", false)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status == 401 {
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    };
    eventually("the proxy asks Postgres again", becomes_unknown).await;
}

/// An unknown key is told to try later, for it may be a new one.
async fn cannot_tell(world: &World, proxy: &str) {
    let answer = eventually("the proxy knows that Postgres is away", async || {
        let answer = world
            .try_ask(proxy, &unknown(), "hello", false)
            .await
            .map_err(|error| error.to_string())?;
        if answer.status == 503 {
            Ok(answer)
        } else {
            Err(answer.status.to_string())
        }
    })
    .await;
    assert_eq!(answer.error_type(), "overloaded_error");
    let wait: u32 = answer
        .retry_after
        .expect("it says when to try again")
        .parse()
        .expect("whole seconds");
    assert!(wait > 0);
}

/// What the upstream answered, and what Postgres has, are the same requests.
async fn is_written_once(tenant: &Tenant, requests: usize) {
    let answered = tenant.fakes.generated(Kind::Plan).await;
    assert_eq!(answered.len(), requests);
    let rows = tenant.usage(requests).await;
    assert_eq!(rows.len(), requests, "each request once");
    let ids: BTreeSet<_> = answered
        .iter()
        .map(|exchange| Some(exchange.answer.request_id.clone()))
        .collect();
    assert_eq!(
        rows.iter()
            .map(|row| row.upstream_request_id.clone())
            .collect::<BTreeSet<_>>(),
        ids
    );
    assert!(rows.iter().all(|row| row.status == "ok"), "{rows:?}");
}
