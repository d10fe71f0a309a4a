//! What Spillway's operator, proxy and dashboard share, and nothing else.
//!
//! - [`domain`]: the rules, without I/O: money, prices, models, usage records, upstream hosts.
//! - [`security`]: the key format and its hasher, envelope encryption, credentials, redaction.
//! - [`repository`]: all SQL.
//! - [`env`] and [`telemetry`]: the `PROXY_*` environment and structured logs, the same in every binary.

pub mod domain;
pub mod env;
pub mod repository;
pub mod security;
pub mod telemetry;
