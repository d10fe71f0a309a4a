//! Chunks of `InvokeModelWithResponseStream` as server-sent events of the Messages API.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use memchr::{memchr2, memmem};
use serde::Deserialize;

use crate::adapter::Chunk;
use crate::adapter::json;
use crate::stream::{Frame, UsageFold, write_event};

/// What Bedrock adds to its last event.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-text-completion.html>.
pub(in crate::adapter) const METRICS: &str = "amazon-bedrock-invocationMetrics";

/// A chunk that is no event.
#[derive(Debug, thiserror::Error)]
#[error("a chunk of bedrock's stream is not an event of the Messages API")]
pub(super) struct BadEvent(#[source] serde_json::Error);

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// Bedrock says so itself.
    #[error("bedrock ended the stream with {code}")]
    Reported {
        /// The exception, as it is named on the wire.
        code: String,
        /// Its words, which may tell of the account.
        message: String,
    },
    /// A frame's payload is not base64 in JSON.
    #[error("a frame of bedrock's stream holds no chunk")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A chunk is no event.
    #[error(transparent)]
    BadEvent(#[from] BadEvent),
}

/// The event in a frame; `None` for a frame that carries nothing of the Messages API.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ResponseStream.html>.
pub(super) fn of_frame(frame: &Frame<'_>) -> Result<Option<Chunk>, StreamError> {
    #[derive(Deserialize)]
    struct Part<'a> {
        #[serde(borrow)]
        bytes: Option<Cow<'a, str>>,
    }
    #[derive(Deserialize)]
    struct Words {
        message: String,
    }
    let text = |name| frame.header(name).unwrap_or_default().to_owned();
    match frame.header(":message-type") {
        Some("exception") => Err(StreamError::Reported {
            code: text(":exception-type"),
            message: serde_json::from_slice::<Words>(frame.payload)
                .map_or_else(|_| String::new(), |words| words.message),
        }),
        Some("error") => Err(StreamError::Reported {
            code: text(":error-code"),
            message: text(":error-message"),
        }),
        Some("event") if frame.header(":event-type") == Some("chunk") => {
            let part: Part<'_> = serde_json::from_slice(frame.payload)
                .map_err(|error| StreamError::Malformed(error.into()))?;
            let Some(bytes) = part.bytes else {
                return Ok(None);
            };
            let json = STANDARD
                .decode(bytes.as_bytes())
                .map_err(|error| StreamError::Malformed(error.into()))?;
            Ok(Some(to_chunk(&json)?))
        }
        _ => Ok(None),
    }
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
}

/// What Bedrock counted itself.
#[derive(Deserialize)]
pub(in crate::adapter) struct Metrics {
    #[serde(rename = "inputTokenCount")]
    input: Option<u64>,
    #[serde(rename = "outputTokenCount")]
    output: Option<u64>,
    #[serde(rename = "cacheReadInputTokenCount")]
    cache_read: Option<u64>,
    #[serde(rename = "cacheWriteInputTokenCount")]
    cache_write: Option<u64>,
}

impl From<Metrics> for UsageFold {
    fn from(metrics: Metrics) -> Self {
        Self {
            input: metrics.input,
            output: metrics.output,
            cache_read: metrics.cache_read,
            cache_creation: metrics.cache_write,
            ..Self::default()
        }
    }
}

/// Turns the JSON of one chunk into an event, without Bedrock's own metrics, which are returned as usage.
pub(super) fn to_chunk(json: &[u8]) -> Result<Chunk, BadEvent> {
    let kind = serde_json::from_slice::<Kind<'_>>(json)
        .map_err(BadEvent)?
        .kind;
    if kind.contains(['\n', '\r']) {
        let message = "a type of several lines";
        return Err(BadEvent(serde::de::Error::custom(message)));
    }
    let mut usage = None;
    let mut data = Cow::Borrowed(json);
    if memmem::find(json, METRICS.as_bytes()).is_some() {
        let text =
            std::str::from_utf8(json).map_err(|error| BadEvent(serde::de::Error::custom(error)))?;
        let [metrics] = json::pick(text, [METRICS]).map_err(BadEvent)?;
        if let Some(metrics) = metrics {
            usage = serde_json::from_str::<Metrics>(metrics.get())
                .ok()
                .map(UsageFold::from);
            let rest = json::without(text, &[METRICS]).map_err(BadEvent)?;
            data = rest.into_bytes().into();
        }
    }
    Ok(Chunk {
        bytes: event(&kind, &data),
        usage,
        ..Chunk::default()
    })
}

/// One event; line ends in the JSON can only be white space there and would end the data line.
fn event(name: &str, data: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    if memchr2(b'\n', b'\r', data).is_none() {
        write_event(&mut out, name, data);
    } else {
        let flat: Vec<u8> = data
            .iter()
            .map(|&byte| {
                if matches!(byte, b'\n' | b'\r') {
                    b' '
                } else {
                    byte
                }
            })
            .collect();
        write_event(&mut out, name, &flat);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_keeps_its_json() {
        let chunk = to_chunk(br#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a  b"}   }"#).unwrap();
        assert_eq!(
            chunk.bytes,
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"a  b\"}   }\n\n"
        );
        assert_eq!(chunk.usage, None);
    }

    #[test]
    fn metrics_are_usage_and_not_shown() {
        let json = br#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":7,"outputTokenCount":5,"invocationLatency":800,"firstByteLatency":90,"cacheReadInputTokenCount":3,"cacheWriteInputTokenCount":2}}"#;
        let chunk = to_chunk(json).unwrap();
        assert_eq!(
            chunk.bytes,
            "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"
        );
        let tokens = chunk.usage.unwrap().tokens();
        assert_eq!(
            (
                tokens.input,
                tokens.output,
                tokens.cache_read,
                tokens.cache_creation()
            ),
            (7, 5, 3, 2)
        );
    }

    #[test]
    fn a_text_that_names_the_metrics_is_left_alone() {
        let json = br#"{"type":"content_block_delta","delta":{"text":"amazon-bedrock-invocationMetrics"}}"#;
        assert!(memmem::find(&to_chunk(json).unwrap().bytes, json).is_some());
    }

    #[test]
    fn line_ends_between_tokens_do_not_break_the_event() {
        let chunk = to_chunk(b"{\"type\":\n\"ping\"}\r\n").unwrap();
        assert_eq!(chunk.bytes, "event: ping\ndata: {\"type\": \"ping\"}  \n\n");
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        for json in [
            "",
            "[]",
            "{}",
            "{\"type\":1}",
            "{\"type\":\"a\"",
            r#"{"type":"a\nevent: message_stop"}"#,
        ] {
            assert!(to_chunk(json.as_bytes()).is_err(), "{json}");
        }
    }
}
