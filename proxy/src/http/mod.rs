//! The public HTTP side: from a request to an admitted [`Call`], and refusals in Anthropic's shape.

pub mod admin;
pub mod auth;
pub mod body;
pub mod error;
mod framing;
pub mod head;
mod json_fields;
pub mod route;
pub mod server;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::UsageStatus;
use uuid::Uuid;

use crate::call::{Admission, Call, Outcome};
use crate::directory::Directory;
use crate::http::auth::{OriginVerify, presented_key};
use crate::http::body::ByteBudget;
use crate::http::error::Refusal;
use crate::http::route::{Route, target};
use crate::http::server::Service;
use crate::metering::{Clock, Meter};
use crate::metrics::Metrics;
use crate::routing::{RelayBody, Router};

/// Answers the requests of the public listener.
pub struct Frontend {
    /// Keys and configuration.
    pub directory: Arc<Directory>,
    /// Opens and closes usage records.
    pub meter: Meter,
    /// Asks the upstreams.
    pub router: Arc<Router>,
    /// The database's time.
    pub clock: Arc<Clock>,
    /// What all bodies together may hold.
    pub body_budget: ByteBudget,
    /// The front door's secret.
    pub origin_verify: OriginVerify,
    /// Counts refusals.
    pub metrics: Arc<Metrics>,
}

impl Service for Frontend {
    async fn answer(&self, request: Request<Incoming>, ambiguous: bool) -> Response<RelayBody> {
        let received_at = Instant::now();
        let request_id = Uuid::now_v7();
        let route = target(request.uri().path()).route;
        let dispatched = if ambiguous {
            Err(Refusal::invalid(
                "ambiguous_length",
                "Content-Length and Transfer-Encoding exclude each other: send one of them",
            ))
        } else {
            self.dispatch(request, route, request_id, received_at).await
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
                self.metrics
                    .requests
                    .with_label_values(&[route.label(), code.as_str(), "none"])
                    .inc();
                refusal.into_response(request_id)
            }
        }
    }
}

impl Frontend {
    async fn dispatch(
        &self,
        request: Request<Incoming>,
        route: Route,
        request_id: Uuid,
        received_at: Instant,
    ) -> Result<Response<RelayBody>, Refusal> {
        match (route, request.method()) {
            (Route::Messages, &Method::POST) => {
                self.messages(request, request_id, received_at).await
            }
            (Route::Probe, &Method::GET | &Method::HEAD) => {
                self.origin_verify.check(request.headers())?;
                self.metrics
                    .requests
                    .with_label_values(&[route.label(), StatusCode::OK.as_str(), "none"])
                    .inc();
                Ok(Response::new(RelayBody::whole(Bytes::new())))
            }
            (Route::Messages | Route::Probe, _) => {
                Err(Refusal::method_not_allowed(route.methods()))
            }
            (Route::Unknown, _) => Err(Refusal::not_found()),
        }
    }

    /// In the order of the contract: the front door, the key, the body, the model, then the record that must exist before an
    /// upstream is asked.
    async fn messages(
        &self,
        request: Request<Incoming>,
        request_id: Uuid,
        received_at: Instant,
    ) -> Result<Response<RelayBody>, Refusal> {
        let (parts, body) = request.into_parts();
        self.origin_verify.check(&parts.headers)?;
        let presented = presented_key(target(parts.uri.path()).path_key, &parts.headers);
        let created_at = self.clock.now();
        let revision = self.directory.revision();
        let mut entry = self.directory.authenticate(presented, created_at).await?;
        let body = body::read(&parts.headers, body, &self.body_budget).await?;
        if self.directory.revision() != revision {
            // The body may have taken its time, and the key may have been revoked meanwhile.
            entry = self
                .directory
                .authenticate(presented, self.clock.now())
                .await?;
        }
        let head = head::request_head(&body, &parts.headers)?;
        let allowed = entry.allows(&head.model);
        let call = Call {
            admission: Arc::new(Admission {
                request_id,
                created_at,
                caller: Arc::clone(&entry.caller),
                pool: Arc::clone(&entry.pool),
            }),
            head,
            body,
            headers: parts.headers,
            query: parts.uri.query().map(str::to_owned),
            received_at,
        };
        let ticket = self.meter.open(&call).await?;
        if !allowed {
            let refusal = Refusal::invalid(
                "model",
                format!(
                    "model: {} is not allowed for this access key",
                    shown(&call.head.model)
                ),
            );
            ticket
                .finish(blocked(&refusal, received_at.elapsed()))
                .await;
            return Err(refusal);
        }
        Ok(self.router.serve(call, ticket).await)
    }
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
