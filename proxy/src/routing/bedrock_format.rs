//! Serves calls in Bedrock's format: by Bedrock alone, relayed as they are, metered.

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::BodyExt as _;
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use tokio::time::{Instant, timeout_at};

use super::Timeouts;
use super::body::RelayBody;
use super::class::{self, Failure};
use super::collect::collect;
use super::frame_relay::FrameRelay;
use super::ledger::{Count, Ledger};
use super::pace::Pace;
use super::relay::status_of;
use crate::adapter::bedrock::{for_log, is_claude};
use crate::adapter::bedrock_relay::{
    BedrockRelay, Fault, Operation, RelayRequest, code_of, failure_of, message_of, on_answer,
    shown_body,
};
use crate::adapter::http1::AnswerBody;
use crate::adapter::{AdapterError, chain};
use crate::call::{BedrockCredential, Call, MAX_ANSWER, MAX_ERROR, Ticket};

/// Whom and what to ask.
#[derive(Debug)]
pub struct BedrockAsked {
    /// What is asked for.
    pub operation: Operation,
    /// Model id, inference profile id or ARN, as it goes to Bedrock.
    pub model_id: String,
    /// The credential.
    pub credential: Arc<BedrockCredential>,
}

/// Serves admitted calls of Bedrock's format.
pub struct BedrockFormat {
    relay: Arc<BedrockRelay>,
    timeouts: Timeouts,
}

impl BedrockFormat {
    /// A server over this relay.
    pub fn new(relay: Arc<BedrockRelay>, timeouts: Timeouts) -> Self {
        Self { relay, timeouts }
    }

