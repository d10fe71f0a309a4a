//! Counts the tokens of a request: by the Plan, else by Bedrock, else by a guess that says so.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use spillway_core::domain::bedrock::foundation_model;
use spillway_core::domain::usage::Provider;
use tokio::time::{Instant, timeout, timeout_at};

use super::answer::UNKNOWN_FIELD;
use super::body::RelayBody;
use super::estimate;
use super::plan_query::PlanAnswer;
use super::{CircuitStore, Timeouts};
use crate::adapter::bedrock::{anthropic_words, for_log};
use crate::adapter::bedrock_relay::{
    BedrockRelay, NotCountable, Operation, RelayRequest, count_body, counted, message_of,
};
use crate::adapter::plan::{PlanAdapter, PlanRequest};
use crate::adapter::{AdapterError, ErrorBody, answer_headers, asked_betas, chain};
use crate::call::{BedrockCredential, Call, PlanCredential};

/// Marks a count that is a guess.
pub const ESTIMATED: HeaderName = HeaderName::from_static("x-spillway-estimated");
/// Where the count is asked for.
const PATH: &str = "/v1/messages/count_tokens";
/// How long Bedrock may take before a guess has to do.
const BEDROCK_PATIENCE: Duration = Duration::from_secs(10);
/// How Bedrock refuses tools and fields that only the Plan has.
const UNKNOWN_TO_BEDROCK: &[&str] = &["Input tag '", UNKNOWN_FIELD];
/// The largest answer of Bedrock's.
const MAX_ANSWER: usize = 64 * 1024;

/// Counts tokens. Nothing is metered, and circuits are looked at but not told.
pub struct Counter {
    plan: PlanAdapter,
    bedrock: Arc<BedrockRelay>,
    circuits: Arc<dyn CircuitStore>,
    timeouts: Timeouts,
}

