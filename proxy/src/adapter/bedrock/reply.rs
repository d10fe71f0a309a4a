//! Answers of Bedrock as replies.

use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockruntime::operation::RequestId as _;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::DispatchFailure;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use uuid::Uuid;

use super::errors::to_anthropic;
use super::log::for_log;
use crate::adapter::http1::SendError;
use crate::adapter::{AdapterError, BrokenReply, Chunk, ChunkStream, Reply, answer_headers, chain};

/// The content type of an answer that is whole.
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// The content type of one that streams.
pub(crate) const EVENT_STREAM: HeaderValue =
    HeaderValue::from_static("text/event-stream; charset=utf-8");

/// A 200 to the call of this id; `request_id` is Bedrock's.
pub(crate) fn success(
    call: Uuid,
    request_id: Option<String>,
    content_type: HeaderValue,
    body: ChunkStream,
) -> Reply {
    let mut headers = answer_headers(call, content_type);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Reply {
        status: StatusCode::OK,
        headers,
        request_id,
        body,
    }
}

/// A body that is already there, or broke off.
pub(crate) fn whole(body: Result<Bytes, Box<dyn std::error::Error + Send + Sync>>) -> ChunkStream {
    let chunk = body.map(Chunk::from).map_err(BrokenReply::Connection);
    Box::pin(futures::stream::once(std::future::ready(chunk)))
}

/// An error that Bedrock gave is a reply in Anthropic's shape; any other is none.
pub(crate) fn failure<E>(
    error: SdkError<E, HttpResponse>,
    request_id: Uuid,
) -> Result<Reply, AdapterError>
where
    E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
{
    match error {
        SdkError::ServiceError(refused) => {
            let status = refused.raw().status().as_u16();
            let retry_after = refused
                .raw()
                .headers()
                .get("retry-after")
                .and_then(|value| HeaderValue::from_str(value).ok());
            let meta = refused.err().meta();
            let (code, message) = (meta.code(), meta.message().map(for_log));
            let message = message.as_deref();
            // Most of these are the client's own doing.
            if matches!(status, 400 | 413) {
                tracing::info!(%request_id, status, code, message, "bedrock refused a call");
            } else {
                tracing::warn!(%request_id, status, code, message, "bedrock refused a call");
            }
            let (status, body) = to_anthropic(status, meta.code(), meta.message());
            let mut headers = answer_headers(request_id, JSON);
            if let Some(value) = retry_after {
                headers.insert(RETRY_AFTER, value);
            }
            Ok(Reply {
                status,
                headers,
                request_id: meta.request_id().map(str::to_owned),
                body: whole(Ok(body.to_answer(request_id))),
            })
        }
        SdkError::DispatchFailure(ref failed) if failed.is_io() => {
            Err(AdapterError::Connect(text_of(error)))
        }
        SdkError::DispatchFailure(ref failed) if was_sent(failed) => {
            Err(AdapterError::NoAnswer(text_of(error)))
        }
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            Err(AdapterError::Build(text_of(error)))
        }
        _ => Err(AdapterError::NoAnswer(text_of(error))),
    }
}

/// Whether it was the connection that failed, and not what comes before sending, such as signing.
fn was_sent(failed: &DispatchFailure) -> bool {
    failed
        .as_connector_error()
        .and_then(std::error::Error::source)
        .is_some_and(<dyn std::error::Error>::is::<SendError>)
}

/// An SDK error's chain as text: the error itself holds a response that cannot be shared between threads. Its `Debug` form
/// holds raw frames, which are what the model said.
pub(crate) fn text_of(
    error: impl std::error::Error + 'static,
) -> Box<dyn std::error::Error + Send + Sync> {
    chain(&error).into()
}
