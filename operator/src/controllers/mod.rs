//! The controllers: observe, plan without I/O, apply, tell in status.

pub mod access_key;
pub mod bedrock_credential;
mod changes;
mod cluster;
pub mod conditions;
pub mod driver;
pub mod error;
pub mod kind;
pub mod outcome;
pub mod plan_keys;
pub mod pool;
pub mod references;
mod streams;
pub mod user;
pub mod watches;
mod workload;
pub mod world;

pub use streams::run;
