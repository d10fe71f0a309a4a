//! AWS Bedrock through `InvokeModel`: the Messages API's own body for Anthropic models.

mod body;
pub(super) mod events;
pub(super) mod request;
mod writer;

use std::sync::Arc;

use aws_sdk_bedrockruntime::operation::RequestId as _;
use bytes::Bytes;
use spillway_core::domain::usage::Provider;

use self::body::InvokeBody;
use super::bedrock::models::ModelTraits;
use super::bedrock::{
    BedrockTarget, Clients, EVENT_STREAM, JSON, RawExchange, TranslateError, failure, success,
    whole,
};
use super::{Adapter, AdapterError, Reply, asked_betas};
use crate::call::{Call, MAX_ANSWER};
use crate::stream::FrameReader;

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
            };
        }
        let exchange = RawExchange::new(body, "");
        let sent = client
            .invoke_model()
            .model_id(&target.model_id)
            .content_type("application/json")
            .accept("application/json");
        match sent.customize().interceptor(exchange.clone()).send().await {
            Ok(output) => {
                let upstream_id = output.request_id().map(str::to_owned);
                let body = exchange.collect().await;
                Ok(success(request_id, upstream_id, JSON, whole(body)))
            }
            Err(error) => failure(error, request_id),
        }
    }
}

/// The body for `InvokeModel` that a Messages `body` becomes for the model of this id. Pure: what [`BedrockInvokeAdapter`] sends.
///
/// # Errors
/// [`TranslateError`] when the body is not a JSON object, or uses what Bedrock does not have.
pub fn invoke_body(body: &[u8], model_id: &str) -> Result<Vec<u8>, TranslateError> {
    request::translate(body, std::iter::empty(), ModelTraits::of(model_id))
}

/// The server-sent events that an answer of `InvokeModelWithResponseStream` becomes, which comes in pieces cut anywhere, up to
/// its end or the first error. Pure: what [`BedrockInvokeAdapter`] answers.
pub fn messages_events(pieces: impl IntoIterator<Item = Bytes>) -> Vec<u8> {
    let (mut frames, mut all) = (FrameReader::new(MAX_ANSWER), Vec::new());
    for piece in pieces {
        frames.push(piece);
        loop {
            match frames
                .next_frame()
                .map(|frame| frame.map(|frame| events::of_frame(&frame)))
            {
                Ok(None) => break,
                Ok(Some(Ok(event))) => {
                    all.extend(event.map(|chunk| chunk.bytes).unwrap_or_default());
                }
                Ok(Some(Err(_))) | Err(_) => return all,
            }
        }
    }
    all
}
