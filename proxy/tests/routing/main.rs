//! The router over real sockets: an HTTP server before it, the fake upstreams behind it.

mod aborts;
mod bedrock;
mod circuit;
mod fallback;
mod passthrough;
mod plan_only;
mod stack;
mod streams;
