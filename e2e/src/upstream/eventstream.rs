//! `application/vnd.amazon.eventstream` frames as the Bedrock runtime writes them.

use aws_smithy_eventstream::{error::Error, frame::write_message_to};
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::events::Event;

const PADDING: &str = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

/// A `chunk` of `InvokeModelWithResponseStream` around one event of the model's own format.
pub(crate) fn chunk(index: usize, event: &Event) -> Result<Bytes, Error> {
    let inner = BASE64_STANDARD.encode(event.data.to_string());
    frame("chunk", &json!({"bytes": inner, "p": padding(index)}))
}

/// An event of `ConverseStream`.
pub(crate) fn converse_event(index: usize, event: &Event) -> Result<Bytes, Error> {
    let mut data = event.data.clone();
    data["p"] = padding(index).into();
    frame(event.name, &data)
}

/// An exception frame; `exception` is a member of the response stream, such as `throttlingException`.
pub(crate) fn exception(exception: &str, message: &str) -> Result<Bytes, Error> {
    write(
        ":exception-type",
        exception,
        "exception",
        &json!({"message": message}),
    )
}

/// The member that hides an answer's length: grows and shrinks with the event's place in the stream.
fn padding(index: usize) -> &'static str {
    &PADDING[..(index * 11 + 3) % PADDING.len()]
}

fn frame(event_type: &str, payload: &Value) -> Result<Bytes, Error> {
    write(":event-type", event_type, "event", payload)
}

fn write(
    type_header: &'static str,
    type_value: &str,
    message_type: &'static str,
    payload: &Value,
) -> Result<Bytes, Error> {
    let text = |value: &str| HeaderValue::String(value.to_owned().into());
    let message = Message::new(payload.to_string())
        .add_header(Header::new(type_header, text(type_value)))
        .add_header(Header::new(":content-type", text("application/json")))
        .add_header(Header::new(":message-type", text(message_type)));
    let mut frame = BytesMut::new();
    write_message_to(&message, &mut frame)?;
    Ok(frame.freeze())
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::read_message_from;

    use super::*;
    use crate::upstream::events::Stage;

    #[test]
    fn chunk_has_base64_bytes_and_padding() {
        let event = Event {
            stage: Stage::End,
            name: "message_stop",
            data: json!({"type": "message_stop"}),
            usage: None,
        };
        let message = read_message_from(chunk(1, &event).unwrap()).unwrap();
        let payload: Value = serde_json::from_slice(message.payload()).unwrap();
        assert_eq!(payload["p"], "abcdefghijklmn");
        let inner = BASE64_STANDARD
            .decode(payload["bytes"].as_str().unwrap())
            .unwrap();
        assert_eq!(inner, br#"{"type":"message_stop"}"#);
        let headers: Vec<_> = message
            .headers()
            .iter()
            .map(|h| (h.name().as_str(), h.value().as_string().unwrap().as_str()))
            .collect();
        assert_eq!(
            headers,
            [
                (":event-type", "chunk"),
                (":content-type", "application/json"),
                (":message-type", "event")
            ]
        );
    }

    #[test]
    fn exception_names_its_type() {
        let message =
            read_message_from(exception("throttlingException", "Too many requests").unwrap())
                .unwrap();
        assert_eq!(message.headers()[0].name().as_str(), ":exception-type");
        assert_eq!(
            message.payload().as_ref(),
            br#"{"message":"Too many requests"}"#
        );
    }
}
