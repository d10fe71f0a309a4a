//! Stories of the clients that people use: the real Claude Code and the official SDKs finish a task with several tool calls
//! through the real proxy, whatever the upstreams behind it do.
//!
//! `hack/test.sh clients` brings the clients, PostgreSQL and the programs. Each story has a database, upstreams, an operator's
//! `apply` and a proxy of its own. The upstreams judge what they get as strictly as the real ones; between client and proxy a
//! tap keeps what the client really sent.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]
#![allow(unreachable_pub, reason = "one program: its modules are no interface")]

mod bedrock_format;
mod claude_code;
mod failing;
mod keys;
mod lists;
mod sdk;
mod support;
