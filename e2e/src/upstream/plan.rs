//! The Plan: Anthropic's Messages API.

use bytes::Bytes;
use chrono::{SecondsFormat, TimeDelta, Utc};
use http::{Method, StatusCode};
use serde_json::json;

use super::{
    answer::{Content, Prepared},
    behaviour::{Failure, Operation},
    events::{self, Event},
    message::Message,
    plan_sse,
    playback::{self, PrepareError, Wire},
    received::{Received, Route},
    script::{Point, Script},
};

/// Models that `/v1/models` lists; messages are answered for any name.
const MODELS: [(&str, &str, &str); 3] = [
    (
        "claude-opus-4-5-20251101",
        "Claude Opus 4.5",
        "2025-11-24T00:00:00Z",
    ),
    (
        "claude-haiku-4-5-20251001",
        "Claude Haiku 4.5",
        "2025-10-15T00:00:00Z",
    ),
    (
        "claude-sonnet-4-5-20250929",
        "Claude Sonnet 4.5",
        "2025-09-29T00:00:00Z",
    ),
];

pub(crate) fn route(method: &Method, path: &str) -> Route {
    Route::new(match (method, path) {
        (&Method::POST, "/v1/messages") => Operation::Messages,
        (&Method::POST, "/v1/messages/count_tokens") => Operation::CountTokens,
        (&Method::GET, "/v1/models") => Operation::Models,
        (&Method::GET, path) if path.starts_with("/v1/models/") => Operation::Models,
        (&Method::GET | &Method::HEAD, "/" | "/api/hello") => Operation::Probe,
        _ => Operation::Unknown,
    })
}

/// Answers what is not on command: a message, a count, models, probes.
pub(crate) fn answer(
    request: &Received,
    script: &Script,
    request_id: &str,
    number: u64,
) -> Result<Prepared, PrepareError> {
    let mut prepared = match request.operation {
        Operation::CountTokens => Prepared::json(
            StatusCode::OK,
            json!({"input_tokens": request.prompt.input_tokens}).to_string(),
        ),
        Operation::Models => models(request, request_id),
        Operation::Probe => {
            let mut probe = Prepared::json(StatusCode::OK, Bytes::new());
            probe.headers.clear();
            probe
        }
        _ => message(request, script, request_id, number)?,
    };
    prepared.header("request-id", request_id);
    Ok(prepared)
}

fn message(
    request: &Received,
    script: &Script,
    request_id: &str,
    number: u64,
) -> Result<Prepared, PrepareError> {
    let model = request.model.clone().unwrap_or_default();
    let message = Message::new(format!("msg_01{number:022}"), model, request, script);
    let mut prepared = if request.wants_stream() {
        let events = events::messages(&message, script);
        let steps = playback::stream_steps(&events, script, &Sse { request_id })?;
        let mut prepared = Prepared::json(StatusCode::OK, Bytes::new());
        prepared.header("content-type", "text/event-stream; charset=utf-8");
        prepared.header("cache-control", "no-cache");
        prepared.content = Content::Played(steps);
        prepared
    } else {
        let body = Bytes::from(message.messages_json().to_string());
        let mut prepared = Prepared::json(StatusCode::OK, body.clone());
        if script.gzip || script.faults.iter().any(|fault| fault.at != Point::Headers) {
            prepared.content = Content::Played(playback::whole_steps(&body, script, message.usage));
        } else {
            prepared.usage = Some(message.usage);
        }
        prepared
    };
    if script.gzip && request.accepts_gzip() {
        if let Content::Played(steps) = prepared.content {
            prepared.content = Content::Played(playback::gzip(steps)?);
        }
        prepared.header("content-encoding", "gzip");
        prepared.header("vary", "accept-encoding");
    }
    rate_limit_headers(&mut prepared);
    prepared.scripted_headers(&script.headers);
    Ok(prepared)
}

