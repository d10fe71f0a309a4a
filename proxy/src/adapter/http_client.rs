//! The HTTP clients that all calls to upstreams share: one pool of connections per upstream, no redirects, no proxy from the
//! environment, nothing decoded.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use rustls::{ClientConfig, RootCertStore};
use spillway_core::domain::upstream::AllowedUpstreams;
use url::Url;

use super::aws_http::AwsHttpClient;
use super::chain;
use super::connector::GuardedConnector;
use super::http1::HttpClient;

/// Idle connections are closed before common load balancers close them from their side.
const IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle connections kept for one upstream.
const MAX_IDLE: usize = 512;

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
    pub(super) http: HttpClient,
    pub(super) aws: SharedHttpClient,
}

impl HttpClients {
    /// Makes the clients, which trust the system's certificate authorities. Needs a runtime.
    ///
    /// # Errors
    /// [`TlsSetupError`] when the TLS provider is unusable.
    pub fn new(settings: &HttpSettings) -> Result<Self, TlsSetupError> {
        let connector = GuardedConnector::new(
            Arc::clone(&settings.allowed),
            &tls()?,
            settings.connect_timeout,
        );
        let http = HttpClient::new(connector, MAX_IDLE, IDLE_TIMEOUT);
        Ok(Self {
            aws: SharedHttpClient::new(AwsHttpClient::new(http.clone())),
            http,
        })
    }

    /// Opens a connection to an upstream ahead of its first request. That it fails is for that request to find.
    pub async fn warm(&self, upstream: &Url) {
        let Ok(uri) = upstream.as_str().parse() else {
            return;
        };
        if let Err(error) = self.http.warm(&uri).await {
            tracing::debug!(
                error = chain(&error),
                "no connection ahead of the first request"
            );
        }
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
