//! From a snapshot to what requests look up: one entry for each living version of each key, under the hash of what clients send.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use secrecy::SecretString;
use spillway_core::domain::models::ModelPatterns;
use spillway_core::domain::pool::{AccessKeyEntry, PoolConfig, PoolSnapshot, UserEntry};
use spillway_core::security::hasher::KeyHash;
use url::Url;
use uuid::Uuid;

use crate::call::{BedrockCredential, Caller, CircuitSettings, PlanCredential, PoolView};
use crate::directory::credentials::Vault;
use crate::directory::standing::Standing;

/// What the environment says where the pool says nothing.
#[derive(Debug, Clone)]
pub struct PoolDefaults {
    /// `PROXY_PLAN_API_URL`.
    pub plan_api_url: Url,
    /// `PROXY_PLAN_API_KEY`. Goes to the URL of the environment, never to a pool's.
    pub plan_api_key: Option<SecretString>,
    /// `PROXY_BEDROCK_REGION`.
    pub bedrock_region: Option<String>,
    /// `PROXY_BEDROCK_DEFAULT_MODEL`.
    pub bedrock_default_model: Option<String>,
    /// `PROXY_CIRCUIT_*`.
    pub circuit: CircuitSettings,
}

/// All keys of the pool. Never changed: a new one takes its place.
#[derive(Debug)]
pub(super) struct Index {
    pool: Option<Arc<PoolView>>,
    entries: HashMap<KeyHash, Arc<KeyEntry>>,
}

/// One version of one key.
#[derive(Debug)]
pub struct KeyEntry {
    /// Whom a request with this key is from.
    pub caller: Arc<Caller>,
    /// The pool's configuration.
    pub pool: Arc<PoolView>,
    /// Whether it may be used.
    pub standing: Standing,
    /// When Postgres last confirmed it while changes could not be heard, in the directory's milliseconds.
    pub(super) confirmed_millis: AtomicI64,
    of_key: ModelPatterns,
    of_user: Arc<ModelPatterns>,
}

impl KeyEntry {
    /// Whether both key and user allow `model`.
    pub fn allows(&self, model: &str) -> bool {
        self.of_key.is_allowed(model) && self.of_user.is_allowed(model)
    }

    /// Whether both allow a model that goes by any of `names`, each by a name of its own choice.
    pub fn allows_by_any(&self, names: &[&str]) -> bool {
        let any = |patterns: &ModelPatterns| names.iter().any(|name| patterns.is_allowed(name));
        any(&self.of_key) && any(&self.of_user)
    }

    /// Whether neither key nor user names the models it may use.
    pub fn allows_all(&self) -> bool {
        self.of_key.allows_all() && self.of_user.allows_all()
    }
}

impl Index {
    pub(super) fn get(&self, hash: &KeyHash) -> Option<&Arc<KeyEntry>> {
        self.entries.get(hash)
    }

    /// What the pool says, unless it is gone.
    pub(super) fn pool(&self) -> Option<&Arc<PoolView>> {
        self.pool.as_ref()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The index of a pool that is gone.
    pub(super) fn empty() -> Self {
        Self {
            pool: None,
            entries: HashMap::new(),
        }
    }

    /// Builds the index; `vault` has opened this snapshot's credentials.
    pub(super) fn build(
        snapshot: &PoolSnapshot,
        vault: &mut Vault,
        defaults: &PoolDefaults,
    ) -> Self {
        let pool = &snapshot.pool;
        let resolve = &mut Resolve::new(pool, vault, defaults);
        let plan_url = resolve.pool_plan.as_ref().map(|plan| plan.api_url.clone());
        let view = Arc::new(view(pool, defaults, plan_url));
        let users: HashMap<Uuid, User<'_>> = snapshot
            .users
            .iter()
            .map(|user| (user.id, User::new(user, resolve)))
            .collect();
        let mut callers: HashMap<Uuid, (&AccessKeyEntry, &User<'_>)> =
            HashMap::with_capacity(snapshot.access_keys.len());
        for key in &snapshot.access_keys {
            if let Some(user) = users.get(&key.user_id) {
                callers.insert(key.id, (key, user));
            }
        }
        let mut entries = HashMap::with_capacity(snapshot.versions.len());
        for version in &snapshot.versions {
            let Some((key, user)) = callers.get(&version.access_key_id) else {
                continue;
            };
            let caller = Caller {
                key_id: version.key_id.clone(),
                access_key_id: key.id,
                user_id: user.entry.id,
                namespace: user.entry.namespace.clone(),
                key_name: key.name.clone(),
                user_name: user.entry.name.clone(),
                plan: user.plan.clone(),
                bedrock: key
                    .bedrock_key_id
                    .map_or_else(|| user.bedrock.clone(), |id| resolve.own_bedrock(id)),
            };
            let standing = Standing::new(
                user.entry.suspended,
                key.disabled,
                key.expires_at,
                version.expires_at,
            );
            let entry = KeyEntry {
                caller: Arc::new(caller),
                pool: Arc::clone(&view),
                standing,
                confirmed_millis: AtomicI64::new(i64::MIN / 2),
                of_key: key.allowed_models.clone(),
                of_user: Arc::clone(&user.allowed_models),
            };
            entries.insert(version.key_hash, Arc::new(entry));
        }
        Self {
            pool: Some(view),
            entries,
        }
    }
}

struct User<'a> {
    entry: &'a UserEntry,
    plan: Option<Arc<PlanCredential>>,
    bedrock: Option<Arc<BedrockCredential>>,
    allowed_models: Arc<ModelPatterns>,
}

impl<'a> User<'a> {
    fn new(entry: &'a UserEntry, resolve: &mut Resolve<'_>) -> Self {
        Self {
            entry,
            plan: entry.plan_key_id.map_or_else(
                || resolve.pool_plan.clone(),
                |id| resolve.vault.plan(id, &resolve.users_api_url),
            ),
            bedrock: match entry.bedrock_key_id {
                Some(id) => resolve.own_bedrock(id),
                None => resolve.pool_bedrock.clone(),
            },
            allowed_models: Arc::new(entry.allowed_models.clone()),
        }
    }
}

/// Which credential a caller gets: the first that is named by the key, the user, the pool, the environment. One that is named
/// but cannot be used (unreadable, refused, gone) means none: what a tenant calls goes nowhere that it did not choose.
struct Resolve<'v> {
    vault: &'v mut Vault,
    /// A user's own key goes to the environment's URL: what a pool says is not the user's to judge.
    users_api_url: Url,
    fallback: bool,
    pool_plan: Option<Arc<PlanCredential>>,
    pool_bedrock: Option<Arc<BedrockCredential>>,
}

