//! Circuits in the status of their pool, and their reset.

use std::time::Duration;

use serde_json::json;
use spillway_core::repository::circuits::{self, CircuitName, Opening};
use spillway_crds::{CircuitState, CircuitStatus, ProxyPool, RESET_CIRCUIT_ANNOTATION};
use uuid::Uuid;

use crate::scene::Scene;
use crate::support::eventually;

/// Long enough for the operator to look twice: what must not happen cannot be waited for.
const A_WHILE: Duration = Duration::from_secs(5);

/// A pool with a Plan key, as it is stored: their rows.
async fn stored(scene: &Scene) -> (Uuid, Uuid) {
    scene.everything().await;
    scene.proxies_are_ready(2).await;
    scene.ready::<ProxyPool>("default", "Serving").await;
    sqlx::query_as("SELECT id, plan_key_id FROM pools")
        .fetch_one(&scene.pool)
        .await
        .unwrap()
}

async fn open(
    scene: &Scene,
    (pool, credential): (Uuid, Uuid),
    model: Option<&str>,
    reason: &str,
    resets: i64,
) -> (CircuitName, Uuid) {
    let opening = Opening {
        name: CircuitName {
            credential,
            model: model.map(str::to_owned),
        },
        id: Uuid::new_v4(),
        reason: reason.to_owned(),
        age: Duration::ZERO,
        pause: Duration::from_secs(if model.is_some() { 1 } else { 1800 }),
    };
    assert!(
        circuits::open(&scene.pool, pool, resets, &opening)
            .await
            .unwrap()
    );
    (opening.name, opening.id)
}

async fn shown(scene: &Scene) -> Vec<CircuitStatus> {
    let pool = scene.get::<ProxyPool>("default").await;
    pool.status.unwrap_or_default().circuits
}

async fn until_shown(scene: &Scene, wanted: &[(Option<&str>, CircuitState, &str)]) {
    eventually("the status shows them", async || {
        let circuits = shown(scene).await;
        let short: Vec<_> = circuits
            .iter()
            .map(|it| (it.model.as_deref(), it.state, it.reason.as_str()))
            .collect();
        if short == wanted {
            Ok(())
        } else {
            Err(format!("{short:?}\n{}", scene.operator.log()))
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn they_are_in_status_until_they_close_and_a_refused_key_is_an_event() {
    let mut scene = Scene::new().await;
    let ids = stored(&scene).await;
    let (name, opening) = open(&scene, ids, None, "account", 0).await;
    open(&scene, ids, Some("claude-a"), "rate_limited", 0).await;
    let both = [
        (None, CircuitState::Open, "Account"),
        (Some("claude-a"), CircuitState::HalfOpen, "RateLimited"),
    ];
    until_shown(&scene, &both).await;
    let credential = format!("{}/plan/API_KEY", scene.world.namespace);
    let circuits = shown(&scene).await;
    assert_eq!(circuits[0].credential, credential);
    let pause = circuits[0]
        .retry_at
        .0
        .duration_since(circuits[0].opened_at.0);
    assert!((1799..=1801).contains(&pause.as_secs()), "{pause:?}");
    let note = scene.event("PlanRefused").await;
    assert!(
        note.contains(&credential) && note.contains(RESET_CIRCUIT_ANNOTATION),
        "{note}"
    );

    scene.settled().await;
    let before = scene.versions().await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(scene.versions().await, before, "nothing changed");
    scene.restart().await;
    scene.reconciled_at_least(4).await;
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(scene.versions().await, before, "nor for a new leader");

    // What the controllers write leaves it alone.
    scene.proxies_are_ready(1).await;
    scene
        .condition::<ProxyPool>("default", "Ready", "False", "ProxiesStarting")
        .await;
    until_shown(&scene, &both).await;

    assert!(
        circuits::close(&scene.pool, ids.0, &name, opening)
            .await
            .unwrap()
    );
    until_shown(&scene, &both[1..]).await;
    scene.delete::<ProxyPool>("default").await;
    scene.gone::<ProxyPool>("default").await;
    assert_eq!(scene.rows("circuit_states").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_annotation_closes_them_once_for_each_new_value() {
    let mut scene = Scene::new().await;
    let ids = stored(&scene).await;
    let annotate = async |scene: &Scene, value: &str| {
        let annotations = json!({ RESET_CIRCUIT_ANNOTATION: value });
        let patch = json!({ "metadata": { "annotations": annotations } });
        scene.patch::<ProxyPool>("default", patch).await;
    };
    let until_closed = async |scene: &Scene| {
        eventually("they are closed", async || {
            match scene.rows("circuit_states").await {
                0 => Ok(()),
                open => Err(format!("{open} are open: {}", scene.operator.log())),
            }
        })
        .await;
    };
    open(&scene, ids, None, "account", 0).await;
    open(&scene, ids, Some("claude-a"), "overloaded", 0).await;
    annotate(&scene, "monday").await;
    until_closed(&scene).await;
    let note = scene.event("CircuitsReset").await;
    assert!(note.contains("2 circuits were closed"), "{note}");
    until_shown(&scene, &[]).await;

    open(&scene, ids, None, "overloaded", 1).await;
    scene
        .patch::<ProxyPool>(
            "default",
            json!({ "spec": { "usageReportInterval": "10s" } }),
        )
        .await;
    scene.ready::<ProxyPool>("default", "Serving").await;
    annotate(&scene, "monday").await;
    scene.restart().await;
    scene.reconciled_at_least(4).await;
    scene.settled().await;
    assert_eq!(
        scene.rows("circuit_states").await,
        1,
        "it was handled before"
    );
    annotate(&scene, "tuesday").await;
    until_closed(&scene).await;
    assert_eq!(
        scene
            .count("SELECT number FROM circuit_resets WHERE handled = 'tuesday'")
            .await,
        2
    );
}
