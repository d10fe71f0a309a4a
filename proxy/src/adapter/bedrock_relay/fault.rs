//! Errors in Bedrock's shape: the proxy's own, and what of Bedrock's may be shown.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::adapter::bedrock::{names_an_account, tells_of_a_credential, to_anthropic};
use crate::stream::exception_frame;

/// Exceptions of the Bedrock runtime by status.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html#API_runtime_InvokeModel_Errors>.
const KINDS: &[(u16, &str)] = &[
    (400, "ValidationException"),
    (401, "UnrecognizedClientException"),
    (403, "AccessDeniedException"),
    (404, "ResourceNotFoundException"),
    (405, "UnknownOperationException"),
    (408, "ModelTimeoutException"),
    (413, "ValidationException"),
    (429, "ThrottlingException"),
    (503, "ServiceUnavailableException"),
    (504, "ModelTimeoutException"),
];
const INTERNAL: &str = "InternalServerException";

/// An error of the proxy's own. Holds no more than what clients may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The answer's status.
    pub status: StatusCode,
    /// What is wrong and what to do.
    pub message: Cow<'static, str>,
}

#[derive(Serialize)]
struct Body<'a> {
    message: &'a str,
}

impl Fault {
    /// An error of this status.
    pub fn new(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
        }
    }

    /// The exception's name.
    pub fn kind(&self) -> &'static str {
        KINDS
            .iter()
            .find(|(status, _)| *status == self.status.as_u16())
            .map_or(INTERNAL, |(_, kind)| kind)
    }

    /// The headers of an answer to the request of this id.
    pub fn headers(&self, request: Uuid) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.kind()));
        if let Ok(id) = HeaderValue::try_from(request.to_string()) {
            headers.insert("x-amzn-requestid", id);
        }
        headers
    }

    /// The body of an answer.
    pub fn body(&self) -> Bytes {
        body(&self.message)
    }

    /// The last frame of a stream that cannot go on.
    pub fn frame(&self) -> Bytes {
        let mut kind = self.kind().to_owned();
        kind[..1].make_ascii_lowercase();
        exception_frame(&kind, &self.body())
    }
}

fn body(message: &str) -> Bytes {
    // Strings always serialise.
    serde_json::to_vec(&Body { message })
        .unwrap_or_default()
        .into()
}

/// An error's body as the client may see it: as Bedrock gave it, unless it tells of an account or a credential.
pub(crate) fn shown_body(status: StatusCode, code: Option<&str>, given: Bytes) -> Bytes {
    match std::str::from_utf8(&given) {
        Ok(text) if may_be_shown(status, text) => given,
        _ => body(&generic(status, code)),
    }
}

/// The payload of an exception in a stream as the client may see it; `None` if that is as Bedrock gave it.
pub(crate) fn shown_exception(code: &str, payload: &[u8]) -> Option<Bytes> {
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    let is_shown = std::str::from_utf8(payload).is_ok_and(|text| may_be_shown(status, text));
    (!is_shown).then(|| body(&generic(status, Some(code))))
}

/// The message of an error's body, for the log and to judge by.
pub(crate) fn message_of(given: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Given {
        #[serde(alias = "Message")]
        message: String,
    }
    serde_json::from_slice::<Given>(given).map_or_else(|_| String::new(), |given| given.message)
}

/// The exception's name in `x-amzn-errortype`, where a URL may follow it.
pub(crate) fn code_of(error_type: &str) -> &str {
    error_type
        .split_once(':')
        .map_or(error_type, |(code, _)| code)
}

/// The status and words that the Messages API has for an error of Bedrock's: what it is classed by.
pub(crate) fn failure_of(
    status: StatusCode,
    code: Option<&str>,
) -> (StatusCode, Cow<'static, str>) {
    let (status, error) = to_anthropic(status.as_u16(), code, None);
    (status, error.message)
}

/// Refusals of the credential are the owner's to read, in the log.
fn may_be_shown(status: StatusCode, text: &str) -> bool {
    !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        && !names_an_account(text)
        && !tells_of_a_credential(text)
}

fn generic(status: StatusCode, code: Option<&str>) -> Cow<'static, str> {
    failure_of(status, code).1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_has_bedrocks_shape() {
        let fault = Fault::new(StatusCode::TOO_MANY_REQUESTS, "slow \"down\"");
        let headers = fault.headers(Uuid::nil());
        assert_eq!(headers["x-amzn-errortype"], "ThrottlingException");
        assert_eq!(
            headers["x-amzn-requestid"],
            "00000000-0000-0000-0000-000000000000"
        );
        assert_eq!(fault.body(), r#"{"message":"slow \"down\""}"#);
        assert_eq!(
            Fault::new(StatusCode::BAD_GATEWAY, "").kind(),
            "InternalServerException"
        );
    }

    #[test]
    fn bedrocks_words_are_shown_unless_they_tell_of_an_account() {
        let given = |message: &str| Bytes::from(format!(r#"{{"message":"{message}","extra":1}}"#));
        for message in [
            "Malformed input request: #: required key [messages] not found",
            "prompt is too long: 201000 tokens > 200000 maximum",
            "The provided model identifier is invalid.",
        ] {
            let shown = shown_body(
                StatusCode::BAD_REQUEST,
                Some("ValidationException"),
                given(message),
            );
            assert_eq!(shown, given(message));
        }
        for (status, message) in [
            (400, "arn:aws:bedrock:us-east-1:1:x is not supported"),
            (400, "account 123456789012"),
            (403, "You don't have access to the model."),
            (400, "The Credential=AKIAX is wrong"),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let shown = shown_body(status, None, given(message));
            assert_eq!(shown, body(&generic(status, None)), "{message}");
        }
        assert_eq!(
            shown_body(
                StatusCode::TOO_MANY_REQUESTS,
                Some("ThrottlingException"),
                Bytes::from_static(b"\xff")
            ),
            r#"{"message":"Bedrock is throttling"}"#
        );
    }

    #[test]
    fn an_exception_in_a_stream_is_judged_alike() {
        assert_eq!(
            shown_exception("throttlingException", br#"{"message":"slow down"}"#),
            None
        );
        assert_eq!(
            shown_exception("throttlingException", br#"{"message":"arn:aws:x"}"#).unwrap(),
            r#"{"message":"Bedrock is throttling"}"#
        );
    }

    #[test]
    fn messages_are_read_in_either_spelling() {
        assert_eq!(message_of(br#"{"Message":"a"}"#), "a");
        assert_eq!(message_of(br#"{"message":"b","x":[]}"#), "b");
        assert_eq!(message_of(b"<html>"), "");
    }
}
