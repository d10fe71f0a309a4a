//! The default pool is made when it is missing, and left to people afterwards.

use std::io::Write;

use crate::support::{OperatorProcess, World, eventually};
use kube::api::{Patch, PatchParams};
use serde_json::json;
use spillway_crds::ProxyPool;

#[tokio::test(flavor = "multi_thread")]
async fn it_is_made_once_and_then_belongs_to_people() {
    let world = World::new().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let manifest = "apiVersion: spillway.dev/v1alpha1\nkind: ProxyPool\nmetadata: {name: main}\nspec: {replicas: 3}\n";
    file.write_all(manifest.as_bytes()).unwrap();
    let path = file.path().to_str().unwrap();
    let args = ["--default-pool", "main", "--default-pool-file", path];
    let url = world.database.url().to_string();
    let pools = world.api::<ProxyPool>();

    let mut operator = OperatorProcess::run(&world, &url, &args, &[]);
    let made = eventually("the default pool is made", async || pools.get("main").await).await;
    assert_eq!(made.spec.replicas, 3);
    operator.ready_leader().await;
    operator.signal("TERM").await;
    assert!(operator.ended().await.success(), "{}", operator.log());

    let edited = json!({ "spec": { "replicas": 5 } });
    pools
        .patch("main", &PatchParams::default(), &Patch::Merge(&edited))
        .await
        .unwrap();
    let again = OperatorProcess::run(&world, &url, &args, &[]);
    again.ready_leader().await;
    again.logged("the default pool is there").await;
    assert_eq!(pools.get("main").await.unwrap().spec.replicas, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_of_another_pool_is_wrong_configuration() {
    let world = World::new().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(
        b"apiVersion: spillway.dev/v1alpha1\nkind: ProxyPool\nmetadata: {name: other}\nspec: {}\n",
    )
    .unwrap();
    let args = ["--default-pool-file", file.path().to_str().unwrap()];
    let mut operator = OperatorProcess::run(&world, world.database.url().as_str(), &args, &[]);
    assert_eq!(operator.ended().await.code(), Some(2), "{}", operator.log());
    operator
        .logged("PROXY_DEFAULT_POOL_FILE: the manifest is of pool")
        .await;
}
