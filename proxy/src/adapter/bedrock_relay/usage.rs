//! Reads usage beside the bytes of answers in Bedrock's format.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use memchr::memmem;
use serde::Deserialize;

use super::Operation;
use crate::adapter::bedrock_invoke::events::{METRICS, Metrics};
use crate::stream::{CacheParts, Frame, StreamEvent, StreamFailure, UsageFold, UsageTap};

/// Where `InvokeModel` says what it counted, for models whose answers do not.
const TOKEN_COUNTS: [&str; 2] = [
    "x-amzn-bedrock-input-token-count",
    "x-amzn-bedrock-output-token-count",
];

/// `usage` of Converse, and of the `metadata` that ends its streams.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html>.
#[derive(Deserialize)]
struct ConverseUsage {
    #[serde(rename = "inputTokens")]
    input: Option<u64>,
    #[serde(rename = "outputTokens")]
    output: Option<u64>,
    #[serde(rename = "cacheReadInputTokens")]
    cache_read: Option<u64>,
    #[serde(rename = "cacheWriteInputTokens")]
    cache_write: Option<u64>,
    #[serde(default, rename = "cacheDetails")]
    cache_details: Option<Vec<CacheDetail>>,
}

/// Cache writes of one lifetime.
#[derive(Deserialize)]
struct CacheDetail {
    ttl: String,
    #[serde(rename = "inputTokens")]
    tokens: u64,
}

#[derive(Deserialize)]
struct WithUsage {
    usage: ConverseUsage,
}

#[derive(Deserialize)]
struct ChunkPayload<'a> {
    #[serde(borrow)]
    bytes: Cow<'a, str>,
}

/// What of an event of the model's own stream says what kind it is.
#[derive(Deserialize)]
struct ModelEvent<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<Cow<'a, str>>,
    #[serde(rename = "amazon-bedrock-invocationMetrics")]
    metrics: Option<Metrics>,
}

#[derive(Deserialize)]
struct ErrorPayload {
    #[serde(default)]
    message: String,
}

impl From<ConverseUsage> for UsageFold {
    fn from(usage: ConverseUsage) -> Self {
        let details = usage.cache_details.unwrap_or_default();
        let of = |ttl: &str| {
            details
                .iter()
                .find(|detail| detail.ttl == ttl)
                .map(|detail| detail.tokens)
        };
        Self {
            input: usage.input,
            output: usage.output,
            cache_read: usage.cache_read,
            cache_creation: usage.cache_write,
            parts: CacheParts::new(of("5m"), of("1h")),
        }
    }
}

/// Reads a frame of a stream into `tap`.
pub fn on_frame(tap: &mut UsageTap, operation: Operation, frame: &Frame<'_>) {
    let kind = frame.header(":event-type").unwrap_or_default();
    match frame.header(":message-type") {
        Some("event") if operation.is_converse() => on_converse_event(tap, kind, frame.payload),
        Some("event") if kind == "chunk" => on_chunk(tap, frame.payload),
        Some("exception") => {
            let message = serde_json::from_slice::<ErrorPayload>(frame.payload)
                .map_or_else(|_| String::new(), |error| error.message);
            fail(tap, frame.header(":exception-type"), message);
        }
        Some("error") => {
            let message = frame.header(":error-message").unwrap_or_default();
            fail(tap, frame.header(":error-code"), message.to_owned());
        }
        _ => {}
    }
}

fn fail(tap: &mut UsageTap, kind: Option<&str>, message: String) {
    tap.on_failure(StreamFailure {
        kind: kind.unwrap_or("InternalServerException").to_owned(),
        message,
        data: Vec::new(),
    });
}

