//! What a client sees when the proxy itself refuses: errors in the shape of Anthropic's API, which cannot carry an internal error.

use std::borrow::Cow;

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Serialize;
use uuid::Uuid;

use crate::routing::RelayBody;

/// `error.type` of Anthropic's API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorType {
    /// The request cannot be served as it is.
    InvalidRequest,
    /// No valid key.
    Authentication,
    /// A valid key that may not be used.
    Permission,
    /// No such route.
    NotFound,
    /// The body is over the limit.
    RequestTooLarge,
    /// The body did not arrive in time.
    Timeout,
    /// Something here is broken.
    Api,
    /// Try again later.
    Overloaded,
}

impl ErrorType {
    /// As it is written in `error.type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::RequestTooLarge => "request_too_large",
            Self::Timeout => "timeout_error",
            Self::Api => "api_error",
            Self::Overloaded => "overloaded_error",
        }
    }
}

/// A request that no upstream is asked to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The response's status.
    pub status: StatusCode,
    /// `error.type`.
    pub kind: ErrorType,
    /// `error.message`: what is wrong and what to do, in words for the caller.
    pub message: Cow<'static, str>,
    /// A bounded label for metrics and logs.
    pub reason: &'static str,
    /// Seconds after which another try makes sense.
    pub retry_after: Option<u32>,
    /// `x-should-retry`, which the SDKs obey over the status.
    pub should_retry: Option<bool>,
    /// Methods that the route has, for 405.
    pub allow: Option<&'static str>,
}

impl Refusal {
    /// A refusal without any of the optional headers.
    pub fn new(
        status: StatusCode,
        kind: ErrorType,
        reason: &'static str,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            reason,
            retry_after: None,
            should_retry: None,
            allow: None,
        }
    }

    /// 400: the request cannot be served as it is.
    pub fn invalid(reason: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            ErrorType::InvalidRequest,
            reason,
            message,
        )
    }

    /// 401: no valid key. Marked as not worth a retry, else Claude Code tries for minutes.
    pub fn unauthenticated(reason: &'static str, message: &'static str) -> Self {
        Self {
            should_retry: Some(false),
            ..Self::new(
                StatusCode::UNAUTHORIZED,
                ErrorType::Authentication,
                reason,
                message,
            )
        }
    }

    /// 403: a valid key that may not be used now.
    pub fn forbidden(reason: &'static str, message: &'static str) -> Self {
        Self {
            should_retry: Some(false),
            ..Self::new(
                StatusCode::FORBIDDEN,
                ErrorType::Permission,
                reason,
                message,
            )
        }
    }

    /// 503: this pod cannot serve the request now.
    pub fn unavailable(reason: &'static str, message: &'static str, retry_after: u32) -> Self {
        Self {
            retry_after: Some(retry_after),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                ErrorType::Overloaded,
                reason,
                message,
            )
        }
    }

    /// The label of [`Refusal::not_found`].
    pub const UNKNOWN_ROUTE: &'static str = "unknown_route";

    /// 404: no such route.
    pub fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            ErrorType::NotFound,
            Self::UNKNOWN_ROUTE,
            "Not found",
        )
    }

    /// 405: the route exists with another method.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                ErrorType::InvalidRequest,
                "method_not_allowed",
                format!("Method not allowed; use {allow}"),
            )
        }
    }

    /// The response, with a `request-id` of the proxy's own.
    pub fn into_response(self, request_id: Uuid) -> Response<RelayBody> {
        let request_id = format!("req_{}", request_id.simple());
        let body = serde_json::to_vec(&Envelope {
            kind: "error",
            error: Detail {
                kind: self.kind.as_str(),
                message: &self.message,
            },
            request_id: &request_id,
        })
        .unwrap_or_default();
        let mut response = Response::new(RelayBody::whole(body.into()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(value) = HeaderValue::try_from(request_id) {
            headers.insert("request-id", value);
        }
        headers.extend(self.headers());
        response
    }

    /// The headers that it has in any format.
    pub fn headers(&self) -> HeaderMap {
        let retry_after = self.retry_after.map(HeaderValue::from);
        let should_retry = self
            .should_retry
            .map(|retry| HeaderValue::from_static(if retry { "true" } else { "false" }));
        [
            (RETRY_AFTER, retry_after),
            (HeaderName::from_static("x-should-retry"), should_retry),
            (ALLOW, self.allow.map(HeaderValue::from_static)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

#[derive(Serialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    error: Detail<'a>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Detail<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    message: &'a str,
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn a_refusal_has_the_shape_and_headers_the_sdks_read() {
        let response =
            Refusal::unauthenticated("unknown_key", "invalid x-api-key").into_response(Uuid::nil());
        assert_eq!(response.status(), 401);
        assert_eq!(response.headers()["x-should-retry"], "false");
        assert_eq!(
            response.headers()["request-id"],
            "req_00000000000000000000000000000000"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            body.as_ref(),
            br#"{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"},"request_id":"req_00000000000000000000000000000000"}"#
        );
    }

    #[test]
    fn a_405_names_the_methods_and_a_503_the_wait() {
        assert_eq!(
            Refusal::method_not_allowed("POST")
                .into_response(Uuid::nil())
                .headers()[ALLOW],
            "POST"
        );
        assert_eq!(
            Refusal::unavailable("spool_full", "later", 5)
                .into_response(Uuid::nil())
                .headers()[RETRY_AFTER],
            "5"
        );
    }
}
