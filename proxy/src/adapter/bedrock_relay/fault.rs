//! Errors in Bedrock's shape: the proxy's own, and what of Bedrock's may be shown.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::adapter::bedrock::{names_an_account, tells_of_a_credential, to_anthropic};
use crate::adapter::bedrock_relay::Operation;
use crate::stream::{Frame, exception_frame};

/// Exceptions of the Bedrock runtime by status.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModel.html#API_runtime_InvokeModel_Errors>.
const KINDS: &[(u16, &str)] = &[
    (400, "ValidationException"),
    (401, "UnrecognizedClientException"),
    (403, "AccessDeniedException"),
    (404, "ResourceNotFoundException"),
    (405, UNKNOWN_OPERATION),
    (408, "ModelTimeoutException"),
    (413, "ValidationException"),
    (429, "ThrottlingException"),
    (503, "ServiceUnavailableException"),
    (504, "ModelTimeoutException"),
];
const INTERNAL: &str = "InternalServerException";
/// What AWS says of a path that is none of a service's.
const UNKNOWN_OPERATION: &str = "UnknownOperationException";

/// An error of the proxy's own. Holds no more than what clients may see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The answer's status.
    pub status: StatusCode,
    /// The exception's name.
    kind: &'static str,
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
        let kind = KINDS
            .iter()
            .find(|(known, _)| *known == status.as_u16())
            .map_or(INTERNAL, |(_, kind)| *kind);
        Self {
            status,
            kind,
            message: message.into(),
        }
    }

    /// The path is none of Bedrock's.
    pub fn unknown_operation(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: UNKNOWN_OPERATION,
            ..Self::new(StatusCode::NOT_FOUND, message)
        }
    }

    /// The headers of an answer to the request of this id.
    pub fn headers(&self, request: Uuid) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("x-amzn-errortype", HeaderValue::from_static(self.kind));
        if let Ok(id) = HeaderValue::try_from(request.to_string()) {
            headers.insert("x-amzn-requestid", id);
        }
        headers
    }

    /// The body of an answer.
    pub fn body(&self) -> Bytes {
        body(&self.message)
    }

    /// The last frame of a stream of this operation that cannot go on. `ConverseStreamOutput` has no member for a time-out.
    pub fn frame(&self, operation: Operation) -> Bytes {
        let mut kind = match self.kind {
            "ModelTimeoutException" if operation.is_converse() => "ModelStreamErrorException",
            kind => kind,
        }
        .to_owned();
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
        _ => body(&failure_of(status, code).1),
    }
}

/// What a stream ends with where Bedrock's own last frame may not be shown; `None` for any other frame. An exception says what is
/// wrong in its payload, an error in a header.
pub(crate) fn shown_instead(frame: &Frame<'_>) -> Option<Bytes> {
    let (code, words) = match frame.header(":message-type")? {
        "exception" => (frame.header(":exception-type"), None),
        "error" => (frame.header(":error-code"), frame.header(":error-message")),
        _ => return None,
    };
    let code = code.unwrap_or("internalServerException");
    // The head said 200 long ago: the code alone tells whether the credential was refused.
    let (status, generic) = failure_of(StatusCode::INTERNAL_SERVER_ERROR, Some(code));
    let is_shown = may_be_shown(status, words.unwrap_or_default())
        && std::str::from_utf8(frame.payload).is_ok_and(|text| may_be_shown(status, text));
    (!is_shown).then(|| exception_frame(code, &body(&generic)))
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

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue as EventHeader, Message};

    use super::*;
    use crate::stream::FrameReader;

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
            Fault::new(StatusCode::BAD_GATEWAY, "").kind,
            "InternalServerException"
        );
        let fault = Fault::unknown_operation("");
        assert_eq!(
            (fault.status, fault.kind),
            (StatusCode::NOT_FOUND, "UnknownOperationException")
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
            assert_eq!(shown, body(&failure_of(status, None).1), "{message}");
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

    fn header_of(frame: Bytes, name: &str) -> (String, Bytes) {
        let mut frames = FrameReader::new(1 << 16);
        frames.push(frame);
        let frame = frames.next_frame().unwrap().unwrap();
        let value = frame.header(name).unwrap_or_default().to_owned();
        (value, Bytes::copy_from_slice(frame.payload))
    }

    /// What is shown for a frame of these headers, if not the frame itself.
    fn instead(headers: &[(&'static str, &'static str)], payload: &'static [u8]) -> Option<Bytes> {
        let text = |value: &'static str| EventHeader::String(value.into());
        let mut message = Message::new(payload);
        for (name, value) in headers {
            message = message.add_header(Header::new(*name, text(value)));
        }
        let mut bytes = Vec::new();
        write_message_to(&message, &mut bytes).unwrap();
        let mut frames = FrameReader::new(1 << 16);
        frames.push(bytes.into());
        shown_instead(&frames.next_frame().unwrap().unwrap())
            .map(|frame| header_of(frame, ":exception-type").1)
    }

    #[test]
    fn what_ends_a_stream_is_judged_alike() {
        const EXCEPTION: (&str, &str) = (":message-type", "exception");
        const ERROR: (&str, &str) = (":message-type", "error");
        let throttled = r#"{"message":"Bedrock is throttling"}"#;
        for (headers, payload, shown) in [
            (
                vec![EXCEPTION, (":exception-type", "throttlingException")],
                r#"{"message":"slow down"}"#,
                None,
            ),
            (
                vec![EXCEPTION, (":exception-type", "throttlingException")],
                r#"{"message":"arn:aws:x"}"#,
                Some(throttled),
            ),
            (
                vec![EXCEPTION, (":exception-type", "accessDeniedException")],
                r#"{"message":"You may not."}"#,
                Some(r#"{"message":"Bedrock refused its credential for this model"}"#),
            ),
            (
                vec![
                    ERROR,
                    (":error-code", "throttlingException"),
                    (":error-message", "slow down"),
                ],
                "",
                None,
            ),
            (
                vec![
                    ERROR,
                    (":error-code", "throttlingException"),
                    (":error-message", "arn:aws:x"),
                ],
                "",
                Some(throttled),
            ),
            (
                vec![
                    ERROR,
                    (":error-code", "throttlingException"),
                    (":error-message", "slow down"),
                ],
                r#"{"message":"arn:aws:x"}"#,
                Some(throttled),
            ),
            (vec![(":message-type", "event")], "arn:aws:x", None),
        ] {
            let instead = instead(&headers, payload.as_bytes());
            assert_eq!(instead.as_deref(), shown.map(str::as_bytes), "{headers:?}");
        }
    }

    #[test]
    fn a_stream_ends_in_an_exception_that_its_operation_has() {
        let late = Fault::new(StatusCode::GATEWAY_TIMEOUT, "");
        for (operation, kind) in [
            (Operation::InvokeStream, "modelTimeoutException"),
            (Operation::ConverseStream, "modelStreamErrorException"),
        ] {
            assert_eq!(header_of(late.frame(operation), ":exception-type").0, kind);
        }
    }

    #[test]
    fn messages_are_read_in_either_spelling() {
        assert_eq!(message_of(br#"{"Message":"a"}"#), "a");
        assert_eq!(message_of(br#"{"message":"b","x":[]}"#), "b");
        assert_eq!(message_of(b"<html>"), "");
    }
}
