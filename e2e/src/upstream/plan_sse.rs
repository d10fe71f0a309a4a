//! Server-sent events as the Plan writes them: JSON padded with spaces before its last brace, pings with a space.

use bytes::Bytes;
use serde_json::{Value, json};

use super::events::Event;

/// The ping, byte for byte.
pub(crate) const PING: &[u8] = b"event: ping\ndata: {\"type\": \"ping\"}\n\n";

/// One event. `index` is its place in the stream: the padding follows from it, so that equal requests get equal bytes.
pub(crate) fn event(index: usize, event: &Event) -> Bytes {
    let mut json = event.data.to_string();
    json.truncate(json.len() - 1);
    let padding = (index * 5 + 6) % 16;
    Bytes::from(format!(
        "event: {}\ndata: {json}{:padding$}}}\n\n",
        event.name, ""
    ))
}

/// An error inside the stream.
pub(crate) fn error(error_type: &str, message: &str, request_id: &str) -> Bytes {
    Bytes::from(format!(
        "event: error\ndata: {}\n\n",
        error_json(error_type, message, request_id)
    ))
}

/// An error in the Messages API's form.
pub(crate) fn error_json(error_type: &str, message: &str, request_id: &str) -> Value {
    json!({
        "type": "error",
        "error": {"type": error_type, "message": message},
        "request_id": request_id,
    })
}
