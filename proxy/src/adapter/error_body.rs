//! Errors in the shape of the Messages API.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Serialize;

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

    /// The body as JSON.
    pub fn to_bytes(&self) -> Bytes {
        let envelope = Envelope {
            r#type: "error",
            error: Fields {
                r#type: &self.kind,
                message: &self.message,
            },
        };
        // Strings always serialise.
        serde_json::to_vec(&envelope).unwrap_or_default().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shape_is_anthropics() {
        let body = ErrorBody::new("api_error", "it \"broke\"").to_bytes();
        assert_eq!(
            &body[..],
            br#"{"type":"error","error":{"type":"api_error","message":"it \"broke\""}}"#
        );
    }
}
