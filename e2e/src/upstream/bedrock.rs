//! The Bedrock runtime: `InvokeModel` and Converse, each with and without a stream, and `CountTokens`.

use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    answer::{Content, Prepared},
    bedrock_count, bedrock_invoke,
    behaviour::{Failure, Operation},
    config::Config,
    converse, converse_rules,
    events::{self, Event, Stage},
    eventstream,
    message::Message,
    playback::{self, PrepareError, Wire},
    received::{Received, Route},
    script::{Point, Script},
    sigv4,
};

/// The service model's limit for a body.
const MAX_BODY: usize = 25_000_000;

/// Latency every answer claims, in milliseconds.
const LATENCY_MS: u64 = 420;

pub(crate) fn route(method: &Method, path: &str) -> Route {
    let parts = path
        .strip_prefix("/model/")
        .and_then(|rest| rest.rsplit_once('/'));
    let operation = match (method, parts.map(|(_, operation)| operation)) {
        (&Method::POST, Some("invoke")) => Operation::Invoke,
        (&Method::POST, Some("invoke-with-response-stream")) => Operation::InvokeStream,
        (&Method::POST, Some("converse")) => Operation::Converse,
        (&Method::POST, Some("converse-stream")) => Operation::ConverseStream,
        (&Method::POST, Some("count-tokens")) => Operation::CountTokens,
        _ if matches!(*method, Method::GET | Method::HEAD) && path == "/" => Operation::Probe,
        _ => Operation::Unknown,
    };
    Route {
        operation,
        model: parts.map(|(id, _)| sigv4::decode(id)),
    }
}

/// What the request is refused with before any rule is asked.
pub(crate) fn refusal(request: &Received, config: &Config) -> Option<Failure> {
    if request.operation == Operation::Probe {
        return None;
    }
    if let Some(failure) = unauthenticated(request, config) {
        return Some(failure);
    }
    if request.operation == Operation::Unknown {
        return Some(
            Failure::status(404)
                .error_type("UnknownOperationException")
                .message("Unknown operation"),
        );
    }
    if request.body.len() > MAX_BODY {
        return Some(validation(
            "Member must have length less than or equal to 25000000",
        ));
    }
    let model = request.model.as_deref().unwrap_or_default();
    if !is_model_id(model) {
        return Some(validation("The provided model identifier is invalid."));
    }
    let problem = match request.operation {
        Operation::Invoke | Operation::InvokeStream => {
            bedrock_invoke::problem(model, &request.body, config.foreign_signatures)
        }
        Operation::CountTokens => {
            bedrock_count::problem(model, &request.body, config.foreign_signatures)
        }
        _ => converse_rules::problem(model, &request.body, config.foreign_signatures),
    };
    problem.map(|problem| validation(&problem))
}

fn unauthenticated(request: &Received, config: &Config) -> Option<Failure> {
    if let Some(token) = request
        .header("authorization")
        .and_then(|value| value.strip_prefix("Bearer "))
    {
        let known = config
            .bedrock_api_keys
            .iter()
            .any(|expected| expected == token);
        return (!known).then(|| {
            Failure::status(403)
                .error_type("AccessDeniedException")
                .message("Authentication failed: Please make sure your API Key is valid.")
        });
    }
    let verified = sigv4::verify(
        request,
        &config.aws_credentials,
        config.region.as_deref(),
        SystemTime::now(),
    );
    verified.err().map(|error| {
        Failure::status(403)
            .error_type(error.exception())
            .message(error.to_string())
    })
}

/// Model ids, inference profiles and ARNs, encoded once in the path: a percent sign is left only by encoding twice.
fn is_model_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 2048
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:-_/".contains(&byte))
}

fn validation(message: &str) -> Failure {
    Failure::status(400).message(message)
}

/// Answers with a message, a count, or to a probe.
pub(crate) fn answer(
    request: &Received,
    script: &Script,
    request_id: &str,
    number: u64,
) -> Result<Prepared, PrepareError> {
    let mut prepared = match request.operation {
        Operation::Probe => Prepared::json(StatusCode::OK, "{}"),
        Operation::CountTokens => {
            let tokens = bedrock_count::tokens(&request.body);
            Prepared::json(StatusCode::OK, json!({"inputTokens": tokens}).to_string())
        }
        _ => message(request, script, number)?,
    };
    prepared.header("x-amzn-requestid", request_id);
    Ok(prepared)
}