impl<'v> Resolve<'v> {
    fn new(pool: &PoolConfig, vault: &'v mut Vault, defaults: &PoolDefaults) -> Self {
        let api_url = match pool.plan_api_url.as_deref().map(Url::parse) {
            Some(Ok(url)) => url,
            Some(Err(_)) => {
                tracing::error!(pool = %pool.id, "plan.apiUrl is no URL: using the environment's");
                defaults.plan_api_url.clone()
            }
            None => defaults.plan_api_url.clone(),
        };
        let pool_plan = match (pool.plan_key_id, &defaults.plan_api_key) {
            (Some(id), _) => vault.plan(id, &api_url),
            (None, Some(key)) => {
                if api_url != defaults.plan_api_url {
                    tracing::warn!(
                        pool = %pool.id,
                        "plan.apiUrl is not used: the pool names no key, and the environment's goes to PROXY_PLAN_API_URL only"
                    );
                }
                vault.plan_with(pool.id, &defaults.plan_api_url, key.clone())
            }
            (None, None) => None,
        };
        let fallback = pool.fallback_enabled.unwrap_or(true);
        let region = pool.bedrock_region.as_deref();
        let pool_bedrock = match (
            fallback,
            pool.bedrock_key_id,
            region.or(defaults.bedrock_region.as_deref()),
        ) {
            (false, ..) | (true, None, None) => None,
            (true, Some(id), _) => vault.bedrock(id, region),
            (true, None, Some(region)) => Some(vault.pod_identity(pool.id, region)),
        };
        Self {
            vault,
            users_api_url: defaults.plan_api_url.clone(),
            fallback,
            pool_plan,
            pool_bedrock,
        }
    }

    fn own_bedrock(&mut self, id: Uuid) -> Option<Arc<BedrockCredential>> {
        self.fallback
            .then(|| self.vault.bedrock(id, None))
            .flatten()
    }
}

fn view(pool: &PoolConfig, defaults: &PoolDefaults, plan_url: Option<Url>) -> PoolView {
    let set = &pool.circuit_breaker;
    let seconds = |set: Option<u32>, otherwise: Duration| {
        set.map_or(otherwise, |seconds| Duration::from_secs(seconds.into()))
    };
    PoolView {
        id: pool.id,
        namespace: pool.namespace.clone(),
        name: pool.name.clone(),
        models: pool.models.clone(),
        default_model: pool
            .bedrock_default_model
            .clone()
            .or_else(|| defaults.bedrock_default_model.clone()),
        plan_url,
        circuit: CircuitSettings {
            failure_threshold: set
                .failure_threshold
                .unwrap_or(defaults.circuit.failure_threshold),
            failure_rate: set.failure_rate.unwrap_or(defaults.circuit.failure_rate),
            failure_window: seconds(set.failure_window_seconds, defaults.circuit.failure_window),
            reset_timeout: seconds(set.reset_timeout_seconds, defaults.circuit.reset_timeout),
        },
    }
}

#[cfg(test)]
pub(super) mod tests;
