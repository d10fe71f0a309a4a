//! One leader at a time: elected by the Lease, fenced in Postgres.

use std::time::Duration;

use crate::support::{Gate, OperatorProcess, World, eventually, within};
use k8s_openapi::api::coordination::v1::Lease;
use spillway_core::repository::RepositoryError;
use spillway_core::repository::leadership::{self, Fence};
use spillway_operator::leader::{Elector, Lost, Timing};
use tokio::time::Instant;

/// What the issue promises for the takeover of a leader that was killed.
const TAKEOVER: Duration = Duration::from_secs(20);

async fn two_replicas(world: &World) -> (OperatorProcess, OperatorProcess) {
    let url = world.database.url().to_string();
    let first = OperatorProcess::run(world, &url, &["--replica", "first"], &[]);
    first.ready_leader().await;
    let second = OperatorProcess::run(world, &url, &["--replica", "second"], &[]);
    eventually("the second stands by", async || {
        match second.admin("/readyz").await {
            Ok((200, body)) if body.contains("standby") => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_is_replaced_within_20_seconds() {
    let world = World::new().await;
    let (mut first, second) = two_replicas(&world).await;
    assert!(!second.leads().await, "one leader at a time");
    let before = world
        .api::<Lease>()
        .get("spillway-operator")
        .await
        .unwrap()
        .spec
        .unwrap();
    assert!(before.holder_identity.unwrap().starts_with("first_"));

    first.signal("KILL").await;
    let killed = Instant::now();
    first.ended().await;
    within(TAKEOVER, "the second leads", async || {
        if second.leads().await {
            Ok(())
        } else {
            Err("standby")
        }
    })
    .await;
    assert!(killed.elapsed() < TAKEOVER);
    second.ready_leader().await;
    let after = world
        .api::<Lease>()
        .get("spillway-operator")
        .await
        .unwrap()
        .spec
        .unwrap();
    assert!(after.holder_identity.unwrap().starts_with("second_"));
    assert_eq!(
        after.lease_transitions,
        Some(before.lease_transitions.unwrap_or(0) + 1)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_asked_to_stop_hands_over_at_once() {
    let world = World::new().await;
    let (mut first, second) = two_replicas(&world).await;
    first.signal("TERM").await;
    assert!(first.ended().await.success(), "{}", first.log());
    // The Lease would last for 15 s more, had it not been released.
    within(Duration::from_secs(8), "the second leads", async || {
        if second.leads().await {
            Ok(())
        } else {
            Err("standby")
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_frozen_ends_when_it_wakes() {
    let world = World::new().await;
    let (mut first, second) = two_replicas(&world).await;
    first.signal("STOP").await;
    within(TAKEOVER, "the second leads", async || {
        if second.leads().await {
            Ok(())
        } else {
            Err("standby")
        }
    })
    .await;
    first.signal("CONT").await;
    assert_eq!(first.ended().await.code(), Some(1), "{}", first.log());
    assert!(
        first.log().contains("not the leader any more"),
        "{}",
        first.log()
    );
    assert!(second.leads().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_cannot_renew_gives_up_before_another_may_lead() {
    let world = World::new().await;
    let timing = Timing {
        lease_duration: Duration::from_secs(3),
        renew_deadline: Duration::from_secs(2),
        retry_period: Duration::from_millis(200),
        request_timeout: Duration::from_millis(500),
    };
    let gate = Gate::before(&crate::support::api_server().await).await;
    let client = crate::support::client_through(&gate).await;
    let held = Elector::new(
        client,
        &world.namespace,
        "lease",
        "first".to_owned(),
        timing,
    )
    .acquire()
    .await;
    let holding = tokio::spawn(held.hold(std::future::pending()));
    let second = Elector::new(
        world.client.clone(),
        &world.namespace,
        "lease",
        "second".to_owned(),
        timing,
    );
    let candidate = tokio::spawn(second.acquire());
    gate.shut();
    let cut_off = Instant::now();
    let lost = holding
        .await
        .unwrap()
        .err()
        .expect("the leadership is over");
    assert!(matches!(lost, Lost::NotRenewed(_)), "{lost:?}");
    assert!(
        cut_off.elapsed() < timing.lease_duration,
        "{:?}",
        cut_off.elapsed()
    );
    assert!(!candidate.is_finished(), "the other one does not lead yet");
    candidate.await.unwrap();
    assert!(cut_off.elapsed() >= timing.renew_deadline);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_cannot_commit() {
    let (_world, pool) = World::migrated().await;
    let first = leadership::acquire(&pool, "cluster", "first")
        .await
        .unwrap();
    let begun = leadership::fenced(&pool, &first).await.unwrap();
    let successor = tokio::spawn({
        let pool = pool.clone();
        async move {
            leadership::acquire(&pool, "cluster", "second")
                .await
                .unwrap()
        }
    });
    // What began before is not torn: the successor waits for it.
    leadership::commit(begun).await.unwrap();
    let second: Fence = successor.await.unwrap();
    let refused = leadership::fenced(&pool, &first).await.unwrap_err();
    assert!(
        matches!(refused, RepositoryError::Deposed { .. }),
        "{refused}"
    );
    leadership::commit(leadership::fenced(&pool, &second).await.unwrap())
        .await
        .unwrap();
    let other_cluster = leadership::acquire(&pool, "other", "third").await.unwrap();
    leadership::fenced(&pool, &other_cluster).await.unwrap();
    leadership::fenced(&pool, &second).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_epoch_was_taken_ends() {
    let world = World::new().await;
    let pool = world.database.pool().await;
    let mut operator = OperatorProcess::run(&world, world.database.url().as_str(), &[], &[]);
    operator.ready_leader().await;
    leadership::acquire(&pool, &world.cluster_id().await, "another installation")
        .await
        .unwrap();
    assert_eq!(operator.ended().await.code(), Some(1), "{}", operator.log());
    assert!(
        operator
            .log()
            .contains("another operator has taken over this cluster"),
        "{}",
        operator.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_waits_for_postgres_and_tells_so() {
    let world = World::new().await;
    let gate = Gate::before(&world.database.url()).await;
    gate.shut();
    let operator = OperatorProcess::run(
        &world,
        gate.through(&world.database.url()).as_str(),
        &[],
        &[],
    );
    eventually("it leads without Postgres", async || {
        match operator.admin("/readyz").await {
            Ok((503, body)) if body.contains("leader") && body.contains("cannot be reached") => {
                Ok(())
            }
            answer => Err(format!("{answer:?}\n{}", operator.log())),
        }
    })
    .await;
    assert_eq!(operator.admin("/healthz").await.unwrap().0, 200);
    assert_eq!(
        operator.metric("spillway_operator_database_up").await,
        Some(0.0)
    );
    gate.open();
    operator.ready_leader().await;
    assert_eq!(
        operator.metric("spillway_operator_database_up").await,
        Some(1.0)
    );

    gate.shut();
    eventually("it notices the outage", async || {
        match operator.admin("/readyz").await {
            Ok((503, _)) => Ok(()),
            answer => Err(format!("{answer:?}")),
        }
    })
    .await;
    gate.open();
    operator.ready_leader().await;
}
