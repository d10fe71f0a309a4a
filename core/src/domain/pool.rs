//! What a proxy needs to know of its pool: configuration, users, living keys, sealed credentials. Serialisable, so that a
//! proxy can mirror it and start while Postgres is away; it holds no plaintext secret.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::models::{ModelMapping, ModelPatterns};
use crate::security::envelope::Sealed;
use crate::security::hasher::KeyHash;

/// Everything that one pool's proxies serve by, read in one transaction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolSnapshot {
    /// The pool.
    pub pool: PoolConfig,
    /// Living users of the pool.
    pub users: Vec<UserEntry>,
    /// Living access keys of those users.
    pub access_keys: Vec<AccessKeyEntry>,
    /// Living versions of those keys, expired ones included until they are deleted.
    pub versions: Vec<KeyVersionEntry>,
    /// Plan keys that the pool or a user refers to.
    pub plan_keys: Vec<PlanKeyEntry>,
    /// Bedrock credentials that the pool, a user or a key refers to.
    pub bedrock_keys: Vec<BedrockKeyEntry>,
    /// Check values of the secrets that this data was made with, `(kind, id, value)`.
    pub key_checks: Vec<KeyCheck>,
}

/// A pool's settings. `None` leaves the choice to the proxy's environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolConfig {
    /// The row's id.
    pub id: Uuid,
    /// Namespace of the `ProxyPool`.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `plan.apiUrl`.
    pub plan_api_url: Option<String>,
    /// `plan.apiKeySecretRef`.
    pub plan_key_id: Option<Uuid>,
    /// `fallback.enabled`.
    pub fallback_enabled: Option<bool>,
    /// `fallback.bedrock.region`.
    pub bedrock_region: Option<String>,
    /// `fallback.bedrock.defaultModel`.
    pub bedrock_default_model: Option<String>,
    /// `fallback.bedrock.credentialRef`.
    pub bedrock_key_id: Option<Uuid>,
    /// `circuitBreaker`.
    pub circuit_breaker: CircuitBreakerConfig,
    /// `models`, in order.
    pub models: Vec<ModelMapping>,
}

/// `circuitBreaker` of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CircuitBreakerConfig {
    /// Failures within the window that may open the circuit.
    pub failure_threshold: Option<u32>,
    /// Percentage of attempts within the window that must have failed.
    pub failure_rate: Option<u8>,
    /// The window, in seconds.
    pub failure_window_seconds: Option<u32>,
    /// How long the circuit stays open at most, in seconds.
    pub reset_timeout_seconds: Option<u32>,
}

/// A living user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    /// The row's id.
    pub id: Uuid,
    /// Tenant namespace.
    pub namespace: String,
    /// Resource name.
    pub name: String,
    /// `suspended`.
    pub suspended: bool,
    /// `allowedModels`.
    pub allowed_models: ModelPatterns,
    /// `plan.apiKeySecretRef`: the user's own Plan key.
    pub plan_key_id: Option<Uuid>,
    /// `bedrockCredentialRef`.
    pub bedrock_key_id: Option<Uuid>,
}

/// A living access key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyEntry {
    /// The row's id.
    pub id: Uuid,
    /// Whose key it is.
    pub user_id: Uuid,
    /// Resource name; the namespace is the user's.
    pub name: String,
    /// `disabled`.
    pub disabled: bool,
    /// `expiresAt`.
    pub expires_at: Option<DateTime<Utc>>,
    /// `allowedModels`.
    pub allowed_models: ModelPatterns,
    /// `bedrockCredentialRef`, or a credential that belongs to this key alone.
    pub bedrock_key_id: Option<Uuid>,
}

/// A version of an access key: what clients send.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyVersionEntry {
    /// The access key.
    pub access_key_id: Uuid,
    /// The public part.
    pub key_id: String,
    /// The stored form.
    pub key_hash: KeyHash,
    /// When this version ends, for one that was replaced.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A sealed Plan key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanKeyEntry {
    /// The row's id, part of its binding.
    pub id: Uuid,
    /// The API key.
    pub sealed: Sealed,
}

/// A sealed Bedrock credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BedrockKeyEntry {
    /// The row's id, part of its binding.
    pub id: Uuid,
    /// `region`.
    pub region: String,
    /// `endpointUrl`.
    pub endpoint_url: Option<String>,
    /// The credential.
    pub sealed: Sealed,
}

/// What tells whether two processes hold the same master secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyCheck {
    /// Which secret.
    pub kind: SecretKind,
    /// Its id.
    pub secret_id: String,
    /// Its check value.
    pub value: [u8; 32],
}

/// The master secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretKind {
    /// `PROXY_KEY_HASHER_SECRET`.
    Hasher,
    /// `PROXY_LOCAL_ENCRYPTION_KEY`.
    Encryption,
}

impl SecretKind {
    /// The name in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hasher => "hasher",
            Self::Encryption => "encryption",
        }
    }

    /// The environment variable that holds the secret.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::Hasher => "PROXY_KEY_HASHER_SECRET",
            Self::Encryption => "PROXY_LOCAL_ENCRYPTION_KEY",
        }
    }
}