    /// Serves a call. `ticket` is closed before the response's last bytes leave; also when the future or the response's body
    /// is dropped because the client left, which cancels the request upstream.
    pub async fn serve(
        &self,
        call: Call,
        asked: BedrockAsked,
        ticket: Ticket,
    ) -> Response<RelayBody> {
        let mut ledger = Ledger::new(&call, ticket);
        let renamed = (asked.model_id != call.head.model).then_some(asked.model_id.as_str());
        ledger.begin(Provider::Bedrock, renamed);
        let operation = asked.operation;
        let deadline = Instant::now()
            + if operation.is_stream() {
                self.timeouts.bedrock_idle
            } else {
                self.timeouts.plan_request
            };
        let request = RelayRequest {
            operation,
            model_id: &asked.model_id,
            headers: &call.headers,
            body: call.body.clone(),
        };
        let response = match timeout_at(deadline, self.relay.send(request, &asked.credential)).await
        {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return unanswered(ledger, &error).await,
            Err(_) => return timed_out(ledger, operation).await,
        };
        drop(call);
        ledger.answered(text(response.headers(), "x-amzn-requestid"));
        if !response.status().is_success() {
            ledger.refused();
            return refused(response, ledger, deadline).await;
        }
        if operation.is_stream() {
            let pace = Pace {
                first_byte: deadline,
                idle: self.timeouts.bedrock_idle,
                ping: None,
            };
            let is_claude = is_claude(&asked.model_id);
            return streamed(response, operation, is_claude, ledger, pace);
        }
        whole(response, operation, ledger, deadline).await
    }
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

async fn unanswered(ledger: Box<Ledger>, error: &AdapterError) -> Response<RelayBody> {
    let (status, message) = match error {
        AdapterError::Connect(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Bedrock could not be reached",
        ),
        AdapterError::NoAnswer(_) => (StatusCode::BAD_GATEWAY, "Bedrock's answer broke off"),
        AdapterError::Build(_)
        | AdapterError::Unsupported { .. }
        | AdapterError::Invalid { .. } => (
            StatusCode::INTERNAL_SERVER_ERROR,
            "the request could not be sent to Bedrock",
        ),
    };
    let failure = Failure::Upstream(FallbackReason::Connect);
    fail(ledger, &Fault::new(status, message), failure, &chain(error)).await
}

/// An answer that was not streamed may have been made and billed; one that never began to stream was not.
async fn timed_out(ledger: Box<Ledger>, operation: Operation) -> Response<RelayBody> {
    let failure = if operation.is_stream() {
        Failure::Upstream(FallbackReason::Timeout)
    } else {
        Failure::Spent
    };
    let fault = Fault::new(
        StatusCode::GATEWAY_TIMEOUT,
        "Bedrock did not answer in time",
    );
    fail(ledger, &fault, failure, "no answer in time").await
}

/// Answers with an error of the proxy's own.
async fn fail(
    mut ledger: Box<Ledger>,
    fault: &Fault,
    failure: Failure,
    why: &str,
) -> Response<RelayBody> {
    let request_id = ledger.request_id;
    tracing::warn!(%request_id, ?failure, why, "a call in bedrock's format failed");
    ledger.show(fault.status.as_u16());
    let mut headers = fault.headers(request_id);
    let count = if failure == Failure::Spent {
        // Whoever tries again pays again.
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
        Count::Estimated
    } else {
        Count::Reported
    };
    ledger.close(status_of(failure), count).await;
    respond(fault.status, headers, RelayBody::whole(fault.body()))
}

/// Bedrock answered with an error, which passes unless it tells of an account.
async fn refused(
    response: Response<AnswerBody>,
    mut ledger: Box<Ledger>,
    deadline: Instant,
) -> Response<RelayBody> {
    let (head, body) = response.into_parts();
    let mut headers = head.headers;
    let code = text(&headers, "x-amzn-errortype");
    let code = code.as_deref().map(code_of);
    // Of an error that cannot be read to its end, its kind is still known.
    let given = match timeout_at(deadline, collect(body.into_data_stream(), MAX_ERROR)).await {
        Ok(Ok(given)) => given,
        _ => Fault::new(head.status, "Bedrock's answer broke off").body(),
    };
    let (status, words) = failure_of(head.status, code);
    let failure = class::of_status(status.as_u16(), &words);
    let (request_id, message) = (ledger.request_id, message_of(&given));
    let message = &*for_log(&message);
    if failure == Failure::Client {
        tracing::info!(%request_id, status = status.as_u16(), code, message, "bedrock refused a call");
    } else {
        tracing::warn!(%request_id, status = status.as_u16(), code, message, "bedrock refused a call");
    }
    ledger.show(head.status.as_u16());
    ledger.close(status_of(failure), Count::Reported).await;
    headers
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    let shown = shown_body(head.status, code, given);
    respond(head.status, headers, RelayBody::whole(shown))
}

fn streamed(
    response: Response<AnswerBody>,
    operation: Operation,
    is_claude: bool,
    mut ledger: Box<Ledger>,
    pace: Pace,
) -> Response<RelayBody> {
    let (head, body) = response.into_parts();
    ledger.show(head.status.as_u16());
    let relay = FrameRelay::new(body, operation, is_claude, ledger, pace);
    respond(head.status, head.headers, RelayBody::frames(relay))
}

async fn whole(
    response: Response<AnswerBody>,
    operation: Operation,
    mut ledger: Box<Ledger>,
    deadline: Instant,
) -> Response<RelayBody> {
    let (head, body) = response.into_parts();
    let body = match timeout_at(deadline, collect(body.into_data_stream(), MAX_ANSWER)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => {
            let fault = Fault::new(StatusCode::BAD_GATEWAY, "Bedrock's answer broke off");
            return fail(ledger, &fault, Failure::Spent, &chain(&error)).await;
        }
        Err(_) => return timed_out(ledger, operation).await,
    };
    on_answer(&mut ledger.tap, operation, &head.headers, &body);
    ledger.show(head.status.as_u16());
    ledger.show_content();
    ledger.close(UsageStatus::Ok, Count::Estimated).await;
    respond(head.status, head.headers, RelayBody::whole(body))
}

fn respond(status: StatusCode, mut headers: HeaderMap, body: RelayBody) -> Response<RelayBody> {
    // Written anew from the body where that is known; behind a stream an exception may have to follow.
    headers.remove(CONTENT_LENGTH);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