/// A part of the model's own stream. Anthropic's is that of the Messages API; any model's last part has Bedrock's counts.
fn on_chunk(tap: &mut UsageTap, payload: &[u8]) {
    let Ok(chunk) = serde_json::from_slice::<ChunkPayload<'_>>(payload) else {
        return;
    };
    let Ok(json) = STANDARD.decode(chunk.bytes.as_bytes()) else {
        return;
    };
    let Ok(event) = serde_json::from_slice::<ModelEvent<'_>>(&json) else {
        return;
    };
    match &event.kind {
        Some(kind) => tap.on_data(StreamEvent::of(kind.as_bytes()), &json),
        None => tap.on_text(json.len() as u64),
    }
    // A text may name the metrics, and a model's stream may have a field of that name that holds none.
    if let Some(metrics) = event
        .metrics
        .filter(|_| memmem::find(&json, METRICS.as_bytes()).is_some())
    {
        tap.report(&metrics.into());
        if event.kind.is_none() {
            tap.on_end();
        }
    }
}

/// An event of Converse's stream. Its usage comes last, in `metadata`.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStreamOutput.html>.
fn on_converse_event(tap: &mut UsageTap, kind: &str, payload: &[u8]) {
    match kind {
        "contentBlockDelta" => tap.on_text(text_length(payload)),
        "metadata" => {
            if let Ok(WithUsage { usage }) = serde_json::from_slice(payload) {
                tap.report(&usage.into());
            }
            tap.on_end();
        }
        _ => {}
    }
}

/// About how much text a delta of Converse carries: its length without its frame and padding.
fn text_length(payload: &[u8]) -> u64 {
    const FRAME: usize = r#"{"contentBlockIndex":0,"delta":{"text":""}}"#.len();
    const PADDING: &[u8] = br#","p":""#;
    let end = memmem::rfind(payload, PADDING).unwrap_or(payload.len());
    end.saturating_sub(FRAME) as u64
}

