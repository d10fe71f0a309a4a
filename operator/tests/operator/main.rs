//! The operator's own life: commands, leadership, master secrets, sweep, usage in status. One program, for each costs a
//! link; see `support` for what it needs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod default_pool;
mod leadership;
mod master_secrets;
mod sweep;
mod usage_status;
