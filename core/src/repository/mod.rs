//! All SQL of Spillway.
//!
//! Functions that write take a connection inside a transaction that [`leadership::fenced`] began, unless they belong to a
//! proxy ([`usage`], [`circuits`]). A write whose row already says the same changes nothing, so that reconciling costs nothing and
//! proxies are not told.

pub mod access_keys;
pub mod bedrock_keys;
pub mod circuits;
mod connection;
mod error;
pub mod key_checks;
pub mod leadership;
pub mod listen;
mod models;
pub mod plan_keys;
pub mod pools;
pub mod snapshot;
pub mod usage;
pub mod usage_totals;
pub mod users;

pub use connection::{
    ConnectOptions, DatabaseUrl, DatabaseUrlError, PATIENCE, PgPoolConnection, acquire, clock,
    connect, migrate, schema_version,
};
pub use error::{RepositoryError, Result};
pub use sqlx::{PgConnection, PgPool, PgTransaction};

/// The resource that a row came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The cluster it lives in.
    pub cluster_id: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What an upsert did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upserted {
    /// The row.
    pub id: uuid::Uuid,
    /// Whether anything was written.
    pub changed: bool,
}
