//! Writes server-sent events in the form that the Messages API gives them.

use bytes::{BufMut, Bytes, BytesMut};

use crate::adapter::ErrorBody;

/// A `ping` event, as Anthropic sends them to keep a silent stream alive.
pub const PING: Bytes = Bytes::from_static(b"event: ping\ndata: {\"type\": \"ping\"}\n\n");

/// Appends one event of a `name` and `data` of one line to `out`.
pub fn write_event(out: &mut BytesMut, name: &str, data: &[u8]) {
    out.reserve(name.len() + data.len() + b"event: \ndata: \n\n".len());
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    out.put_slice(data);
    out.put_slice(b"\n\n");
}

/// The `error` event that ends a stream which cannot go on.
pub fn error_event(error: &ErrorBody) -> Bytes {
    let mut out = BytesMut::new();
    write_event(&mut out, "error", &error.to_event_data());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::stream::SseReader;

    #[test]
    fn what_is_written_reads_back() {
        let mut out = BytesMut::new();
        write_event(&mut out, "message_stop", br#"{"type":"message_stop"}"#);
        out.extend_from_slice(&PING);
        out.extend_from_slice(&error_event(&ErrorBody::new(
            "overloaded_error",
            "a \"quote\"\nand a line",
        )));
        let (mut events, mut whole) = (Vec::new(), VecDeque::new());
        SseReader::new(1024)
            .push(out.freeze(), &mut whole, |event| {
                let data: serde_json::Value =
                    serde_json::from_slice(&event.data().unwrap()).unwrap();
                assert_eq!(data["type"].as_str().unwrap().as_bytes(), event.name());
                events.push(String::from_utf8(event.name().to_vec()).unwrap());
            })
            .unwrap();
        assert_eq!(events, ["message_stop", "ping", "error"]);
    }
}
