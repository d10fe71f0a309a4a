//! The admin listener: `/healthz` (the process lives), `/readyz` (it does its part) and `/metrics`.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// What this replica does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// It has not reached the API server yet.
    Starting,
    /// It stands by to lead.
    Standby,
    /// It leads.
    Leader,
    /// It ends.
    Stopping,
}

/// What `/readyz` answers with.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    role: Role,
    /// Why the leader cannot write to Postgres; absent while it can, or does not lead.
    #[serde(skip_serializing_if = "Option::is_none")]
    database: Option<&'static str>,
}

impl Report {
    fn is_ready(&self) -> bool {
        match self.role {
            Role::Standby => true,
            Role::Leader => self.database.is_none(),
            Role::Starting | Role::Stopping => false,
        }
    }
}

/// The state that `/readyz` tells; cheap to clone.
#[derive(Clone)]
pub struct Health(Arc<Mutex<Report>>);

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Report {
            role: Role::Starting,
            database: None,
        })))
    }
}

impl Health {
    /// Records what this replica does.
    pub fn set_role(&self, role: Role) {
        self.0.lock().role = role;
    }

    /// Records why the leader cannot write to Postgres, or that it can.
    pub fn set_database(&self, away: Option<&'static str>) {
        self.0.lock().database = away;
    }

    fn report(&self) -> Report {
        self.0.lock().clone()
    }
}

/// The admin listener could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken or not this machine's.
    #[error("PROXY_ADMIN_ADDR: cannot listen on {address}: choose a free address of this host")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The listener broke.
    #[error("the admin listener failed")]
    Serve(#[source] std::io::Error),
}

/// Binds the admin listener; serving starts with [`AdminServer::serve`].
pub async fn bind(
    address: SocketAddr,
    health: Health,
    metrics: Metrics,
) -> Result<AdminServer, AdminError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Bind { address, source })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render))
        .with_state((health, metrics));
    Ok(AdminServer { listener, router })
}

/// A bound admin listener.
pub struct AdminServer {
    listener: TcpListener,
    router: Router,
}

impl AdminServer {
    /// The address it listens on (the port that was chosen for port 0).
    pub fn local_addr(&self) -> Result<SocketAddr, AdminError> {
        self.listener.local_addr().map_err(AdminError::Serve)
    }

    /// Serves until `stop`.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), AdminError> {
        axum::serve(self.listener, self.router)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
            .map_err(AdminError::Serve)
    }
}

async fn readyz(State((health, _)): State<(Health, Metrics)>) -> Response {
    let report = health.report();
    let status = if report.is_ready() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report)).into_response()
}

async fn render(State((_, metrics)): State<(Health, Metrics)>) -> Response {
    match metrics.render() {
        Ok(page) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], page).into_response(),
        Err(error) => {
            tracing::error!(
                error = crate::report::chain(&error),
                "metrics could not be rendered"
            );
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_ready_while_it_can_write_and_a_standby_always() {
        let health = Health::default();
        assert!(!health.report().is_ready(), "starting");
        health.set_role(Role::Standby);
        health.set_database(Some("unreachable"));
        assert!(health.report().is_ready(), "a standby needs no database");
        health.set_role(Role::Leader);
        assert!(!health.report().is_ready());
        health.set_database(None);
        assert!(health.report().is_ready());
        health.set_role(Role::Stopping);
        assert!(!health.report().is_ready());
    }
}
