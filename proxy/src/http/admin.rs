//! The admin listener: health, readiness and metrics. Not for clients; it says nothing about them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::get;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use crate::directory::Directory;
use crate::metering::Spool;
use crate::metrics::Metrics;
use crate::routing::Router as Upstreams;

/// What readiness and metrics are read from.
pub struct Health {
    directory: Arc<Directory>,
    spool: Arc<Spool>,
    upstreams: Arc<Upstreams>,
    metrics: Arc<Metrics>,
    draining: AtomicBool,
}

impl Health {
    /// Ready as soon as `directory` and circuits are loaded and `spool` has room.
    pub fn new(
        directory: Arc<Directory>,
        spool: Arc<Spool>,
        upstreams: Arc<Upstreams>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            directory,
            spool,
            upstreams,
            metrics,
            draining: AtomicBool::new(false),
        }
    }

    /// From now on not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why this pod should get no requests; `None` when it should.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.draining.load(Ordering::Relaxed) {
            Some("draining")
        } else if !self.directory.is_loaded() {
            Some("keys and configuration are not loaded")
        } else if !self.upstreams.is_loaded() {
            Some("circuits are not loaded")
        } else if self.spool.is_blocked() {
            Some("the usage spool is full or cannot be written")
        } else {
            None
        }
    }
}

/// The routes of the admin listener.
pub fn routes(health: Arc<Health>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(health)
}

async fn ready(State(health): State<Arc<Health>>) -> (StatusCode, String) {
    match health.not_ready() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(health): State<Arc<Health>>) -> Response<Body> {
    let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    health
        .metrics
        .spool_records
        .set(gauge(health.spool.records()));
    health
        .metrics
        .spool_capacity
        .set(gauge(health.spool.capacity()));
    health
        .metrics
        .spool_blocked
        .set(i64::from(health.spool.is_blocked()));
    health
        .metrics
        .directory_current
        .set(i64::from(health.directory.is_current()));
    health
        .metrics
        .show_circuits(&health.upstreams.open_circuits());
    match health.metrics.render() {
        Ok(text) => {
            let mut response = Response::new(Body::from(text));
            response.headers_mut().insert(
                CONTENT_TYPE,
                HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
            );
            response
        }
        Err(error) => {
            tracing::error!(error = %error, "metrics could not be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}
