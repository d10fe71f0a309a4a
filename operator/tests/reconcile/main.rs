//! What resources become: on a real API server and a real Postgres by `run`, and without a cluster by `apply`. One
//! program, for each costs a link; see `support` for what it needs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "../support/mod.rs"]
mod support;

mod apply;
mod circuits;
mod controllers;
mod outages;
mod rules;
mod scene;
mod tenancy;
