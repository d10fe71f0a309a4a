//! The HTTP clients that all calls to upstreams share: one pool of connections per upstream, no redirects, no proxy from the
//! environment, nothing decoded.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use spillway_core::domain::upstream::AllowedUpstreams;

use super::aws_http::AwsHttpClient;
use super::connector::GuardedConnector;

/// Idle connections are closed before common load balancers close them from their side.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle connections kept for one upstream.
const MAX_IDLE: usize = 512;

/// The client for the Plan.
pub(super) type PlanHttpClient = Client<GuardedConnector, Full<Bytes>>;

/// What the clients are made with.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Where connections may be made to.
    pub allowed: Arc<AllowedUpstreams>,
    /// The longest that connecting may take, name resolution and TLS included.
    pub connect_timeout: Duration,
}

/// Why TLS cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the TLS provider supports no usable protocol version")]
pub struct TlsSetupError(#[source] rustls::Error);

/// The clients, to be shared by all adapters.
#[derive(Clone)]
pub struct HttpClients {
    pub(super) plan: PlanHttpClient,
    pub(super) aws: SharedHttpClient,
}

impl HttpClients {
    /// Makes the clients, which trust the system's certificate authorities.
    ///
    /// # Errors
    /// [`TlsSetupError`] when the TLS provider is unusable.
    pub fn new(settings: &HttpSettings) -> Result<Self, TlsSetupError> {
        let connector = GuardedConnector::new(
            Arc::clone(&settings.allowed),
            &tls()?,
            settings.connect_timeout,
        );
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(MAX_IDLE);
        Ok(Self {
            plan: builder.build(connector.clone()),
            aws: SharedHttpClient::new(AwsHttpClient::new(builder.build(connector))),
        })
    }
}

fn tls() -> Result<ClientConfig, TlsSetupError> {
    let mut roots = RootCertStore::empty();
    let loaded = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(loaded.certs);
    if added == 0 {
        // Plain http to a listed origin still works, so this is no reason to refuse to start.
        tracing::warn!(
            errors = loaded.errors.len(),
            "no certificate authorities found, https upstreams will fail"
        );
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsSetupError)?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
