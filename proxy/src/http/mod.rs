//! The public HTTP side: from a request to an admitted [`Call`], and refusals in Anthropic's shape.

pub mod admin;
mod admission;
pub mod auth;
mod bedrock_format;
pub mod bedrock_head;
pub mod body;
pub mod connection;
pub mod error;
mod gzip;
pub mod head;
mod json_fields;
mod json_masks;
pub mod model_list;
mod models;
pub mod route;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{Provider, UsageStatus};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::adapter::plan::PlanAdapter;
use crate::call::Outcome;
use crate::directory::{Directory, KeyEntry};
use crate::http::admission::Admitted;
use crate::http::auth::OriginVerify;
use crate::http::body::ByteBudget;
use crate::http::connection::{Length, RequestBody};
use crate::http::error::Refusal;
use crate::http::models::Answered;
use crate::http::route::{Route, target};
use crate::http::server::Service;
use crate::metering::{Clock, Meter};
use crate::metrics::Metrics;
use crate::routing::{BedrockFormat, Counter, RelayBody, Router};

/// Answers the requests of the public listener.
pub struct Frontend {
    /// Keys and configuration.
    pub directory: Arc<Directory>,
    /// Opens and closes usage records.
    pub meter: Meter,
    /// Asks the upstreams.
    pub router: Arc<Router>,
    /// Serves what comes in Bedrock's format.
    pub bedrock_format: BedrockFormat,
    /// Counts tokens.
    pub counter: Counter,
    /// Asked for its models.
    pub plan: PlanAdapter,
    /// The database's time.
    pub clock: Arc<Clock>,
    /// What all bodies together may hold.
    pub body_budget: ByteBudget,
    /// The front door's secret.
    pub origin_verify: OriginVerify,
    /// Counts refusals.
    pub metrics: Arc<Metrics>,
    /// Cancelled when what is left of the calls is cut off.
    pub cut: CancellationToken,
}

impl Service for Frontend {
    async fn answer(&self, request: Request<RequestBody>, length: Length) -> Response<RelayBody> {
        let received_at = Instant::now();
        let request_id = Uuid::now_v7();
        let route = target(request.uri().path()).route;
        let dispatched = if let Some(refusal) = refused_length(length) {
            Err(refusal)
        } else {
            // A connection keeps room for the largest future that it ever polls: on the heap it is gone when it is done.
            let dispatched = Box::pin(self.dispatch(request, route, request_id, received_at));
            let dispatched = self.cut.run_until_cancelled(dispatched).await;
            dispatched.unwrap_or_else(|| Err(interrupted()))
        };
        match dispatched {
            Ok(response) => response,
            Err(refusal) => {
                let code = refusal.status;
                tracing::debug!(%request_id, route = route.label(), status = code.as_u16(), reason = refusal.reason, "refused");
                self.metrics
                    .refused
                    .with_label_values(&[refusal.reason])
                    .inc();
                if refusal.reason != INTERRUPTED {
                    // Of one that was interrupted its usage record tells.
                    self.metrics
                        .requests
                        .with_label_values(&[route.label(), code.as_str(), "none"])
                        .inc();
                }
                if route.is_bedrock() {
                    bedrock_format::refused(refusal, request_id)
                } else {
                    refusal.into_response(request_id)
                }
            }
        }
    }
}

impl Frontend {
    async fn dispatch(
        &self,
        request: Request<RequestBody>,
        route: Route,
        request_id: Uuid,
        received_at: Instant,
    ) -> Result<Response<RelayBody>, Refusal> {
        if matches!(route, Route::Unknown | Route::UnknownBedrock) {
            return Err(Refusal::not_found());
        }
        if !route.has(request.method()) {
            return Err(Refusal::method_not_allowed(route.methods()));
        }
        let answered = match route {
            Route::Messages => return self.messages(request, request_id, received_at).await,
            Route::Bedrock(operation) => {
                // Larger than what most requests need, and only theirs to carry.
                let response =
                    Box::pin(self.bedrock(request, operation, request_id, received_at)).await?;
                if operation.is_metered() {
                    return Ok(response);
                }
                (response, Some(Provider::Bedrock))
            }
            Route::CountTokens => {
                Box::pin(self.count_tokens(request, request_id, received_at)).await?
            }
            Route::Probe => {
                self.origin_verify.check(request.headers())?;
                (Response::new(RelayBody::whole(Bytes::new())), None)
            }
            Route::Unknown | Route::UnknownBedrock => return Err(Refusal::not_found()),
            Route::Models | Route::Model | Route::InferenceProfiles | Route::InferenceProfile => {
                let (parts, _) = request.into_parts();
                match route {
                    Route::Models => self.models(&parts, request_id).await?,
                    Route::Model => self.model(&parts, request_id).await?,
                    _ => self.inference_profiles(&parts, request_id).await?,
                }
            }
        };
        Ok(self.observed(route, answered, request_id, received_at))
    }

