//! Input that no honest client or upstream sends, over raw sockets against the real binary: it ends in an error that is bounded
//! in time and memory, and the process serves on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here fails the test"
)]

#[path = "../support/mod.rs"]
mod support;

mod bedrock;
mod bodies;
mod framing;
mod heads;
mod http2;
mod plan;
mod slow;
mod upstream;
mod wire;

use support::{Proxy, World, message, send};

/// What the proxy may hold beside what a test makes it hold: itself in a debug build (30 MB), buffers of connections, and what
/// its allocator keeps. In megabytes.
const BASE_MB: u64 = 80;

/// Asserts that the next honest request is served.
async fn assert_serves(world: &World, proxy: &Proxy, after: &str) {
    let response = send(proxy, world.key.expose(), &message("still there", false)).await;
    assert_eq!(response.status(), 200, "after {after}: {}", proxy.log());
}

/// Asserts that the proxy has held no more than `more` megabytes above what it always may.
fn assert_bounded(proxy: &Proxy, more: u64, what: &str) {
    let peak = proxy.peak_mb();
    println!("{what}: {peak} MB at most");
    assert!(peak <= BASE_MB + more, "{what}: {peak} MB");
}
