//! What the operator's tests run against: a real API server, a real Postgres, and the real binary.
//!
//! - The API server is the one that `SPILLWAY_TEST_KUBECONFIG` (or `KUBECONFIG`) names; `e2e/cluster up
//!   --control-plane-only` starts one in seconds. The test's user needs to be an administrator of it.
//! - Postgres is the one that `DATABASE_URL` names, as a user that may create databases.
//!
//! Every test gets a namespace and a database of its own, which go when its [`World`] is dropped.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "each test program uses its part of it"
)]

pub mod database;
pub mod gate;
pub mod process;

use std::fmt::{Debug, Display};
use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};
use kube_runtime::wait::{await_condition, conditions::is_crd_established};
use serde::de::DeserializeOwned;
use serde_json::json;
use spillway_core::repository::PgPool;
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

pub use database::TestDatabase;
pub use gate::Gate;
pub use process::OperatorProcess;

/// How long something that has to happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// One test's part of the cluster and a database.
pub struct World {
    /// A client of the cluster's administrator.
    pub client: Client,
    /// A namespace that only this test uses.
    pub namespace: String,
    /// A database that only this test uses, without any schema.
    pub database: TestDatabase,
}

impl World {
    /// A fresh namespace and a fresh, empty database. The CRDs are installed.
    pub async fn new() -> Self {
        let client = client().await;
        install_crds(&client).await;
        let namespace = create_namespace(&client, &[]).await;
        Self {
            client,
            namespace,
            database: TestDatabase::create().await,
        }
    }

    /// A fresh namespace and a fresh database with the current schema, and a pool of connections to it.
    pub async fn migrated() -> (Self, PgPool) {
        let world = Self::new().await;
        let pool = world.database.migrate().await;
        (world, pool)
    }

    /// The test's API of a namespaced kind.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The UID of the kube-system namespace: what rows carry as their cluster's id.
    pub async fn cluster_id(&self) -> String {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        namespaces
            .get("kube-system")
            .await
            .expect("the kube-system namespace")
            .metadata
            .uid
            .expect("its uid")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let namespace = self.namespace.clone();
        in_own_runtime(async move {
            let namespaces: Api<Namespace> = Api::all(client().await);
            let _ = namespaces
                .delete(&namespace, &kube::api::DeleteParams::default())
                .await;
        });
    }
}

async fn drop_finalizers<K>(client: &Client, namespace: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    for object in api
        .list_metadata(&ListParams::default())
        .await
        .into_iter()
        .flatten()
    {
        let none = json!({ "metadata": { "finalizers": null } });
        let name = object.metadata.name.unwrap_or_default();
        let _ = api
            .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&none))
            .await;
    }
}

/// A client of the test cluster, as its administrator.
pub async fn client() -> Client {
    Client::try_from(config().await).expect("a client of the test cluster")
}

/// A client that reaches the API server through `gate`.
pub async fn client_through(gate: &Gate) -> Client {
    let mut config = config().await;
    let url = Url::parse(&config.cluster_url.to_string()).expect("the API server's URL");
    config.tls_server_name = url.host_str().map(str::to_owned);
    config.cluster_url = gate.through(&url).as_str().parse().expect("a URL is a URI");
    Client::try_from(config).expect("a client of the test cluster")
}

/// Where the API server is.
pub async fn api_server() -> Url {
    Url::parse(&config().await.cluster_url.to_string()).expect("the API server's URL")
}

/// A client of a user who may list the kind `plural` in the namespace of `world`, and nothing else anywhere.
pub async fn client_that_may_only_list(world: &World, plural: &str) -> Client {
    let name = format!("lister-of-{}", world.namespace);
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": { "name": name },
        "rules": [{ "apiGroups": [spillway_crds::GROUP], "resources": [plural], "verbs": ["list"] }],
    });
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": name },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
        "subjects": [{ "kind": "User", "name": name }],
    });
    let (role, binding): (Role, RoleBinding) = (
        serde_json::from_value(role).expect("a role"),
        serde_json::from_value(binding).expect("a binding"),
    );
    world
        .api()
        .create(&PostParams::default(), &role)
        .await
        .expect("the role is made");
    world
        .api()
        .create(&PostParams::default(), &binding)
        .await
        .expect("the binding is made");
    let mut config = config().await;
    config.auth_info.impersonate = Some(name);
    Client::try_from(config).expect("a client of the test cluster")
}

async fn config() -> Config {
    // Another test of this process may have installed it.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kubeconfig =
        Kubeconfig::read_from(kubeconfig_path()).expect("the kubeconfig of the test cluster");
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .expect("a usable kubeconfig of the test cluster")
}

/// The kubeconfig file of the test cluster.
pub fn kubeconfig_path() -> PathBuf {
    std::env::var_os("SPILLWAY_TEST_KUBECONFIG")
        .or_else(|| std::env::var_os("KUBECONFIG"))
        .map(PathBuf::from)
        .expect("set SPILLWAY_TEST_KUBECONFIG to a cluster's kubeconfig (e2e/cluster up --control-plane-only starts one)")
}

/// Makes a namespace with a name of its own and these labels.
pub async fn create_namespace(client: &Client, labels: &[(&str, &str)]) -> String {
    let name = format!("test-{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(name.clone());
    namespace.metadata.labels = Some(
        labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect(),
    );
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &namespace)
        .await
        .expect("a fresh namespace");
    name
}

/// Installs Spillway's CRDs once per process and waits until the API server serves them.
pub async fn install_crds(client: &Client) {
    static INSTALLED: OnceCell<()> = OnceCell::const_new();
    INSTALLED
        .get_or_init(|| async {
            let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
            for definition in spillway_crds::definitions().expect("the definitions") {
                let name = format!("{}.{}", definition.plural, spillway_crds::GROUP);
                let params = PatchParams::apply("spillway-tests").force();
                crds.patch(&name, &params, &Patch::Apply(&definition.manifest))
                    .await
                    .expect("the CRD is accepted");
                timeout(
                    PATIENCE,
                    await_condition(crds.clone(), &name, is_crd_established()),
                )
                .await
                .expect("the CRD is established in time")
                .expect("the CRD can be watched");
            }
        })
        .await;
}

/// Asks again and again until the answer is `Ok`; panics with the last `Err` after [`PATIENCE`].
pub async fn eventually<T, E: Display>(what: &str, ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, ask).await
}

/// As [`eventually`], with a limit of its own.
pub async fn within<T, E: Display>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(reason) if Instant::now() >= deadline => {
                panic!("not within {limit:?}: {what}: {reason}")
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Runs `work` to its end on a runtime of its own: for clean-up in `drop`, where nothing can be awaited.
pub fn in_own_runtime(work: impl Future<Output = ()> + Send + 'static) {
    let runtime = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async { timeout(Duration::from_secs(10), work).await.ok() });
    });
    let _ = runtime.join();
}
