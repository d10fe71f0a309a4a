//! Who is to be reconciled when something else changes.

use kube::ResourceExt;
use kube_runtime::reflector::{ObjectRef, Store};
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};

use super::outcome::Rules;
use super::references::pool_of;
use crate::settings::PoolName;

/// A reference by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl Named {
    /// Names `resource`.
    pub fn of(resource: &impl ResourceExt) -> Self {
        Self {
            namespace: resource.namespace().unwrap_or_default(),
            name: resource.name_any(),
        }
    }
}

/// The resources of `store` in `namespace` that `refers` says yes to.
pub fn referring<K>(
    store: &Store<K>,
    namespace: Option<&str>,
    refers: impl Fn(&K) -> bool,
) -> Vec<ObjectRef<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + 'static,
{
    store
        .state()
        .iter()
        .filter(|resource| {
            namespace.is_none_or(|namespace| resource.namespace().as_deref() == Some(namespace))
        })
        .filter(|resource| refers(resource))
        .map(|resource| ObjectRef::from_obj(resource.as_ref()))
        .collect()
}

/// Whether a pool names a Secret of its namespace.
pub fn pool_names_secret(pool: &ProxyPool, secret: &str) -> bool {
    let reference = pool
        .spec
        .plan
        .as_ref()
        .and_then(|plan| plan.api_key_secret_ref.as_ref());
    reference.is_some_and(|reference| reference.name == secret)
}

/// Whether a user names a Secret of its namespace.
pub fn user_names_secret(user: &ProxyUser, secret: &str) -> bool {
    user.spec
        .plan
        .as_ref()
        .is_some_and(|plan| plan.api_key_secret_ref.name == secret)
}

/// Whether a key names a Secret of its namespace.
pub fn key_names_secret(key: &AccessKey, secret: &str) -> bool {
    key.spec.secret_name.as_deref() == Some(secret)
        || key
            .spec
            .existing_secret_ref
            .as_ref()
            .is_some_and(|reference| reference.name == secret)
}

/// Whether a credential names a Secret of its namespace.
pub fn credential_names_secret(credential: &BedrockCredential, secret: &str) -> bool {
    let auth = &credential.spec.auth;
    auth.secret_ref
        .as_ref()
        .is_some_and(|reference| reference.name == secret)
        || auth
            .api_key_secret_ref
            .as_ref()
            .is_some_and(|reference| reference.name == secret)
}

/// The credential that a pool names, in its namespace.
pub fn credential_of_pool(pool: &ProxyPool) -> Option<&str> {
    let bedrock = pool.spec.fallback.as_ref()?.bedrock.as_ref()?;
    bedrock
        .credential_ref
        .as_ref()
        .map(|reference| reference.name.as_str())
}

/// The credential that a user names, in its namespace.
pub fn credential_of_user(user: &ProxyUser) -> Option<&str> {
    user.spec
        .bedrock_credential_ref
        .as_ref()
        .map(|reference| reference.name.as_str())
}

/// The credential that a key names, in its namespace.
pub fn credential_of_key(key: &AccessKey) -> Option<&str> {
    key.spec
        .bedrock_credential_ref
        .as_ref()
        .map(|reference| reference.name.as_str())
}

/// Whether a user names a pool.
pub fn user_names_pool(user: &ProxyUser, pool: &PoolName, rules: &Rules) -> bool {
    pool_of(
        user.spec.pool_ref.as_ref(),
        &user.namespace().unwrap_or_default(),
        rules,
    ) == *pool
}
