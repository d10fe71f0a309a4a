//! What reconcilers are given and what they give back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::repository::leadership::{self, Fence};
use spillway_core::repository::{
    Origin, PgPool, PgPoolConnection, PgTransaction, RepositoryError, acquire,
};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;

use super::conditions::{Judgement, Problem};
use super::world::World;
use crate::settings::{PoolName, Settings};

/// How often a resource may lead to another step before it counts as unsettled.
pub const MAX_STEPS: usize = 6;

/// Postgres, to read and to write under a fence.
#[derive(Clone)]
pub struct Rows {
    /// Connections.
    pub pool: PgPool,
    /// The right to write.
    pub fence: Fence,
    /// Hashes keys and fingerprints credentials.
    pub hasher: Arc<KeyHasher>,
    /// Encrypts credentials.
    pub envelope: Arc<Envelope>,
}

impl Rows {
    /// A connection to read by.
    pub async fn reader(&self) -> Result<PgPoolConnection, RepositoryError> {
        acquire(&self.pool).await
    }

    /// Begins a transaction to write by.
    pub async fn begin(&self) -> Result<PgTransaction<'static>, RepositoryError> {
        leadership::fenced(&self.pool, &self.fence).await
    }

    /// The cluster whose rows these are.
    pub fn cluster_id(&self) -> &str {
        &self.fence.cluster_id
    }

    /// The origin of a resource's row.
    pub fn origin(&self, resource: &impl ResourceExt) -> Origin {
        Origin {
            cluster_id: self.fence.cluster_id.clone(),
            namespace: resource.namespace().unwrap_or_default(),
            name: resource.name_any(),
            uid: resource.uid().unwrap_or_default(),
        }
    }

    /// Tells whether a credential is still the same, and nothing else about it.
    pub fn fingerprint(&self, plaintext: &str) -> Vec<u8> {
        self.hasher.hash(plaintext).0.0.to_vec()
    }
}

/// What resources are judged by besides each other.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Where pools may live.
    pub pool_namespaces: BTreeSet<String>,
    /// The pool of users that name none.
    pub default_pool: PoolName,
    /// Where keys and credentials may be sent.
    pub allowed_upstreams: AllowedUpstreams,
    /// Names, in the namespaces of pools, of the Secrets with the proxies' database URLs.
    pub database_secrets: BTreeSet<String>,
}

impl Rules {
    /// The rules of an operator with these settings.
    pub fn of(settings: &Settings) -> Self {
        let proxy = &settings.proxy;
        let databases = [
            Some(&proxy.database_secret),
            proxy.database_listen_secret.as_ref(),
        ];
        Self {
            pool_namespaces: settings.pool_namespaces.clone(),
            default_pool: settings.default_pool.clone(),
            allowed_upstreams: proxy.allowed_upstreams.clone(),
            database_secrets: databases
                .into_iter()
                .flatten()
                .map(|secret| secret.name.clone())
                .collect(),
        }
    }
}

/// What a reconciler needs besides its resource.
#[derive(Clone, Copy)]
pub struct Env<'a> {
    /// The cluster, or a file of manifests.
    pub world: &'a dyn World,
    /// Postgres.
    pub rows: &'a Rows,
    /// What resources are judged by.
    pub rules: &'a Rules,
    /// The time of this reconciliation.
    pub now: DateTime<Utc>,
}

/// Something a person would want to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Whether somebody has to look at it.
    pub is_warning: bool,
    /// One CamelCase word.
    pub reason: &'static str,
    /// What the operator was doing, in one CamelCase word.
    pub action: &'static str,
    /// A sentence that says what happened and what to do.
    pub note: String,
}

/// What a reconciliation came to.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome<S> {
    /// The status but for observedGeneration and conditions.
    pub status: S,
    /// What was judged.
    pub judgements: Vec<Judgement>,
    /// What was wrong.
    pub problems: Vec<Problem>,
    /// What is to be told.
    pub notices: Vec<Notice>,
    /// When to look again, if time alone changes something.
    pub again_in: Option<Duration>,
}

/// A Kubernetes time as the database has it.
pub fn to_chrono(time: &Time) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(time.0.as_microsecond())
}

/// A database time as Kubernetes has it, in whole seconds.
pub fn to_kubernetes(time: DateTime<Utc>) -> Option<Time> {
    Timestamp::from_second(time.timestamp()).ok().map(Time)
}