    /// Counts an answer that no usage record counts.
    fn observed(
        &self,
        route: Route,
        (response, provider): Answered,
        request_id: Uuid,
        received_at: Instant,
    ) -> Response<RelayBody> {
        let provider = provider.map_or("none", Provider::as_str);
        let status = response.status();
        self.metrics
            .requests
            .with_label_values(&[route.label(), status.as_str(), provider])
            .inc();
        self.metrics
            .duration
            .with_label_values(&[route.label(), provider])
            .observe(received_at.elapsed().as_secs_f64());
        tracing::debug!(%request_id, route = route.label(), http_status = status.as_u16(), provider, "served");
        response
    }

    /// In the order of the contract: the front door, the key, the body, the model, then the record that must exist before an
    /// upstream is asked.
    async fn messages(
        &self,
        request: Request<RequestBody>,
        request_id: Uuid,
        received_at: Instant,
    ) -> Result<Response<RelayBody>, Refusal> {
        let admitted = self.admit(request).await?;
        let head = head::request_head(&admitted.body, &admitted.parts.headers)?;
        let allowed = check_model(&admitted.entry, &head.model);
        let call = admitted.into_call(head, request_id, received_at);
        let ticket = self.meter.open(&call, Route::Messages).await?;
        if let Err(refusal) = allowed {
            ticket
                .finish(blocked(&refusal, received_at.elapsed()))
                .await;
            return Err(refusal);
        }
        Ok(self.router.serve(call, ticket).await)
    }

    /// As messages, but nothing is metered.
    async fn count_tokens(
        &self,
        request: Request<RequestBody>,
        request_id: Uuid,
        received_at: Instant,
    ) -> Result<Answered, Refusal> {
        let admitted: Admitted = self.admit(request).await?;
        let head = head::request_head(&admitted.body, &admitted.parts.headers)?;
        check_model(&admitted.entry, &head.model)?;
        let call = admitted.into_call(head, request_id, received_at);
        Ok(self.counter.count(&call).await)
    }
}

fn refused_length(length: Length) -> Option<Refusal> {
    let message = match length {
        Length::Clear => return None,
        Length::SaidTwice => {
            "Content-Length and Transfer-Encoding exclude each other: send one of them"
        }
        Length::Unseen => {
            "A chunked request must not be sent before the one before it is answered: wait, or send its Content-Length"
        }
    };
    Some(Refusal::invalid("ambiguous_length", message))
}

/// The reason of a refusal in the place of an answer.
const INTERRUPTED: &str = "interrupted";

fn interrupted() -> Refusal {
    Refusal::unavailable(
        INTERRUPTED,
        "This proxy is shutting down before the answer is there; try again",
        1,
    )
}

fn check_model(entry: &KeyEntry, model: &str) -> Result<(), Refusal> {
    if entry.allows(model) {
        return Ok(());
    }
    Err(Refusal::invalid(
        "model",
        format!("model: {} is not allowed for this access key", shown(model)),
    ))
}

/// A model name as an error message may repeat it.
fn shown(model: &str) -> String {
    model
        .chars()
        .filter(|c| !c.is_control())
        .take(128)
        .collect()
}

fn blocked(refusal: &Refusal, latency: Duration) -> Outcome {
    Outcome {
        status: UsageStatus::Blocked,
        http_status: refusal.status.as_u16(),
        provider: None,
        upstream_model: None,
        upstream_request_id: None,
        is_fallback: false,
        fallback_reason: None,
        tokens: TokenUsage::default(),
        estimated: false,
        abandoned: None,
        ttft: None,
        overhead: latency,
        latency,
    }
}
