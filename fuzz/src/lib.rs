//! What each fuzz target does with its input: it reads it, and panics where a promise is broken. Plain functions, so that
//! the inputs in `seeds/` are run by the proxy's tests as well.

mod answers;
mod bodies;
mod heads;
mod input;
mod streams;

pub use answers::answer;
pub use bodies::{bedrock_request, converse_request, gzip_body, model_page, request_head};
pub use heads::wire_head;
pub use streams::{converse_stream, event_stream, invoke_stream, sse};

/// A target's name and function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("answer", answer),
    ("bedrock_request", bedrock_request),
    ("converse_request", converse_request),
    ("converse_stream", converse_stream),
    ("event_stream", event_stream),
    ("gzip_body", gzip_body),
    ("invoke_stream", invoke_stream),
    ("model_page", model_page),
    ("request_head", request_head),
    ("sse", sse),
    ("wire_head", wire_head),
];
