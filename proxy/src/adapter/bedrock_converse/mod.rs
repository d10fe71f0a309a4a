//! AWS Bedrock through Converse: one form for all models, into which the Messages API is translated and back.

mod answer;
mod blocks;
mod body;
mod citations;
mod context;
mod names;
mod request;
mod stop;
mod stream;
mod usage;

use std::sync::Arc;

use aws_sdk_bedrockruntime::operation::RequestId as _;
use bytes::{Bytes, BytesMut};
use spillway_core::domain::usage::Provider;

use self::body::ConverseBody;
use self::context::Context;
use self::stream::Events;
use super::bedrock::models::ModelTraits;
use super::bedrock::{
    BedrockTarget, Clients, EVENT_STREAM, JSON, RawExchange, TranslateError, failure, success,
    text_of, whole,
};
use super::{Adapter, AdapterError, Reply, asked_betas};
use crate::call::{Call, MAX_ANSWER};
use crate::stream::{FrameReader, guessed_input};

/// Sends calls to `Converse` and `ConverseStream`.
pub struct BedrockConverseAdapter {
    clients: Arc<Clients>,
}

impl BedrockConverseAdapter {
    pub(super) fn new(clients: Arc<Clients>) -> Self {
        Self { clients }
    }
}

impl Adapter for BedrockConverseAdapter {
    type Target = BedrockTarget;

    fn provider(&self) -> Provider {
        Provider::Bedrock
    }

    async fn messages(&self, call: &Call, target: &BedrockTarget) -> Result<Reply, AdapterError> {
        let model = ModelTraits::of(&target.model_id);
        let translated = request::translate(&call.body, asked_betas(&call.headers), model)?;
        let request_id = call.admission.request_id;
        let context = Context {
            id: format!("msg_bdrk_{}", request_id.simple()),
            model: call.head.model.clone(),
            tools: translated.tools,
            titles: translated.titles,
            only_stop_sequence: translated.only_stop_sequence,
            is_claude: model.is_anthropic(),
            input_guess: guessed_input(call.body.len()),
        };
        let client = self.clients.get(&target.credential).await;
        if call.head.stream {
            let exchange = RawExchange::new(translated.body, "");
            let sent = client.converse_stream().model_id(&target.model_id);
            return match sent.customize().interceptor(exchange.clone()).send().await {
                Ok(output) => Ok(success(
                    request_id,
                    output.request_id().map(str::to_owned),
                    EVENT_STREAM,
                    Box::pin(ConverseBody::new(
                        exchange.take_answer(),
                        Events::new(context),
                        request_id,
                    )),
                )),
                Err(error) => failure(error, request_id),
            };
        }
        let exchange = RawExchange::new(translated.body, "{}");
        let sent = client.converse().model_id(&target.model_id);
        match sent.customize().interceptor(exchange.clone()).send().await {
            Ok(output) => {
                let upstream_id = output.request_id().map(str::to_owned);
                let message = exchange.collect().await.and_then(|body| {
                    let message = answer::translate(&body, &context).map_err(text_of)?;
                    Ok(message.into())
                });
                Ok(success(request_id, upstream_id, JSON, whole(message)))
            }
            Err(error) => failure(error, request_id),
        }
    }
}

/// The body for Converse that a Messages `body` becomes for the model of this id. Pure: what [`BedrockConverseAdapter`] sends.
///
/// # Errors
/// [`TranslateError`] when the body is not one of the Messages API, or uses what Bedrock does not have.
pub fn converse_body(body: &[u8], model_id: &str) -> Result<Vec<u8>, TranslateError> {
    request::translate(body, std::iter::empty(), ModelTraits::of(model_id)).map(|done| done.body)
}

/// The server-sent events that the bytes of a `ConverseStream` answer become for the model of this id, up to their end or the
/// first error. Pure: what [`BedrockConverseAdapter`] answers.
pub fn messages_events(answer: &[u8], model_id: &str) -> Vec<u8> {
    messages_events_of([Bytes::copy_from_slice(answer)], model_id)
}

/// The same for an answer that comes in pieces, cut anywhere.
pub fn messages_events_of(pieces: impl IntoIterator<Item = Bytes>, model_id: &str) -> Vec<u8> {
    let mut frames = FrameReader::new(MAX_ANSWER);
    let mut events = Events::new(Context {
        is_claude: ModelTraits::of(model_id).is_anthropic(),
        ..Context::default()
    });
    let (mut out, mut all) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        frames.push(piece);
        loop {
            let frame = match frames.next_frame() {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(_) => return all,
            };
            let is_well = events.on_frame(frame, &mut out).is_ok();
            all.extend_from_slice(&events.take_start().unwrap_or_default());
            all.extend_from_slice(&out.split());
            if !is_well {
                return all;
            }
        }
    }
    all.extend_from_slice(&events.finish().unwrap_or_default());
    all
}

/// The message that the body of a `Converse` answer becomes for the model of this id; `None` where it is no such answer. Pure:
/// what [`BedrockConverseAdapter`] answers.
pub fn message(answer: &[u8], model_id: &str) -> Option<Vec<u8>> {
    let context = Context {
        is_claude: ModelTraits::of(model_id).is_anthropic(),
        ..Context::default()
    };
    answer::translate(answer, &context).ok()
}
