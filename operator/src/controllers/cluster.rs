//! The cluster as the world that reconcilers read and write.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};

use super::error::ReconcileError;
use super::workload;
use super::world::{ProxyState, World, WorldError, Written};
use crate::context::Context;
use crate::database::Session;
use crate::resources::pool_url;

/// The cluster that a [`Context`] leads to.
pub(super) struct Cluster {
    context: Arc<Context>,
    session: Session,
}

impl Cluster {
    /// The cluster, while Postgres can be written to.
    pub(super) const fn new(context: Arc<Context>, session: Session) -> Self {
        Self { context, session }
    }

    fn api<K>(&self, namespace: &str) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.context.client.clone(), namespace)
    }

    async fn get<K>(&self, namespace: &str, name: &str) -> Result<Option<K>, WorldError>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let found = self.api::<K>(namespace).get_opt(name).await;
        found.map_err(|source| {
            WorldError::new(format!("read {} {namespace}/{name}", K::kind(&())), source)
        })
    }
}

#[async_trait]
impl World for Cluster {
    async fn pool(&self, namespace: &str, name: &str) -> Result<Option<ProxyPool>, WorldError> {
        self.get(namespace, name).await
    }

    async fn user(&self, namespace: &str, name: &str) -> Result<Option<ProxyUser>, WorldError> {
        self.get(namespace, name).await
    }

    async fn bedrock_credential(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BedrockCredential>, WorldError> {
        self.get(namespace, name).await
    }

    async fn namespace_labels(
        &self,
        namespace: &str,
    ) -> Result<BTreeMap<String, String>, WorldError> {
        let namespaces: Api<Namespace> = Api::all(self.context.client.clone());
        let found = namespaces.get_metadata_opt(namespace).await;
        let found = found
            .map_err(|source| WorldError::new(format!("read Namespace {namespace}"), source))?;
        Ok(found
            .and_then(|found| found.metadata.labels)
            .unwrap_or_default())
    }

    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, WorldError> {
        self.get(namespace, name).await
    }

    async fn create_secret(&self, secret: &Secret) -> Result<Written, WorldError> {
        let namespace = secret.namespace().unwrap_or_default();
        let created = self
            .api::<Secret>(&namespace)
            .create(&PostParams::default(), secret)
            .await;
        written(created, || {
            format!("create Secret {namespace}/{}", secret.name_any())
        })
    }

    async fn replace_secret(&self, secret: &Secret) -> Result<Written, WorldError> {
        let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
        let replaced = self
            .api::<Secret>(&namespace)
            .replace(&name, &PostParams::default(), secret)
            .await;
        written(replaced, || format!("update Secret {namespace}/{name}"))
    }

    fn owner_of(&self, key: &AccessKey) -> Option<OwnerReference> {
        key.controller_owner_ref(&())
    }

    fn pool_url(&self, pool: &ProxyPool) -> String {
        pool_url(pool)
    }

    async fn proxies(&self, pool: &ProxyPool) -> Result<Option<ProxyState>, ReconcileError> {
        workload::ensure(&self.context, &self.session, pool)
            .await
            .map(Some)
    }
}

/// Somebody who was faster is no failure: what they left is read next.
fn written<K>(
    result: kube::Result<K>,
    operation: impl FnOnce() -> String,
) -> Result<Written, WorldError> {
    match result {
        Ok(_) => Ok(Written::Done),
        Err(kube::Error::Api(status))
            if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
        {
            Ok(Written::Conflict)
        }
        Err(source) => Err(WorldError::new(operation(), source)),
    }
}
