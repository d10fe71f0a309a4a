//! The public listener: HTTP/1.1 and HTTP/2 without TLS, with limits on heads, and an end that waits for answers in flight.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::framing::Watched;
use crate::http::patience::{Patience, Patient};
use crate::routing::RelayBody;

/// The longest head, and the largest piece a body is read in.
const MAX_HEAD_BYTES: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
const MAX_STREAMS_PER_CONNECTION: u32 = 256;
/// How long a connection may wait for its (next) request: longer than the 60 s after which load balancers drop idle ones, so
/// that it is they who close.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
const PATIENCE: Patience = Patience {
    opening: HEAD_TIMEOUT,
    // As long as a client's own patience with a silent stream.
    sending: Duration::from_mins(5),
};
/// HTTP/2 connections are asked whether somebody is there.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// What to wait when the process has no file descriptors left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request, whose head is `ambiguous` when it says the body's length twice. Dropped when the client leaves.
    fn answer(
        &self,
        request: Request<Incoming>,
        ambiguous: bool,
    ) -> impl Future<Output = Response<RelayBody>> + Send;
}

/// Accepts connections until `stop`, then waits for the answers in flight, at most `grace`, and cuts off the rest.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    stop: CancellationToken,
    grace: Duration,
) {
    let builder = Arc::new(builder());
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let (builder, service, watcher) = (
                    Arc::clone(&builder),
                    Arc::clone(&service),
                    graceful.watcher(),
                );
                let connection = async move {
                    // Answers are streams of small pieces: each must leave at once.
                    let _ = stream.set_nodelay(true);
                    let (stream, framing) =
                        Watched::new(Patient::new(stream, PATIENCE), MAX_HEAD_BYTES);
                    let service = service_fn(move |request| {
                        let (service, framing) = (Arc::clone(&service), Arc::clone(&framing));
                        async move {
                            let response = service.answer(request, framing.take_ambiguous()).await;
                            framing.answered();
                            Ok::<_, Infallible>(response)
                        }
                    });
                    let connection = builder
                        .serve_connection(TokioIo::new(stream), service)
                        .into_owned();
                    // A client that breaks the protocol or leaves is its own affair.
                    let _ = watcher.watch(connection).await;
                };
                connections.spawn(cut.clone().run_until_cancelled_owned(connection));
            }
            Err(error) => {
                tracing::warn!(error = %error, "connection could not be accepted");
                tokio::time::sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let open = connections.len();
    tracing::info!(connections = open, "finishing answers in flight");
    if tokio::time::timeout(grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "grace period is over: cutting off what is left"
        );
    }
    cut.cancel();
    connections.wait().await;
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .max_headers(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .max_header_list_size(u32::try_from(MAX_HEAD_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS_PER_CONNECTION);
    builder
}
