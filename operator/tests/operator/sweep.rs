//! The sweep deletes rows whose resource is gone, and no others.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::{Gate, OperatorProcess, World, create_namespace, eventually, within};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use spillway_core::repository::leadership::{self, Fence};
use spillway_core::repository::users::{self, UserRow};
use spillway_core::repository::{Origin, PgPool};
use spillway_crds::{ProxyPool, ProxyUser};
use spillway_operator::database::Session;
use spillway_operator::master_secrets::MasterSecrets;
use spillway_operator::settings::{GivenSecrets, WatchScope};
use spillway_operator::sweep::{SweepError, sweep};

async fn session(world: &World, pool: &PgPool, cluster_id: &str) -> Session {
    let fence = leadership::acquire(pool, cluster_id, "test").await.unwrap();
    let masters = MasterSecrets::new(
        world.client.clone(),
        world.namespace.clone(),
        GivenSecrets::default(),
        None,
    );
    let keys = masters.establish(pool, &fence).await.unwrap();
    Session {
        pool: pool.clone(),
        fence,
        keys,
    }
}

async fn user_row(pool: &PgPool, fence: &Fence, namespace: &str, name: &str, uid: &str) {
    let origin = Origin {
        cluster_id: fence.cluster_id.clone(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    };
    let user = UserRow {
        email: None,
        display_name: None,
        pool_id: None,
        suspended: false,
        allowed_models: Vec::new(),
        plan_key_id: None,
        bedrock_key_id: None,
    };
    let mut transaction = leadership::fenced(pool, fence).await.unwrap();
    users::upsert(&mut transaction, &origin, &user)
        .await
        .unwrap();
    leadership::commit(transaction).await.unwrap();
}

async fn living(pool: &PgPool, cluster_id: &str) -> BTreeSet<String> {
    let mut connection = pool.acquire().await.unwrap();
    users::living(&mut connection, cluster_id)
        .await
        .unwrap()
        .into_iter()
        .map(|(_, uid)| uid)
        .collect()
}

async fn user(client: &Client, namespace: &str, name: &str) -> String {
    let users: Api<ProxyUser> = Api::namespaced(client.clone(), namespace);
    let manifest = json!({
        "apiVersion": "spillway.dev/v1alpha1", "kind": "ProxyUser",
        "metadata": { "name": name }, "spec": { "email": "alice@example.com" },
    });
    let user: ProxyUser = serde_json::from_value(manifest).unwrap();
    users
        .create(&PostParams::default(), &user)
        .await
        .unwrap()
        .metadata
        .uid
        .unwrap()
}

fn set<const N: usize>(uids: [&str; N]) -> BTreeSet<String> {
    uids.into_iter().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_rows_of_this_cluster_in_watched_namespaces_are_swept() {
    let (world, pool) = World::migrated().await;
    let unwatched = create_namespace(&world.client, &[]).await;
    let session = session(&world, &pool, "ours").await;
    let other = leadership::acquire(&pool, "theirs", "test").await.unwrap();
    let there = user(&world.client, &world.namespace, "there").await;
    user_row(&pool, &session.fence, &world.namespace, "there", &there).await;
    user_row(&pool, &session.fence, &world.namespace, "gone", "uid-gone").await;
    user_row(
        &pool,
        &session.fence,
        &unwatched,
        "unwatched",
        "uid-unwatched",
    )
    .await;
    user_row(
        &pool,
        &other,
        &world.namespace,
        "gone",
        "uid-of-another-cluster",
    )
    .await;

    let scope = WatchScope::Named([world.namespace.clone()].into());
    assert_eq!(sweep(&world.client, &session, &scope).await.unwrap(), 1);
    assert_eq!(living(&pool, "ours").await, set([&there, "uid-unwatched"]));
    assert_eq!(
        living(&pool, "theirs").await,
        set(["uid-of-another-cluster"])
    );
    assert_eq!(
        sweep(&world.client, &session, &scope).await.unwrap(),
        0,
        "nothing is swept twice"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_fails_sweeps_nothing() {
    let (world, pool) = World::migrated().await;
    let forbidden = create_namespace(&world.client, &[]).await;
    let session = session(&world, &pool, "ours").await;
    user_row(&pool, &session.fence, &world.namespace, "gone", "uid-gone").await;
    user_row(&pool, &session.fence, &forbidden, "gone", "uid-unknown").await;

    // May list users in one of the two namespaces: half a list is no list.
    let client = crate::support::client_that_may_only_list(&world, "proxyusers").await;
    let scope = WatchScope::Named([world.namespace.clone(), forbidden].into());
    let failed = sweep(&client, &session, &scope).await.unwrap_err();
    assert!(matches!(failed, SweepError::List { .. }), "{failed}");
    assert_eq!(
        living(&pool, "ours").await,
        set(["uid-gone", "uid-unknown"])
    );
    let refused = sweep(&client, &session, &WatchScope::All)
        .await
        .unwrap_err();
    assert!(matches!(refused, SweepError::List { .. }), "{refused}");
    assert_eq!(
        living(&pool, "ours").await,
        set(["uid-gone", "uid-unknown"])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_sweeps_nothing() {
    let (world, pool) = World::migrated().await;
    let session = session(&world, &pool, "ours").await;
    user_row(&pool, &session.fence, &world.namespace, "gone", "uid-gone").await;
    leadership::acquire(&pool, "ours", "successor")
        .await
        .unwrap();
    let scope = WatchScope::Named([world.namespace.clone()].into());
    assert!(matches!(
        sweep(&world.client, &session, &scope).await,
        Err(SweepError::Database(_))
    ));
    assert_eq!(living(&pool, "ours").await, set(["uid-gone"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_while_postgres_is_away_takes_effect_on_its_return() {
    let (world, pool) = World::migrated().await;
    let gate = Gate::before(&world.database.url()).await;
    let url = gate.through(&world.database.url());
    let operator = OperatorProcess::run(&world, url.as_str(), &[], &[]);
    operator.ready_leader().await;
    let cluster_id = world.cluster_id().await;
    let manifest = json!({
        "apiVersion": "spillway.dev/v1alpha1", "kind": "ProxyPool",
        "metadata": { "name": "default" }, "spec": {},
    });
    let default_pool: ProxyPool = serde_json::from_value(manifest).unwrap();
    world
        .api()
        .create(&PostParams::default(), &default_pool)
        .await
        .unwrap();
    let uid = user(&world.client, &world.namespace, "alice").await;
    eventually("the user has a row", async || {
        let rows = living(&pool, &cluster_id).await;
        if rows.contains(&uid) {
            Ok(())
        } else {
            Err(operator.log())
        }
    })
    .await;

    gate.shut();
    let users: Api<ProxyUser> = world.api();
    users
        .delete("alice", &DeleteParams::default())
        .await
        .unwrap();
    // The finalizer waits a minute for the database, then lets go.
    within(
        Duration::from_mins(2),
        "the resource goes",
        async || match users.get_opt("alice").await.unwrap() {
            None => Ok(()),
            Some(user) => Err(format!("{:?}", user.metadata.finalizers)),
        },
    )
    .await;
    assert_eq!(living(&pool, &cluster_id).await, set([&uid]));
    gate.open();
    eventually("the row is swept", async || {
        if living(&pool, &cluster_id).await.is_empty() {
            Ok(())
        } else {
            Err(operator.log())
        }
    })
    .await;
}
