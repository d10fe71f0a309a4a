//! AWS Bedrock through `InvokeModel`: the Messages API's own body for Anthropic models.

mod clients;
pub(super) mod errors;
pub(super) mod events;
pub(super) mod request;

use std::sync::Arc;

use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_bedrockruntime::operation::RequestId as _;
use aws_sdk_bedrockruntime::primitives::event_stream::EventReceiver;
use aws_sdk_bedrockruntime::types::ResponseStream;
use aws_sdk_bedrockruntime::types::error::ResponseStreamError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::Blob;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use spillway_core::domain::usage::Provider;
use url::Url;
use uuid::Uuid;

use self::clients::BedrockClients;
pub use self::errors::is_in_anthropics_words;
use self::request::TranslateError;
use super::{
    Adapter, AdapterError, BrokenReply, Chunk, ChunkStream, HttpClients, Reply, answer_headers,
    chain,
};
use crate::call::{BedrockCredential, Call};

/// The largest body that Bedrock takes, in bytes.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>.
pub const MAX_BODY: usize = 20_000_000;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

/// Sends calls to `InvokeModel` and `InvokeModelWithResponseStream`.
pub struct BedrockInvokeAdapter {
    clients: BedrockClients,
}

/// Whom and what to ask on Bedrock.
#[derive(Debug, Clone)]
pub struct BedrockTarget {
    /// The credential.
    pub credential: Arc<BedrockCredential>,
    /// Model id, inference profile id or ARN.
    pub model_id: String,
}

impl BedrockInvokeAdapter {
    /// An adapter over the shared clients. `endpoint` is the environment's (`AWS_ENDPOINT_URL_BEDROCK_RUNTIME`), for credentials
    /// that name none of their own.
    pub fn new(clients: &HttpClients, endpoint: Option<Url>) -> Self {
        Self {
            clients: BedrockClients::new(clients.aws.clone(), endpoint),
        }
    }
}

impl Adapter for BedrockInvokeAdapter {
    type Target = BedrockTarget;

    fn provider(&self) -> Provider {
        Provider::Bedrock
    }

    async fn messages(&self, call: &Call, target: &BedrockTarget) -> Result<Reply, AdapterError> {
        let betas = call
            .headers
            .get_all("anthropic-beta")
            .into_iter()
            .filter_map(|value| value.to_str().ok());
        let body = request::invoke_body(&call.body, betas).map_err(|error| match error {
            TranslateError::Unsupported(field) => AdapterError::Unsupported { field },
            malformed @ TranslateError::Malformed(_) => AdapterError::Build(malformed.into()),
        })?;
        let client = self.clients.get(&target.credential).await;
        let request_id = call.admission.request_id;
        if call.head.stream {
            let sent = client
                .invoke_model_with_response_stream()
                .model_id(&target.model_id)
                .content_type("application/json");
            match sent.body(Blob::new(body)).send().await {
                Ok(output) => Ok(success(
                    request_id,
                    output.request_id().map(str::to_owned),
                    EVENT_STREAM,
                    events(output.body, request_id),
                )),
                Err(error) => failure(error, request_id),
            }
        } else {
            let sent = client
                .invoke_model()
                .model_id(&target.model_id)
                .content_type("application/json")
                .accept("application/json");
            match sent.body(Blob::new(body)).send().await {
                Ok(output) => {
                    let upstream_id = output.request_id().map(str::to_owned);
                    Ok(success(
                        request_id,
                        upstream_id,
                        JSON,
                        whole(output.body.into_inner().into()),
                    ))
                }
                Err(error) => failure(error, request_id),
            }
        }
    }
}

fn success(
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

fn whole(body: Bytes) -> ChunkStream {
    Box::pin(futures::stream::once(std::future::ready(Ok(Chunk::from(
        body,
    )))))
}

/// The events of a stream, until its end or the first error.
fn events(
    receiver: EventReceiver<ResponseStream, ResponseStreamError>,
    request_id: Uuid,
) -> ChunkStream {
    let next = move |receiver: Option<_>| async move {
        let mut receiver: EventReceiver<_, _> = receiver?;
        loop {
            let item = match receiver.recv().await {
                Ok(None) => return None,
                Ok(Some(ResponseStream::Chunk(part))) => match part.bytes {
                    Some(json) => events::to_chunk(json.as_ref())
                        .map_err(|error| BrokenReply::Connection(error.into())),
                    None => continue,
                },
                // A kind of event that this SDK does not know carries nothing of the Messages API.
                Ok(Some(_)) => continue,
                Err(error) => Err(broken(error, request_id)),
            };
            let rest = item.is_ok().then_some(receiver);
            return Some((item, rest));
        }
    };
    Box::pin(futures::stream::unfold(Some(receiver), next))
}

fn broken<R: std::fmt::Debug + Send + Sync + 'static>(
    error: SdkError<ResponseStreamError, R>,
    request_id: Uuid,
) -> BrokenReply {
    match error {
        SdkError::ServiceError(refused) => {
            let refused = refused.into_err();
            let code = code_of(&refused);
            tracing::warn!(
                %request_id,
                code,
                message = refused.message(),
                "bedrock ended its stream with an error"
            );
            BrokenReply::Reported(errors::to_anthropic(500, code, refused.message()).1)
        }
        other => BrokenReply::Connection(text_of(other)),
    }
}

/// The code of an error in a stream: the SDK tells those it knows by type alone.
fn code_of(error: &ResponseStreamError) -> Option<&str> {
    match error {
        ResponseStreamError::InternalServerException(_) => Some("InternalServerException"),
        ResponseStreamError::ModelStreamErrorException(_) => Some("ModelStreamErrorException"),
        ResponseStreamError::ModelTimeoutException(_) => Some("ModelTimeoutException"),
        ResponseStreamError::ServiceUnavailableException(_) => Some("ServiceUnavailableException"),
        ResponseStreamError::ThrottlingException(_) => Some("ThrottlingException"),
        ResponseStreamError::ValidationException(_) => Some("ValidationException"),
        other => other.code(),
    }
}

/// An error that Bedrock gave is a reply in Anthropic's shape; any other is none.
fn failure<E>(error: SdkError<E, HttpResponse>, request_id: Uuid) -> Result<Reply, AdapterError>
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
            tracing::warn!(
                %request_id,
                status,
                code = meta.code(),
                message = meta.message(),
                "bedrock refused a call"
            );
            let (status, body) = errors::to_anthropic(status, meta.code(), meta.message());
            let mut headers = answer_headers(request_id, JSON);
            if let Some(value) = retry_after {
                headers.insert(RETRY_AFTER, value);
            }
            Ok(Reply {
                status,
                headers,
                request_id: meta.request_id().map(str::to_owned),
                body: whole(body.to_answer(request_id)),
            })
        }
        SdkError::DispatchFailure(ref failed) if failed.is_io() => {
            Err(AdapterError::Connect(text_of(error)))
        }
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) => {
            Err(AdapterError::Build(text_of(error)))
        }
        _ => Err(AdapterError::NoAnswer(text_of(error))),
    }
}

/// An SDK error's chain as text: the error itself holds a response that cannot be shared between threads. Its `Debug` form
/// holds raw frames, which are what the model said.
fn text_of(error: impl std::error::Error + 'static) -> Box<dyn std::error::Error + Send + Sync> {
    chain(&error).into()
}
