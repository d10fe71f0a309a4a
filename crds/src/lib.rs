//! Spillway's custom resources: their types, validation rules and generated definitions.
//!
//! The types are the single source: `crdgen` writes `crds/generated/*.yaml` from them, the API server enforces the
//! generated schema and its CEL rules, and [`validate`] evaluates the very same schema and rules where no API server
//! is at hand (`spillway-operator apply`).
#![allow(
    clippy::doc_markdown,
    reason = "field docs are read in kubectl explain, where back-ticks are noise"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "printer columns repeat their type"
)]
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each type within a function"
)]

mod access_key;
mod bedrock_credential;
mod common;
mod definitions;
mod duration;
mod pool;
mod schema;
mod user;
pub mod validate;

pub use access_key::{AccessKey, AccessKeySpec, AccessKeyStatus, AccessKeyVersion, VersionState};
pub use bedrock_credential::{
    BedrockAuth, BedrockCredential, BedrockCredentialSpec, BedrockCredentialStatus, PodIdentity,
};
pub use common::{LocalRef, SecretKeyRef, UsageStatus, UsageWindow};
pub use definitions::{Definition, definitions};
pub use duration::{DurationString, InvalidDuration};
pub use pool::{
    AllowedNamespaces, Bedrock, BedrockApi, CircuitBreaker, CircuitState, CircuitStatus, Fallback,
    From, Model, ModelPrice, Plan, ProxyPool, ProxyPoolSpec, ProxyPoolStatus, Service, ServiceType,
};
pub use user::{PoolRef, ProxyUser, ProxyUserSpec, ProxyUserStatus, UserPlan};

/// API group of every kind.
pub const GROUP: &str = "spillway.dev";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";
/// Annotation on a Secret that names the `AccessKey` (`<namespace>/<name>`) it belongs to: the criterion of ownership.
pub const ACCESS_KEY_ANNOTATION: &str = "spillway.dev/access-key";
/// Annotation that stops the operator from acting on a resource while it says `true`.
pub const PAUSED_ANNOTATION: &str = "spillway.dev/paused";
/// Annotation on a `ProxyPool` that closes all its circuits, once for each new value.
pub const RESET_CIRCUIT_ANNOTATION: &str = "spillway.dev/reset-circuit";
/// The most circuits that a pool's status shows.
pub const MAX_CIRCUITS: usize = 64;
/// Finalizer with which the operator soft-deletes the rows of a resource before it goes.
pub const FINALIZER: &str = "spillway.dev/rows";
