//! The operator's own life: commands, leadership, master secrets, sweep, usage in status. One program, for each costs a
//! link; see `support` for what it needs.

#[path = "../support/mod.rs"]
mod support;

mod cli;
mod default_pool;
mod leadership;
mod master_secrets;
mod sweep;
mod usage_status;
