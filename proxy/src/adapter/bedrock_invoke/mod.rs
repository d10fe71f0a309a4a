//! AWS Bedrock through `InvokeModel`: the Messages API's own body for Anthropic models.

pub(super) mod events;
pub(super) mod request;

use std::sync::Arc;

use aws_sdk_bedrockruntime::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_bedrockruntime::operation::RequestId as _;
use aws_sdk_bedrockruntime::primitives::event_stream::EventReceiver;
use aws_sdk_bedrockruntime::types::ResponseStream;
use aws_sdk_bedrockruntime::types::error::ResponseStreamError;
use aws_smithy_types::Blob;
use spillway_core::domain::usage::Provider;
use uuid::Uuid;

use super::bedrock::models::ModelTraits;
use super::bedrock::{
    BedrockTarget, Clients, EVENT_STREAM, JSON, TranslateError, failure, success, text_of,
    to_anthropic, whole,
};
use super::{Adapter, AdapterError, BrokenReply, ChunkStream, Reply, asked_betas};
use crate::call::Call;

/// Sends calls to `InvokeModel` and `InvokeModelWithResponseStream`.
pub struct BedrockInvokeAdapter {
    clients: Arc<Clients>,
}

impl BedrockInvokeAdapter {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

impl Adapter for BedrockInvokeAdapter {
    type Target = BedrockTarget;

    fn provider(&self) -> Provider {
        Provider::Bedrock
    }

    async fn messages(&self, call: &Call, target: &BedrockTarget) -> Result<Reply, AdapterError> {
        let model = ModelTraits::of(&target.model_id);
        let body = request::translate(&call.body, asked_betas(&call.headers), model)?;
        let client = self.clients.get(&target.credential).await;
        let request_id = call.admission.request_id;
        if call.head.stream {
            let exchange = RawExchange::new(body, "");
            let sent = client
                .invoke_model_with_response_stream()
                .model_id(&target.model_id)
                .content_type("application/json");
            return match sent.customize().interceptor(exchange.clone()).send().await {
                Ok(output) => Ok(success(
                    request_id,
                    output.request_id().map(str::to_owned),
                    EVENT_STREAM,
                    Box::pin(InvokeBody::new(exchange.take_answer(), request_id)),
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
            BrokenReply::Reported(to_anthropic(500, code, refused.message()).1)
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

/// The body for `InvokeModel` that a Messages `body` becomes for the model of this id. Pure: what [`BedrockInvokeAdapter`] sends.
///
/// # Errors
/// [`TranslateError`] when the body is not a JSON object, or uses what Bedrock does not have.
pub fn invoke_body(body: &[u8], model_id: &str) -> Result<Vec<u8>, TranslateError> {
    request::translate(body, std::iter::empty(), ModelTraits::of(model_id))
}
