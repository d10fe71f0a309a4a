//! The upstreams. A new provider is a new [`Adapter`].

mod aws_http;
pub mod bedrock;
pub mod bedrock_converse;
pub mod bedrock_invoke;
pub mod bedrock_relay;
mod connector;
mod error_body;
mod headers;
pub mod http1;
mod http_client;
pub(crate) mod json;
pub mod plan;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;
use http::{HeaderMap, StatusCode};
use spillway_core::domain::usage::Provider;

pub use error_body::ErrorBody;
pub(crate) use error_body::answer_headers;
pub use http_client::{HttpClients, HttpSettings, TlsSetupError};

use crate::call::Call;
use crate::stream::UsageFold;

/// An upstream that serves calls of the Messages API.
pub trait Adapter: Send + Sync {
    /// The credential and, where the upstream names it otherwise, the model.
    type Target: Send + Sync;

    /// Who is asked.
    fn provider(&self) -> Provider;

    /// `POST /v1/messages`: resolves when the upstream has answered with a head. Errors that the upstream gave are replies,
    /// in Anthropic's shape. Dropping the future or the reply's body cancels the request upstream.
    fn messages(
        &self,
        call: &Call,
        target: &Self::Target,
    ) -> impl Future<Output = Result<Reply, AdapterError>> + Send;
}

/// An upstream's answer in the form of the Messages API.
pub struct Reply {
    /// The status the client is to see.
    pub status: StatusCode,
    /// The headers the client is to see.
    pub headers: HeaderMap,
    /// The upstream's own request id.
    pub request_id: Option<String>,
    /// The answer: server-sent events if `headers` say so.
    pub body: ChunkStream,
}

impl Reply {
    /// Whether the body is a stream of events that can be read as it passes.
    pub fn is_event_stream(&self) -> bool {
        let is_encoded = self
            .headers
            .get(http::header::CONTENT_ENCODING)
            .is_some_and(|coding| coding != "identity");
        !is_encoded
            && self
                .headers
                .get(http::header::CONTENT_TYPE)
                .is_some_and(|value| {
                    value
                        .as_bytes()
                        .to_ascii_lowercase()
                        .starts_with(b"text/event-stream")
                })
    }
}

/// An answer as it comes in.
pub type ChunkStream = Pin<Box<dyn Stream<Item = Result<Chunk, BrokenReply>> + Send>>;

/// A part of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chunk {
    /// What the client is to see; may be empty.
    pub bytes: Bytes,
    /// What the upstream reported beside it.
    pub usage: Option<UsageFold>,
    /// Whether the usage in `bytes` is a guess, for the client's sake: it is not metered.
    pub is_guess: bool,
    /// How many bytes of text the upstream sent that the client does not get to see.
    pub hidden: usize,
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Self {
        Self {
            bytes,
            ..Self::default()
        }
    }
}

/// An answer that broke off.
#[derive(Debug, thiserror::Error)]
pub enum BrokenReply {
    /// The connection failed.
    #[error("the upstream's answer broke off")]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The upstream ended its stream with an error of its own.
    #[error("the upstream ended its stream with an error")]
    Reported(ErrorBody),
}

/// Why there is no answer at all.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// No connection could be made, or it was refused.
    #[error("no connection to the upstream")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The request was sent, or partly, and no answer came.
    #[error("the upstream closed the connection without an answer")]
    NoAnswer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The call cannot be expressed to this upstream.
    #[error("this upstream does not serve `{field}`")]
    Unsupported {
        /// The body's field.
        field: &'static str,
    },
    /// The body is not what the Messages API takes.
    #[error("the body is invalid: {message}")]
    Invalid {
        /// The field and what is wrong with it, in the Messages API's words; nothing of what the client sent but names.
        message: String,
    },
    /// The request could not be put together.
    #[error("the request could not be built")]
    Build(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The values of `anthropic-beta`.
pub(crate) fn asked_betas(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all("anthropic-beta")
        .into_iter()
        .filter_map(|value| value.to_str().ok())
}

/// An error and its sources as one line, for the log.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let sources = std::iter::successors(Some(error), |error| error.source());
    sources
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