/// Why Bedrock did not count.
#[derive(Debug, thiserror::Error)]
enum NotCounted {
    #[error("the model has no id that bedrock counts for")]
    Model,
    #[error(transparent)]
    Request(#[from] NotCountable),
    #[error(transparent)]
    Unanswered(#[from] AdapterError),
    #[error("bedrock did not answer in time")]
    TimedOut,
    #[error("bedrock answered {status}: {}", for_log(message))]
    Refused { status: StatusCode, message: String },
}

impl Counter {
    /// A counter over these upstreams.
    pub fn new(
        plan: PlanAdapter,
        bedrock: Arc<BedrockRelay>,
        circuits: Arc<dyn CircuitStore>,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            plan,
            bedrock,
            circuits,
            timeouts,
        }
    }

    /// Answers a count, and says who gave it.
    pub async fn count(&self, call: &Call) -> (Response<RelayBody>, Option<Provider>) {
        let caller = &call.admission.caller;
        let (plan, bedrock) = (caller.plan.as_deref(), caller.bedrock.as_ref());
        // Without another upstream an open circuit stops nobody.
        let is_open = |plan: &PlanCredential| {
            let (model, now) = (&call.head.model, std::time::Instant::now());
            self.circuits.is_open(plan.id, model, now)
        };
        let asked = plan.filter(|plan| bedrock.is_none() || !is_open(plan));
        let answer = match asked {
            Some(plan) => Some(self.ask_plan(call, plan).await),
            None => None,
        };
        match (answer, bedrock) {
            (Some(answer), bedrock) if bedrock.is_none() || !answer.is_failure() => {
                (answer.into(), Some(Provider::Plan))
            }
            (_, Some(bedrock)) => self.count_without_plan(call, bedrock).await,
            (_, None) => (not_supported(call), None),
        }
    }

    async fn ask_plan(&self, call: &Call, plan: &PlanCredential) -> PlanAnswer {
        let request = PlanRequest {
            method: Method::POST,
            path: PATH,
            query: call.query.as_deref(),
            headers: &call.headers,
            body: call.body.clone(),
        };
        let deadline = Instant::now() + self.timeouts.plan_first_byte;
        let id = call.admission.request_id;
        PlanAnswer::ask(&self.plan, request, plan, deadline, id).await
    }

    async fn count_without_plan(
        &self,
        call: &Call,
        bedrock: &Arc<BedrockCredential>,
    ) -> (Response<RelayBody>, Option<Provider>) {
        let request_id = call.admission.request_id;
        match self.ask_bedrock(call, bedrock).await {
            Ok(tokens) => (answer(call, tokens), Some(Provider::Bedrock)),
            Err(error) => {
                // What is wrong with the request is worth more than a guess.
                if let NotCounted::Refused { message, .. } = &error
                    && let Some(words) = fault_of_the_request(message)
                {
                    return (refused(call, words.to_owned()), Some(Provider::Bedrock));
                }
                tracing::info!(%request_id, error = chain(&error), "tokens are estimated");
                (guess(call), None)
            }
        }
    }

    async fn ask_bedrock(
        &self,
        call: &Call,
        credential: &Arc<BedrockCredential>,
    ) -> Result<u64, NotCounted> {
        let id = call
            .admission
            .pool
            .bedrock_model(&call.head.model)
            .and_then(|(id, _)| foundation_model(id))
            .filter(|id| id.starts_with("anthropic."))
            .ok_or(NotCounted::Model)?;
        let body = count_body(&call.body, asked_betas(&call.headers), id)?;
        // Nothing of the client's headers is for Bedrock: it speaks Anthropic's format.
        let headers = http::HeaderMap::new();
        let request = RelayRequest {
            operation: Operation::CountTokens,
            model_id: id,
            headers: &headers,
            body,
        };
        let deadline = Instant::now() + BEDROCK_PATIENCE;
        let response = timeout_at(deadline, self.bedrock.send(request, credential))
            .await
            .map_err(|_| NotCounted::TimedOut)??;
        let status = response.status();
        let body = timeout(
            deadline - Instant::now(),
            Limited::new(response.into_body(), MAX_ANSWER).collect(),
        )
        .await
        .map_err(|_| NotCounted::TimedOut)?
        .map_err(AdapterError::NoAnswer)?
        .to_bytes();
        counted(&body)
            .filter(|_| status.is_success())
            .ok_or_else(|| NotCounted::Refused {
                status,
                message: message_of(&body),
            })
    }
}

fn answer(call: &Call, tokens: u64) -> Response<RelayBody> {
    let body = format!("{{\"input_tokens\":{tokens}}}");
    respond(call, StatusCode::OK, body.into())
}

fn guess(call: &Call) -> Response<RelayBody> {
    let Some(tokens) = estimate::input_tokens(&call.body) else {
        return refused(call, "messages: Input should be a valid list".to_owned());
    };
    let mut response = answer(call, tokens);
    response
        .headers_mut()
        .insert(ESTIMATED, HeaderValue::from_static("true"));
    response
}

fn refused(call: &Call, message: String) -> Response<RelayBody> {
    let error = ErrorBody::new("invalid_request_error", message);
    let body = error.to_answer(call.admission.request_id);
    respond(call, StatusCode::BAD_REQUEST, body)
}

/// What the Plan would have said as well, rather than have served what Bedrock does not know.
fn fault_of_the_request(message: &str) -> Option<&str> {
    anthropic_words(message)
        .filter(|words| !UNKNOWN_TO_BEDROCK.iter().any(|part| words.contains(part)))
}

/// Claude Code counts for itself then, and does not ask again.
fn not_supported(call: &Call) -> Response<RelayBody> {
    let error = ErrorBody::new(
        "not_supported",
        "tokens cannot be counted: the pool of this key has neither a Plan key nor a Bedrock credential that could be asked",
    );
    let body = error.to_answer(call.admission.request_id);
    let mut response = respond(call, StatusCode::NOT_IMPLEMENTED, body);
    response
        .headers_mut()
        .insert("x-should-retry", HeaderValue::from_static("false"));
    response
}

fn respond(call: &Call, status: StatusCode, body: Bytes) -> Response<RelayBody> {
    let mut response = Response::new(RelayBody::whole(body));
    *response.status_mut() = status;
    *response.headers_mut() = answer_headers(
        call.admission.request_id,
        HeaderValue::from_static("application/json"),
    );
    response
}
