//! The router over real sockets: an HTTP server before it, the fake upstreams behind it.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails is a test that fails"
)]

mod aborts;
mod bedrock;
mod circuit;
mod converse;
mod fallback;
mod moving;
mod passthrough;
mod plan_only;
mod stack;
mod streams;
