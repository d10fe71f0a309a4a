//! The routes beside messages, and the limits of requests: the real binary between real clients and the fake upstreams.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

#[path = "../support/mod.rs"]
mod support;

mod bedrock_credentials;
mod bedrock_errors;
mod bedrock_format;
mod bedrock_models;
mod bodies;
mod count_tokens;
mod models;