fn rate_limit_headers(prepared: &mut Prepared) {
    let reset = (Utc::now() + TimeDelta::seconds(60)).to_rfc3339_opts(SecondsFormat::Secs, true);
    for (name, value) in [
        (
            "anthropic-organization-id",
            "00000000-0000-4000-8000-0000000000fa",
        ),
        ("anthropic-ratelimit-requests-limit", "4000"),
        ("anthropic-ratelimit-requests-remaining", "3999"),
        ("anthropic-ratelimit-requests-reset", reset.as_str()),
        ("anthropic-ratelimit-input-tokens-limit", "2000000"),
        ("anthropic-ratelimit-input-tokens-remaining", "1999000"),
        ("anthropic-ratelimit-input-tokens-reset", reset.as_str()),
        ("anthropic-ratelimit-output-tokens-limit", "400000"),
        ("anthropic-ratelimit-output-tokens-remaining", "399000"),
        ("anthropic-ratelimit-output-tokens-reset", reset.as_str()),
    ] {
        prepared.header(name, value);
    }
}

fn models(request: &Received, request_id: &str) -> Prepared {
    let all = || {
        MODELS.iter().map(
            |(id, name, created)| json!({"type": "model", "id": id, "display_name": name, "created_at": created}),
        )
    };
    let Some(wanted) = request.path.strip_prefix("/v1/models/") else {
        let data: Vec<_> = all().collect();
        let body = json!({
            "data": data,
            "has_more": false,
            "first_id": data.first().map(|model| &model["id"]),
            "last_id": data.last().map(|model| &model["id"]),
        });
        return Prepared::json(StatusCode::OK, body.to_string());
    };
    all().find(|model| model["id"] == wanted).map_or_else(
        || {
            failure(
                &Failure::status(404).message(format!("model: {wanted}")),
                request_id,
            )
        },
        |model| Prepared::json(StatusCode::OK, model.to_string()),
    )
}

/// An error in the API's shape, with the usual type and wording of its status.
pub(crate) fn failure(failure: &Failure, request_id: &str) -> Prepared {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let (_, message) = usual(failure.status);
    let message = failure.message.as_deref().unwrap_or(message);
    let body = failure.body.clone().unwrap_or_else(|| {
        plan_sse::error_json(error_type(failure), message, request_id).to_string()
    });
    let mut prepared = Prepared::json(status, body);
    prepared.header("request-id", request_id);
    if failure.status == 429 || failure.status >= 500 {
        prepared.header("x-should-retry", "true");
    }
    if let Some(seconds) = failure.retry_after {
        prepared.header("retry-after", &seconds.to_string());
    }
    prepared.scripted_headers(&failure.headers);
    prepared
}

/// The `error.type` that a failure carries.
pub(crate) fn error_type(failure: &Failure) -> &str {
    failure
        .error_type
        .as_deref()
        .unwrap_or_else(|| usual(failure.status).0)
}

fn usual(status: u16) -> (&'static str, &'static str) {
    match status {
        401 => ("authentication_error", "invalid x-api-key"),
        402 => (
            "billing_error",
            "Your organization's billing details need attention.",
        ),
        403 => (
            "permission_error",
            "Your API key does not have permission to use the specified resource.",
        ),
        404 => ("not_found_error", "Not found"),
        413 => ("request_too_large", "Request exceeds the maximum size"),
        429 => (
            "rate_limit_error",
            "This request would exceed your organization's rate limit. Please try again later.",
        ),
        504 => ("timeout_error", "Request timed out"),
        529 => ("overloaded_error", "Overloaded"),
        503 => ("api_error", "Service unavailable"),
        500.. => ("api_error", "Internal server error"),
        _ => ("invalid_request_error", "Invalid request"),
    }
}

struct Sse<'a> {
    request_id: &'a str,
}

impl Wire for Sse<'_> {
    fn event(&self, index: usize, event: &Event) -> Result<Bytes, PrepareError> {
        Ok(plan_sse::event(index, event))
    }

    fn error(&self, error_type: &str, message: &str) -> Result<Bytes, PrepareError> {
        Ok(plan_sse::error(error_type, message, self.request_id))
    }

    fn ping(&self) -> Option<Bytes> {
        Some(Bytes::from_static(plan_sse::PING))
    }
}
