//! Errors in the shape of the Messages API.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use uuid::Uuid;

/// An error as clients of the Messages API read it. Holds no more than what they may see.
/// Source: <https://docs.anthropic.com/en/api/errors>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorBody {
    /// `error.type`.
    pub kind: Cow<'static, str>,
    /// `error.message`.
    pub message: Cow<'static, str>,
}

#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'static str,
    error: Fields<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Fields<'a> {
    r#type: &'a str,
    message: &'a str,
}

impl ErrorBody {
    /// An error of this type and message.
    pub fn new(kind: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: kind.into(),
            message: message.into(),
        }
    }

    /// The data of an `error` event.
    pub fn to_event_data(&self) -> Bytes {
        self.to_json(None)
    }

    /// The body of an answer to the call of this id.
    pub fn to_answer(&self, call: Uuid) -> Bytes {
        self.to_json(Some(&request_id(call)))
    }

    fn to_json(&self, request_id: Option<&str>) -> Bytes {
        let error = Fields {
            r#type: &self.kind,
            message: &self.message,
        };
        let envelope = Envelope {
            r#type: "error",
            error,
            request_id,
        };
        // Strings always serialise.
        serde_json::to_vec(&envelope).unwrap_or_default().into()
    }
}

/// The headers of an answer that is not the Plan's, to the call of this id.
pub(crate) fn answer_headers(call: Uuid, content_type: HeaderValue) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, content_type);
    if let Ok(id) = HeaderValue::try_from(request_id(call)) {
        headers.insert("request-id", id);
    }
    headers
}

/// A call's id in the form of Anthropic's `request-id`: what the client quotes finds the usage row.
fn request_id(call: Uuid) -> String {
    format!("req_{}", call.simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_anthropics() {
        let error = ErrorBody::new("api_error", "it \"broke\"");
        assert_eq!(
            error.to_event_data(),
            r#"{"type":"error","error":{"type":"api_error","message":"it \"broke\""}}"#
        );
        assert_eq!(
            error.to_answer(Uuid::nil()),
            r#"{"type":"error","error":{"type":"api_error","message":"it \"broke\""},"request_id":"req_00000000000000000000000000000000"}"#
        );
        let headers = answer_headers(Uuid::nil(), HeaderValue::from_static("application/json"));
        assert_eq!(
            headers["request-id"],
            "req_00000000000000000000000000000000"
        );
    }
}
