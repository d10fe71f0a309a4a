//! The fake upstreams as real clients see them: an HTTP client, the AWS SDK, and the program as a process.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail like tests"
)]

mod agent;
mod bedrock;
mod bedrock_faults;
mod control;
mod plan;
mod plan_faults;
mod support;
