//! Master secrets are made once, verified always, and copied to pool namespaces.

use crate::support::{OperatorProcess, World, create_namespace, eventually};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use secrecy::SecretString;
use serde_json::json;
use spillway_core::domain::pool::SecretKind;
use spillway_core::repository::leadership;
use spillway_operator::master_secrets::{
    COPIED_FROM_ANNOTATION, MasterSecretError, MasterSecrets, secret_name,
};
use spillway_operator::settings::GivenSecrets;

const HASHER: &str = secret_name(SecretKind::Hasher);
const ENCRYPTION: &str = secret_name(SecretKind::Encryption);

fn masters(world: &World, given: GivenSecrets) -> MasterSecrets {
    MasterSecrets::new(world.client.clone(), world.namespace.clone(), given, None)
}

fn data(secret: &Secret, key: &str) -> Option<ByteString> {
    secret.data.as_ref()?.get(key).cloned()
}

fn start(world: &World) -> OperatorProcess {
    OperatorProcess::run(world, world.database.url().as_str(), &[], &[])
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_made_once_and_belong_to_nobody() {
    let world = World::new().await;
    let secrets: Api<Secret> = world.api();
    let mut operator = start(&world);
    operator.ready_leader().await;
    let made = [
        secrets.get(HASHER).await.unwrap(),
        secrets.get(ENCRYPTION).await.unwrap(),
    ];
    assert!(
        made.iter()
            .all(|secret| secret.metadata.owner_references.is_none())
    );
    let (_, metrics) = operator.admin("/metrics").await.unwrap();
    assert!(
        metrics.contains("spillway_master_secret_age_seconds{purpose=\"hasher\"}"),
        "{metrics}"
    );
    operator.signal("TERM").await;
    assert!(operator.ended().await.success());

    let again = start(&world);
    again.ready_leader().await;
    assert_eq!(
        made,
        [
            secrets.get(HASHER).await.unwrap(),
            secrets.get(ENCRYPTION).await.unwrap()
        ]
    );
}

/// Waits until a leader says so; it goes on leading, for finalizers and conditions are its to see to.
async fn told(operator: &OperatorProcess, words: &str) {
    eventually("the operator tells", async || {
        let log = operator.log();
        if log.contains(words) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_value_is_refused_by_name_with_the_fix() {
    let world = World::new().await;
    let mut operator = start(&world);
    operator.ready_leader().await;
    operator.signal("TERM").await;
    operator.ended().await;
    let changed = json!({ "stringData": { "PROXY_KEY_HASHER_SECRET": "1:somebody-elses-secret-0123456789" } });
    world
        .api::<Secret>()
        .patch(HASHER, &PatchParams::default(), &Patch::Merge(&changed))
        .await
        .unwrap();

    let refused = start(&world);
    let place = format!(
        "Secret {}/{HASHER}, key PROXY_KEY_HASHER_SECRET: secret id 1 is not the one",
        world.namespace
    );
    told(&refused, &place).await;
    let log = refused.log();
    assert!(log.contains("Put the former value back"), "{log}");
    assert!(!log.contains("somebody-elses-secret"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_one_is_not_made_again() {
    let world = World::new().await;
    let mut operator = start(&world);
    operator.ready_leader().await;
    operator.signal("TERM").await;
    operator.ended().await;
    let secrets: Api<Secret> = world.api();
    let lost = secrets.get(ENCRYPTION).await.unwrap();
    secrets
        .delete(ENCRYPTION, &DeleteParams::default())
        .await
        .unwrap();

    let waiting = start(&world);
    told(
        &waiting,
        &format!("Secret {}/{ENCRYPTION}", world.namespace),
    )
    .await;
    assert!(secrets.get_opt(ENCRYPTION).await.unwrap().is_none());

    // Put back from a backup, it serves again.
    let mut restored = Secret {
        data: lost.data,
        ..Secret::default()
    };
    restored.metadata.name = Some(ENCRYPTION.to_owned());
    secrets
        .create(&PostParams::default(), &restored)
        .await
        .unwrap();
    waiting.ready_leader().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pool_namespaces_get_copies_and_a_differing_one_is_refused() {
    let (world, pool) = World::migrated().await;
    let fence = leadership::acquire(&pool, "cluster", "test").await.unwrap();
    let masters = masters(&world, GivenSecrets::default());
    let keys = masters.establish(&pool, &fence).await.unwrap();
    let pools = create_namespace(&world.client, &[]).await;
    let refs = masters.ensure_copies(&keys, &pools).await.unwrap();
    assert_eq!(
        (refs.hasher.name.as_str(), refs.hasher.key.as_str()),
        (HASHER, "PROXY_KEY_HASHER_SECRET")
    );
    assert_eq!(refs.encryption.unwrap().name, ENCRYPTION);

    let copies: Api<Secret> = Api::namespaced(world.client.clone(), &pools);
    let (original, copy) = (
        world.api::<Secret>().get(HASHER).await.unwrap(),
        copies.get(HASHER).await.unwrap(),
    );
    assert_eq!(
        data(&original, "PROXY_KEY_HASHER_SECRET"),
        data(&copy, "PROXY_KEY_HASHER_SECRET")
    );
    assert_eq!(
        copy.metadata.annotations.unwrap()[COPIED_FROM_ANNOTATION],
        format!("{}/{HASHER}", world.namespace)
    );

    let changed =
        json!({ "stringData": { "PROXY_KEY_HASHER_SECRET": "1:another-secret-0123456789" } });
    let changed = copies
        .patch(HASHER, &PatchParams::default(), &Patch::Merge(&changed))
        .await
        .unwrap();
    let refused = masters
        .ensure_copies(&keys, &pools)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.starts_with(&format!(
            "Secret {pools}/{HASHER}, key PROXY_KEY_HASHER_SECRET, is not"
        )),
        "{refused}"
    );
    assert_eq!(
        copies.get(HASHER).await.unwrap(),
        changed,
        "it is not overwritten"
    );
    copies
        .delete(HASHER, &DeleteParams::default())
        .await
        .unwrap();
    masters.ensure_copies(&keys, &pools).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn given_ones_are_taken_verified_and_may_rotate() {
    let (world, pool) = World::migrated().await;
    let given = |hasher: &str| GivenSecrets {
        hasher: Some(SecretString::from(hasher)),
        encryption: Some(SecretString::from("0123456789abcdef0123456789abcdef")),
    };
    let fence = leadership::acquire(&pool, "cluster", "test").await.unwrap();
    masters(&world, given("a:first-secret-0123456789"))
        .establish(&pool, &fence)
        .await
        .unwrap();
    assert!(
        world
            .api::<Secret>()
            .get_opt(HASHER)
            .await
            .unwrap()
            .is_none(),
        "what is given is not made"
    );
    let rotated = masters(
        &world,
        given("b:second-secret-0123456789,a:first-secret-0123456789"),
    );
    rotated.establish(&pool, &fence).await.unwrap();
    let wrong = masters(&world, given("a:second-secret-0123456789"))
        .establish(&pool, &fence)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&wrong, MasterSecretError::Mismatch { id, .. } if id == "a"),
        "{wrong}"
    );
    assert!(
        wrong
            .to_string()
            .starts_with("PROXY_KEY_HASHER_SECRET of the operator's environment"),
        "{wrong}"
    );
    // Another cluster of the same database has secrets of its own.
    let other = leadership::acquire(&pool, "other-cluster", "test")
        .await
        .unwrap();
    masters(&world, given("a:second-secret-0123456789"))
        .establish(&pool, &other)
        .await
        .unwrap();
}
