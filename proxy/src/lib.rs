//! Spillway's data plane: the Anthropic Messages API in front of Plan, with Bedrock behind it.
//!
//! - [`http`] admits requests: routes, keys, bodies, refusals; and the admin port.
//! - [`directory`] knows keys and configuration, in memory and current within a second.
//! - [`routing`] decides which upstream serves a call, [`adapter`]s ask it, [`stream`] reads what it says.
//! - [`metering`] keeps one usage row for each call, whatever is killed.
//! - [`call`] is what travels between them; [`config`], [`lifecycle`] and [`metrics`] are the process around it.

pub mod adapter;
pub mod call;
pub mod config;
pub mod directory;
pub mod http;
pub mod lifecycle;
pub mod metering;
pub mod metrics;
pub mod routing;
pub mod stream;