fn message(request: &Received, script: &Script, number: u64) -> Result<Prepared, PrepareError> {
    let id = request.model.as_deref().unwrap_or_default();
    let message = Message::new(
        format!("msg_bdrk_01{number:022}"),
        bedrock_invoke::model_name(id),
        request,
        script,
    );
    let mut prepared = match request.operation {
        Operation::InvokeStream => {
            let mut events = events::messages(&message, script);
            if let Some(stop) = events.last_mut().filter(|event| event.stage == Stage::End) {
                stop.data["amazon-bedrock-invocationMetrics"] = metrics(&message);
            }
            let mut prepared = stream(playback::stream_steps(&events, script, &Frames::Invoke)?);
            prepared.header("x-amzn-bedrock-content-type", "application/json");
            prepared
        }
        Operation::ConverseStream => {
            let events = events::converse(&message, script);
            stream(playback::stream_steps(&events, script, &Frames::Converse)?)
        }
        Operation::Converse => whole(&converse::answer(&message, LATENCY_MS), &message, script),
        _ => {
            let mut prepared = whole(&message.messages_json(), &message, script);
            prepared.header("x-amzn-bedrock-invocation-latency", &LATENCY_MS.to_string());
            prepared.header(
                "x-amzn-bedrock-input-token-count",
                &message.usage.input_tokens.to_string(),
            );
            prepared.header(
                "x-amzn-bedrock-output-token-count",
                &message.usage.output_tokens.to_string(),
            );
            prepared
        }
    };
    prepared.scripted_headers(&script.headers);
    Ok(prepared)
}

fn metrics(message: &Message) -> Value {
    json!({
        "inputTokenCount": message.usage.input_tokens,
        "outputTokenCount": message.usage.output_tokens,
        "invocationLatency": LATENCY_MS,
        "firstByteLatency": LATENCY_MS / 2,
        "cacheReadInputTokenCount": message.usage.cache_read_input_tokens,
        "cacheWriteInputTokenCount": message.usage.cache_creation_input_tokens(),
    })
}

fn stream(steps: Vec<playback::Step>) -> Prepared {
    let mut prepared = Prepared::json(StatusCode::OK, Bytes::new());
    prepared.header("content-type", "application/vnd.amazon.eventstream");
    prepared.content = Content::Played(steps);
    prepared
}

fn whole(body: &Value, message: &Message, script: &Script) -> Prepared {
    let body = Bytes::from(body.to_string());
    let mut prepared = Prepared::json(StatusCode::OK, body.clone());
    if script.faults.iter().any(|fault| fault.at != Point::Headers) {
        prepared.content = Content::Played(playback::whole_steps(&body, script, message.usage));
    } else {
        prepared.usage = Some(message.usage);
    }
    prepared
}

/// An error as AWS answers it: the message alone in the body, the type in a header with a suffix.
pub(crate) fn failure(failure: &Failure, request_id: &str) -> Prepared {
    let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let message = failure
        .message
        .as_deref()
        .unwrap_or_else(|| usual(failure.status).1);
    let body = failure
        .body
        .clone()
        .unwrap_or_else(|| json!({"message": message}).to_string());
    let mut prepared = Prepared::json(status, body);
    prepared.header("x-amzn-requestid", request_id);
    let exception = error_type(failure);
    prepared.header(
        "x-amzn-errortype",
        &format!("{exception}:http://internal.amazon.com/coral/com.amazon.bedrock/"),
    );
    if let Some(seconds) = failure.retry_after {
        prepared.header("retry-after", &seconds.to_string());
    }
    prepared.scripted_headers(&failure.headers);
    prepared
}

/// The exception that a failure names.
pub(crate) fn error_type(failure: &Failure) -> &str {
    failure
        .error_type
        .as_deref()
        .unwrap_or_else(|| usual(failure.status).0)
}

fn usual(status: u16) -> (&'static str, &'static str) {
    match status {
        401 | 403 => (
            "AccessDeniedException",
            "You don't have access to the model with the specified model ID.",
        ),
        404 => (
            "ResourceNotFoundException",
            "Could not resolve the foundation model from the provided model identifier.",
        ),
        408 => (
            "ModelTimeoutException",
            "The request took too long to process.",
        ),
        424 => (
            "ModelErrorException",
            "The request failed due to an error while processing the model.",
        ),
        429 => (
            "ThrottlingException",
            "Too many requests, please wait before trying again.",
        ),
        503 => (
            "ServiceUnavailableException",
            "The service isn't currently available. Try again later.",
        ),
        500.. => (
            "InternalServerException",
            "The system encountered an unexpected error during processing. Try your request again.",
        ),
        _ => (
            "ValidationException",
            "Malformed input request, please reformat your input and try again.",
        ),
    }
}

/// Event-stream frames of the two streaming operations.
enum Frames {
    Invoke,
    Converse,
}

impl Wire for Frames {
    fn event(&self, index: usize, event: &Event) -> Result<Bytes, PrepareError> {
        Ok(match self {
            Self::Invoke => eventstream::chunk(index, event)?,
            Self::Converse => eventstream::converse_event(index, event)?,
        })
    }

    fn error(&self, error_type: &str, message: &str) -> Result<Bytes, PrepareError> {
        Ok(eventstream::exception(error_type, message)?)
    }

    fn ping(&self) -> Option<Bytes> {
        None
    }
}
