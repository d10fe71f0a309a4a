//! Connections to upstreams, made only to where a credential may be sent.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use spillway_core::domain::upstream::{AllowedUpstreams, Reach, UpstreamRefused, is_public};
use tokio::net::TcpStream;
use tower::Service;
use url::Url;

/// How long an idle connection may be silent before the kernel probes it: shorter than common NAT time-outs.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);

/// Why no connection was made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    /// The URI names no origin.
    #[error("the upstream's URI is not a URL")]
    Uri(#[source] url::ParseError),
    /// The origin is not among the allowed ones.
    #[error("the upstream is refused")]
    Refused(#[from] UpstreamRefused),
    /// Not within the time-out, TLS included.
    #[error("no connection within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// Name resolution, TCP or TLS failed.
    #[error("the connection failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Connects over TCP and TLS. Every origin is checked against the allowed upstreams, and so is every address that a name
/// resolves to unless the whole origin is listed, so that a name cannot be pointed at a private address afterwards.
#[derive(Clone)]
pub(super) struct GuardedConnector {
    allowed: Arc<AllowedUpstreams>,
    public: HttpsConnector<HttpConnector<PublicResolver>>,
    any: HttpsConnector<HttpConnector<GaiResolver>>,
    timeout: Duration,
}

impl GuardedConnector {
    /// A connector that gives up after `timeout`.
    pub(super) fn new(
        allowed: Arc<AllowedUpstreams>,
        tls: &ClientConfig,
        timeout: Duration,
    ) -> Self {
        Self {
            allowed,
            public: https(
                tls,
                HttpConnector::new_with_resolver(PublicResolver(GaiResolver::new())),
            ),
            any: https(tls, HttpConnector::new_with_resolver(GaiResolver::new())),
            timeout,
        }
    }
}

/// HTTP/1.1 alone: one HTTP/2 connection would carry all streams and queue those beyond the upstream's limit.
fn https<R>(tls: &ClientConfig, mut http: HttpConnector<R>) -> HttpsConnector<HttpConnector<R>> {
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_keepalive(Some(TCP_KEEPALIVE));
    hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http)
}

type Connecting = Pin<
    Box<dyn Future<Output = Result<MaybeHttpsStream<TokioIo<TcpStream>>, ConnectError>> + Send>,
>;

impl Service<Uri> for GuardedConnector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = ConnectError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Connecting {
        let timeout = self.timeout;
        let origin = format!(
            "{}://{}",
            uri.scheme_str().unwrap_or_default(),
            uri.authority().map_or("", |host| host.as_str())
        );
        let reach = Url::parse(&origin)
            .map_err(ConnectError::Uri)
            .and_then(|url| Ok(self.allowed.check(&url)?));
        let connecting = match reach {
            Ok(Reach::Public) => self.public.call(uri),
            Ok(Reach::Any) => self.any.call(uri),
            Err(refused) => return Box::pin(std::future::ready(Err(refused))),
        };
        Box::pin(async move {
            match tokio::time::timeout(timeout, connecting).await {
                Ok(connected) => connected.map_err(ConnectError::Failed),
                Err(_) => Err(ConnectError::TimedOut(timeout)),
            }
        })
    }
}

/// Resolves names to their public addresses.
#[derive(Clone)]
struct PublicResolver(GaiResolver);

type Resolving = Pin<Box<dyn Future<Output = io::Result<std::vec::IntoIter<SocketAddr>>> + Send>>;

impl Service<Name> for PublicResolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Resolving {
        let resolving = self.0.call(name);
        Box::pin(async move { public_only(resolving.await?) })
    }
}

/// The public ones of `addresses`; an error if there is none.
fn public_only(
    addresses: impl Iterator<Item = SocketAddr>,
) -> io::Result<std::vec::IntoIter<SocketAddr>> {
    let public: Vec<SocketAddr> = addresses
        .filter(|address| is_public(address.ip()))
        .collect();
    if public.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the host resolves to no public address: list its whole origin in PROXY_ALLOWED_UPSTREAMS if it is meant",
        ));
    }
    Ok(public.into_iter())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connector(allowed: &str) -> GuardedConnector {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        GuardedConnector::new(
            Arc::new(allowed.parse().unwrap()),
            &tls,
            Duration::from_secs(5),
        )
    }

    #[tokio::test]
    async fn a_listed_origin_is_reached_on_loopback() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        assert!(
            connector(&origin)
                .call(origin.parse().unwrap())
                .await
                .is_ok()
        );
    }

    #[tokio::test]
    async fn other_origins_are_refused_before_anything_is_sent() {
        for uri in [
            "http://127.0.0.1:1/",
            "https://evil.example/",
            "http://api.anthropic.com/",
        ] {
            let refused = connector("api.anthropic.com")
                .call(uri.parse().unwrap())
                .await;
            assert!(matches!(refused, Err(ConnectError::Refused(_))), "{uri}");
        }
    }

    #[tokio::test]
    async fn a_name_that_points_to_a_private_address_is_refused() {
        let refused = connector("localhost")
            .call("https://localhost:1/".parse().unwrap())
            .await;
        let Err(ConnectError::Failed(error)) = refused else {
            panic!("it connected")
        };
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error.as_ref());
        let texts = std::iter::from_fn(|| {
            let error = source.take()?;
            source = error.source();
            Some(error.to_string())
        });
        assert!(texts.collect::<String>().contains("no public address"));
    }
}
