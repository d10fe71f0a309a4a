//! What `spillway-operator run` is told, from flags and the `PROXY_*` environment.

mod proxy;
mod read;
mod words;

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use spillway_core::repository::DatabaseUrl;

pub(crate) use proxy::allowed_upstreams;
pub use proxy::{ProxySettings, SecretKey};
pub use words::{LogLevel, Lookup};

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace.
    pub namespace: String,
    /// UID of the cluster's kube-system namespace; every row that came from this cluster carries it.
    pub cluster_id: String,
    /// The namespaces in which pools may live.
    pub pool_namespaces: BTreeSet<String>,
    /// The pool of users that name none.
    pub default_pool: PoolName,
    /// The namespaces that are looked after.
    pub watch: WatchScope,
    /// What a proxy Deployment is made of.
    pub proxy: ProxySettings,
}

/// A pool by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName {
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
}

/// Which namespaces the operator looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchScope {
    /// Every one.
    All,
    /// These, among them every pool namespace.
    Named(BTreeSet<String>),
}

impl WatchScope {
    /// Whether `namespace` is looked after.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(namespace),
        }
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Master secrets that the installation brings along, instead of those that the operator makes.
#[derive(Debug, Clone, Default)]
pub struct GivenSecrets {
    /// `PROXY_KEY_HASHER_SECRET`.
    pub hasher: Option<SecretString>,
    /// `PROXY_LOCAL_ENCRYPTION_KEY`.
    pub encryption: Option<SecretString>,
}

/// Where the database is.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `PROXY_DATABASE_URL`.
    pub url: DatabaseUrl,
    /// `PROXY_DATABASE_LISTEN_URL`: a direct connection where the other leads to a pooler.
    pub listen_url: Option<DatabaseUrl>,
}

impl DatabaseSettings {
    /// Where migrations go.
    pub fn direct_url(&self) -> &DatabaseUrl {
        self.listen_url.as_ref().unwrap_or(&self.url)
    }
}

/// Everything that `run` is told; the cluster's id is learned from the cluster.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// What is logged.
    pub log_level: LogLevel,
    /// Where the database is.
    pub database: DatabaseSettings,
    /// Master secrets that are given.
    pub given: GivenSecrets,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub admin_addr: SocketAddr,
    /// Name of the Lease, in the operator's namespace.
    pub lease: String,
    /// This replica's name in the Lease and in Events: the pod's.
    pub replica: String,
    /// The file with the default pool's manifest.
    pub default_pool_file: Option<PathBuf>,
    /// The operator's own namespace.
    pub namespace: String,
    /// The namespaces in which pools may live.
    pub pool_namespaces: BTreeSet<String>,
    /// The pool of users that name none.
    pub default_pool: PoolName,
    /// The namespaces that are looked after.
    pub watch: WatchScope,
    /// What a proxy Deployment is made of.
    pub proxy: ProxySettings,
}

impl RunSettings {
    /// What the controllers need to know, in the cluster with the id `cluster_id`.
    pub fn for_cluster(&self, cluster_id: String) -> Settings {
        Settings {
            namespace: self.namespace.clone(),
            cluster_id,
            pool_namespaces: self.pool_namespaces.clone(),
            default_pool: self.default_pool.clone(),
            watch: self.watch.clone(),
            proxy: self.proxy.clone(),
        }
    }
}

/// What `release` is told.
#[derive(Debug, Clone)]
pub struct ReleaseSettings {
    /// What is logged.
    pub log_level: LogLevel,
    /// The operator's own namespace.
    pub namespace: String,
    /// Name of the Lease in it.
    pub lease: String,
}