/// Reads a whole answer into `tap`.
pub(crate) fn on_answer(
    tap: &mut UsageTap,
    operation: Operation,
    headers: &HeaderMap,
    body: &[u8],
) {
    if operation.is_converse() {
        if let Ok(WithUsage { usage }) = serde_json::from_slice(body) {
            tap.report(&usage.into());
        }
    } else {
        tap.on_message(body);
        let [input, output] = TOKEN_COUNTS.map(|name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok()?.parse().ok())
        });
        tap.report(&UsageFold {
            input,
            output,
            ..UsageFold::default()
        });
    }
    tap.on_end();
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
    use http::HeaderValue as HttpValue;
    use spillway_core::domain::tokens::TokenUsage;

    use super::*;
    use crate::stream::{FrameReader, exception_frame};

    fn event(kind: &'static str, payload: &str) -> Message {
        let text = |name: &'static str, value: &'static str| {
            Header::new(name, HeaderValue::String(value.into()))
        };
        Message::new(payload.as_bytes().to_vec())
            .add_header(text(":message-type", "event"))
            .add_header(text(":event-type", kind))
    }

    fn chunk(json: &str) -> Message {
        event(
            "chunk",
            &format!(r#"{{"bytes":"{}","p":"abc"}}"#, STANDARD.encode(json)),
        )
    }

    fn read(operation: Operation, frames: &[Message]) -> UsageTap {
        let mut tap = UsageTap::default();
        let mut reader = FrameReader::new(64 * 1024);
        for frame in frames {
            let mut bytes = Vec::new();
            write_message_to(frame, &mut bytes).unwrap();
            reader.push(bytes.into());
            on_frame(&mut tap, operation, &reader.next_frame().unwrap().unwrap());
        }
        tap
    }

    #[test]
    fn anthropics_stream_is_metered_as_at_the_plan() {
        let frames = [
            chunk(
                r#"{"type":"message_start","message":{"usage":{"input_tokens":9,"output_tokens":1}}}"#,
            ),
            chunk(
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"amazon-bedrock-invocationMetrics"}}"#,
            ),
            chunk(r#"{"type":"message_delta","usage":{"output_tokens":40}}"#),
            chunk(
                r#"{"type":"message_stop","amazon-bedrock-invocationMetrics":{"inputTokenCount":9,"outputTokenCount":41,"cacheReadInputTokenCount":3}}"#,
            ),
        ];
        let cut = read(Operation::InvokeStream, &frames[..2]);
        assert!(cut.has_content() && !cut.is_complete());
        assert_eq!(cut.tokens(0).0.output, 8, "estimated by its text");
        let tap = read(Operation::InvokeStream, &frames);
        assert!(tap.is_complete());
        let expected = TokenUsage {
            input: 9,
            output: 40,
            cache_read: 3,
            ..TokenUsage::default()
        };
        assert_eq!(tap.tokens(0), (expected, false));
    }

    #[test]
    fn other_models_streams_are_metered_by_bedrocks_counts() {
        let tap = read(
            Operation::InvokeStream,
            &[
                chunk(r#"{"contentBlockDelta":{"delta":{"text":"abcd"}}}"#),
                chunk(
                    r#"{"metadata":{},"amazon-bedrock-invocationMetrics":{"inputTokenCount":7,"outputTokenCount":5}}"#,
                ),
            ],
        );
        assert!(tap.is_complete());
        let (tokens, estimated) = tap.tokens(0);
        assert_eq!((tokens.input, tokens.output, estimated), (7, 5, false));
    }

    #[test]
    fn converse_is_metered_by_its_metadata() {
        let metadata = r#"{"usage":{"inputTokens":7,"outputTokens":5,"totalTokens":42,"cacheReadInputTokens":10,"cacheWriteInputTokens":20,"cacheDetails":[{"ttl":"1h","inputTokens":15},{"ttl":"5m","inputTokens":5}],"unheard_of":1},"metrics":{"latencyMs":1},"p":"ab"}"#;
        let delta = event(
            "contentBlockDelta",
            r#"{"contentBlockIndex":0,"delta":{"text":"abcdefgh"},"p":"abcdefghijkl"}"#,
        );
        let expected = TokenUsage {
            input: 7,
            output: 5,
            cache_read: 10,
            cache_creation_5m: 5,
            cache_creation_1h: 15,
        };
        let cut = read(Operation::ConverseStream, std::slice::from_ref(&delta));
        assert_eq!((cut.tokens(400).0.output, cut.is_complete()), (2, false));
        let tap = read(
            Operation::ConverseStream,
            &[
                delta,
                event("messageStop", "{}"),
                event("metadata", metadata),
            ],
        );
        assert!(tap.is_complete());
        assert_eq!(tap.tokens(0), (expected, false));

        let mut whole = UsageTap::default();
        on_answer(
            &mut whole,
            Operation::Converse,
            &HeaderMap::new(),
            metadata.as_bytes(),
        );
        assert_eq!(whole.tokens(0), (expected, false));
    }

    #[test]
    fn an_answer_without_usage_is_metered_by_its_headers() {
        let headers: HeaderMap = TOKEN_COUNTS
            .into_iter()
            .zip(["7", "5"])
            .map(|(name, count)| (name.parse().unwrap(), HttpValue::from_static(count)))
            .collect();
        let mut tap = UsageTap::default();
        on_answer(&mut tap, Operation::Invoke, &headers, b"{\"results\":[]}");
        let (tokens, estimated) = tap.tokens(0);
        assert_eq!((tokens.input, tokens.output, estimated), (7, 5, false));
        let own = br#"{"usage":{"input_tokens":8,"output_tokens":6}}"#;
        let mut tap = UsageTap::default();
        on_answer(&mut tap, Operation::Invoke, &headers, own);
        assert_eq!((tap.reported().input, tap.reported().output), (8, 6));
    }

    #[test]
    fn an_exception_is_a_failure() {
        let mut reader = FrameReader::new(1024);
        reader.push(exception_frame(
            "throttlingException",
            br#"{"message":"slow down"}"#,
        ));
        let mut tap = UsageTap::default();
        let frame = reader.next_frame().unwrap().unwrap();
        on_frame(&mut tap, Operation::ConverseStream, &frame);
        let failure = tap.failure().unwrap();
        assert_eq!(
            (failure.kind.as_str(), failure.message.as_str()),
            ("throttlingException", "slow down")
        );
    }

    #[test]
    fn nonsense_is_passed_over() {
        for payload in ["", "{}", r#"{"bytes":"%"}"#, r#"{"bytes":"aGk="}"#, "[]"] {
            let tap = read(Operation::InvokeStream, &[event("chunk", payload)]);
            assert!(!tap.has_content(), "{payload}");
        }
    }
}
