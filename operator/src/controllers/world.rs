//! What reconciling reads and writes besides Postgres. The cluster is one such world, a file of manifests another: the
//! same plans serve both.

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};

use super::error::ReconcileError;

/// Something outside Postgres could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}{}", api_reason(source.as_ref()))]
pub struct WorldError {
    /// What was attempted, such as `read Secret team/plan`.
    pub operation: String,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl WorldError {
    /// `source` stood in the way of `operation`.
    pub fn new(
        operation: impl Into<String>,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Self {
        Self {
            operation: operation.into(),
            source: Box::new(source),
        }
    }
}

/// The API server's own word for what is wrong, where there is one.
fn api_reason(source: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    match source.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => {
            format!(": the API server says {} ({})", status.reason, status.code)
        }
        _ => String::new(),
    }
}

/// What came of writing a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// It is as it was to be.
    Done,
    /// Somebody else was faster: read it again.
    Conflict,
}

/// Why proxies are not run: something of the same name is there that is not the pool's.
pub const OBJECT_CONFLICT: &str = "ObjectConflict";

/// What a pool's proxies are like.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyState {
    /// Proxies that run.
    pub replicas: i32,
    /// Proxies that take requests.
    pub ready_replicas: i32,
    /// Why not enough of them take requests; none when they do.
    pub unavailable: Option<(&'static str, String)>,
}

/// What reconciling reads and writes besides Postgres.
#[async_trait]
pub trait World: Send + Sync {
    /// A pool.
    async fn pool(&self, namespace: &str, name: &str) -> Result<Option<ProxyPool>, WorldError>;

    /// A user.
    async fn user(&self, namespace: &str, name: &str) -> Result<Option<ProxyUser>, WorldError>;

    /// A Bedrock credential.
    async fn bedrock_credential(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BedrockCredential>, WorldError>;

    /// The labels of a namespace.
    async fn namespace_labels(
        &self,
        namespace: &str,
    ) -> Result<BTreeMap<String, String>, WorldError>;

    /// A Secret as it is at this moment.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, WorldError>;

    /// Makes a Secret that is not there.
    async fn create_secret(&self, secret: &Secret) -> Result<Written, WorldError>;

    /// Changes a Secret that is still at the resource version that `secret` names.
    async fn replace_secret(&self, secret: &Secret) -> Result<Written, WorldError>;

    /// The owner of the Secret of `key`, where there is a cluster to delete it with its owner.
    fn owner_of(&self, key: &AccessKey) -> Option<OwnerReference>;

    /// Where clients reach a pool, without a slash at the end.
    fn pool_url(&self, pool: &ProxyPool) -> String;

    /// Makes a pool's proxies what they are to be and tells what they are like; none where there is no cluster.
    async fn proxies(&self, pool: &ProxyPool) -> Result<Option<ProxyState>, ReconcileError>;
}
