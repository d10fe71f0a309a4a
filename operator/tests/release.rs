//! `release` lets every resource go, with a leader running. In a test program of its own, for it acts on every namespace.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod support;

use kube::ResourceExt;
use kube::api::PostParams;
use serde_json::json;
use spillway_crds::{AccessKey, BedrockCredential, FINALIZER, ProxyPool, ProxyUser};
use support::{OperatorProcess, World, eventually};

const KINDS: [&str; 4] = ["ProxyPool", "ProxyUser", "AccessKey", "BedrockCredential"];

/// Makes one object of each kind.
async fn objects(world: &World) {
    macro_rules! create {
        ($kind:ident, $name:literal, $spec:tt) => {
            let manifest = json!({
                "apiVersion": "spillway.dev/v1alpha1", "kind": stringify!($kind),
                "metadata": { "name": $name, "finalizers": ["example.org/kept"] }, "spec": $spec,
            });
            let object: $kind = serde_json::from_value(manifest).unwrap();
            world.api::<$kind>().create(&PostParams::default(), &object).await.unwrap();
        };
    }
    create!(ProxyPool, "default", {});
    create!(ProxyUser, "alice", { "email": "alice@example.com" });
    create!(AccessKey, "laptop", { "userRef": { "name": "alice" }, "secretName": "laptop-key" });
    create!(BedrockCredential, "bedrock", { "region": "eu-west-1", "auth": { "podIdentity": {} } });
}

async fn finalizers(world: &World) -> Vec<Vec<String>> {
    vec![
        world
            .api::<ProxyPool>()
            .get("default")
            .await
            .unwrap()
            .finalizers()
            .to_vec(),
        world
            .api::<ProxyUser>()
            .get("alice")
            .await
            .unwrap()
            .finalizers()
            .to_vec(),
        world
            .api::<AccessKey>()
            .get("laptop")
            .await
            .unwrap()
            .finalizers()
            .to_vec(),
        world
            .api::<BedrockCredential>()
            .get("bedrock")
            .await
            .unwrap()
            .finalizers()
            .to_vec(),
    ]
}

async fn release(world: &World) -> String {
    let args = ["release", "--namespace", &world.namespace];
    let output = OperatorProcess::command(&args, &[]).output().await.unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_is_let_go_and_the_leader_does_not_take_it_back() {
    let world = World::new().await;
    let mut operator = OperatorProcess::run(&world, world.database.url().as_str(), &[], &[]);
    operator.ready_leader().await;
    objects(&world).await;
    eventually("every kind has the finalizer", async || {
        let all = finalizers(&world).await;
        let missing: Vec<_> = KINDS
            .iter()
            .zip(&all)
            .filter(|(_, f)| !f.iter().any(|f| f == FINALIZER))
            .collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}\n{}", operator.log()))
        }
    })
    .await;

    let released = release(&world).await;
    let count = released
        .strip_prefix("released ")
        .and_then(|text| text.split(' ').next()?.parse::<u32>().ok());
    // Other namespaces may hold what former tests left behind.
    assert!(count.is_some_and(|count| count >= 4), "{released}");
    assert_eq!(
        finalizers(&world).await,
        vec![vec!["example.org/kept".to_owned()]; 4],
        "foreign finalizers stay"
    );
    assert_eq!(
        operator.ended().await.code(),
        Some(1),
        "the leader stops: {}",
        operator.log()
    );
    assert!(
        operator.log().contains("not the leader any more"),
        "{}",
        operator.log()
    );
    assert_eq!(
        release(&world).await,
        "released 0 resources\n",
        "again does no harm"
    );
}
