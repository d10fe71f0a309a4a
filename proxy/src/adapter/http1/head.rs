//! Heads of requests and answers. Wire format: RFC 9112.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use memchr::memchr;

use super::framing::Framing;

/// The largest head of an answer.
const MAX_HEAD: usize = 64 * 1024;
/// The most headers of an answer.
const MAX_HEADERS: usize = 128;

/// Why bytes are no answer's head.
#[derive(Debug, thiserror::Error)]
pub enum HeadError {
    /// Not by the grammar.
    #[error("{0}")]
    Malformed(#[from] httparse::Error),
    /// No end within the largest size.
    #[error("it is longer than {MAX_HEAD} bytes")]
    TooLong,
    /// A header's value holds bytes that no value may hold.
    #[error("header `{0}` holds control characters")]
    Value(HeaderName),
    /// Lengths that differ, or are none.
    #[error("its content-length is not one number")]
    Length,
    /// A coding other than `chunked`, or one in HTTP/1.0.
    #[error("its transfer-encoding is not `chunked`")]
    Encoding,
    /// A status that belongs to no request of ours.
    #[error("it switches protocols")]
    Switching,
}

/// An answer's head.
#[derive(Debug)]
pub struct Head {
    /// Status and headers.
    pub response: Response<()>,
    /// How its body ends.
    pub framing: Framing,
    /// Whether the connection is as good as new after the body.
    pub is_reusable: bool,
}

impl Head {
    /// The answer with the body that `body` makes of its framing.
    pub(super) fn into_response<B>(self, body: impl FnOnce(Framing, bool) -> B) -> Response<B> {
        let body = body(self.framing, self.is_reusable);
        self.response.map(|()| body)
    }
}

/// Writes a request's head with the length of its body. Headers about this connection are not taken over.
pub(super) fn write_head(out: &mut Vec<u8>, head: &Parts, body_length: usize) {
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    let target = head
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    out.extend_from_slice(target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    match (head.headers.get(HOST), head.uri.authority()) {
        (Some(host), _) => line(out, "host", host.as_bytes()),
        (None, Some(authority)) => {
            // Without user and password.
            let host = authority.as_str().rsplit('@').next().unwrap_or_default();
            line(out, "host", host.as_bytes());
        }
        (None, None) => {}
    }
    for (name, value) in &head.headers {
        if ![HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    if body_length > 0 || ![Method::GET, Method::HEAD].contains(&head.method) {
        line(out, "content-length", body_length.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Takes an answer's head off the front of `input`, interim ones passed over; `None` until it is there whole. `searched` is how
/// much of `input` was looked at before, zero at first.
///
/// # Errors
/// What is there is no head.
pub fn read_head(
    input: &mut BytesMut,
    searched: &mut usize,
    method: &Method,
) -> Result<Option<Head>, HeadError> {
    loop {
        let Some(end) = end_of_head(input, *searched) else {
            if input.len() > MAX_HEAD {
                return Err(HeadError::TooLong);
            }
            *searched = input.len();
            return Ok(None);
        };
        *searched = 0;
        let head = input.split_to(end).freeze();
        if let Some(head) = parse(&head, method)? {
            return Ok(Some(head));
        }
    }
}

/// Where the first empty line ends. The first `searched` bytes hold none.
fn end_of_head(input: &[u8], searched: usize) -> Option<usize> {
    let mut at = searched.saturating_sub(2);
    while let Some(found) = memchr(b'\n', &input[at..]) {
        at += found + 1;
        match &input[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// `None` for an interim answer.
fn parse(bytes: &Bytes, method: &Method) -> Result<Option<Head>, HeadError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut fields);
    if parsed.parse(bytes)?.is_partial() {
        return Err(httparse::Error::Status.into());
    }
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or(httparse::Error::Status)?;
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(HeadError::Switching);
    }
    if status.is_informational() {
        return Ok(None);
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes())
            .map_err(|_| httparse::Error::HeaderName)?;
        // A part of the head, not a copy.
        match HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)) {
            Ok(value) => headers.append(name, value),
            Err(_) => return Err(HeadError::Value(name)),
        };
    }
    let is_current = parsed.version == Some(1);
    let (framing, is_sure) = framing(method, status, &headers, is_current)?;
    if framing == Framing::Chunked {
        // It says nothing then, and must not be passed on (RFC 9112, 6.3).
        headers.remove(CONTENT_LENGTH);
    }
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = if is_current {
        Version::HTTP_11
    } else {
        Version::HTTP_10
    };
    let is_kept = if is_current {
        !has_option(&headers, "close")
    } else {
        has_option(&headers, "keep-alive")
    };
    *response.headers_mut() = headers;
    Ok(Some(Head {
        response,
        framing,
        is_reusable: is_kept && is_sure,
    }))
}

/// How the body ends (RFC 9112, 6.3), and whether both sides are sure to agree about it.
fn framing(
    method: &Method,
    status: StatusCode,
    headers: &HeaderMap,
    is_current: bool,
) -> Result<(Framing, bool), HeadError> {
    let length = length(headers)?;
    let is_encoded = headers.contains_key(TRANSFER_ENCODING);
    if method == Method::HEAD
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
    {
        // One that announces a body all the same may send it.
        let announces = is_encoded || length.is_some_and(|length| length > 0);
        return Ok((Framing::Length(0), !announces));
    }
    if is_encoded {
        let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
        let is_chunked = codings
            .next()
            .is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() || !is_current {
            return Err(HeadError::Encoding);
        }
        return Ok((Framing::Chunked, length.is_none()));
    }
    Ok(length.map_or((Framing::Close, false), |length| {
        (Framing::Length(length), true)
    }))
}

fn length(headers: &HeaderMap) -> Result<Option<u64>, HeadError> {
    let mut found = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let text = value.to_str().map_err(|_| HeadError::Length)?;
        // As the grammar has it: digits alone, no sign.
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HeadError::Length);
        }
        let length: u64 = text.parse().map_err(|_| HeadError::Length)?;
        if found.replace(length).is_some_and(|other| other != length) {
            return Err(HeadError::Length);
        }
    }
    Ok(found)
}

fn has_option(headers: &HeaderMap, option: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        value
            .as_bytes()
            .split(|byte| *byte == b',')
            .any(|named| named.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    })
}
