//! The public listener: HTTP/1.1 and HTTP/2 without TLS, with limits on heads, and an end that waits for answers in flight.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Version};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::connection::{Answer, ClientStream, Framing, Length, Patience, RequestBody};
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
/// How long what was cut off may take to say so to its clients.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// What to wait when the process has no file descriptors left.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Answers requests.
pub trait Service: Send + Sync + 'static {
    /// Answers one request, whose body's length is said so. Dropped when the client leaves.
    fn answer(
        &self,
        request: Request<RequestBody>,
        length: Length,
    ) -> impl Future<Output = Response<RelayBody>> + Send;
}

/// When to end.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// No connection is accepted any more.
    pub stop: CancellationToken,
    /// What is left is cut off.
    pub cut: CancellationToken,
}

/// Accepts connections until it is told to stop, then waits for the answers in flight, at most `grace`, and cuts off the rest.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    ending: Ending,
    grace: Duration,
) {
    let builder = Arc::new(builder());
    let connections = TaskTracker::new();
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = ending.stop.cancelled() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                // Answers are streams of small pieces: each must leave at once.
                let _ = stream.set_nodelay(true);
                let connection = Connection {
                    builder: Arc::clone(&builder),
                    service: Arc::clone(&service),
                    watcher: graceful.watcher(),
                    cut: ending.cut.child_token(),
                };
                connections.spawn(connection.run(stream));
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
    let is_cut = tokio::select! {
        () = graceful.shutdown() => false,
        () = tokio::time::sleep(grace) => true,
        () = ending.cut.cancelled() => true,
    };
    if is_cut {
        tracing::warn!(connections = connections.len(), "cutting off what is left");
    }
    ending.cut.cancel();
    connections.wait().await;
}

/// One that was accepted.
struct Connection<S> {
    builder: Arc<auto::Builder<TokioExecutor>>,
    service: Arc<S>,
    watcher: Watcher,
    cut: CancellationToken,
}

impl<S: Service> Connection<S> {
    async fn run<I>(self, stream: I)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = ClientStream::new(stream, PATIENCE, MAX_HEAD_BYTES);
        let (framing, service, cut) = (stream.framing(), self.service, self.cut.clone());
        let service = service_fn(move |request| {
            exchange(
                Arc::clone(&service),
                request,
                Arc::clone(&framing),
                cut.clone(),
            )
        });
        let connection = self
            .builder
            .serve_connection(TokioIo::new(stream), service)
            .into_owned();
        let mut connection = std::pin::pin!(self.watcher.watch(connection));
        // A client that breaks the protocol or leaves is its own affair.
        let is_over = self.cut.run_until_cancelled(&mut connection).await;
        if is_over.is_none() {
            let _ = tokio::time::timeout(FAREWELL, connection).await;
        }
    }
}

/// A request and its answer.
async fn exchange<S: Service>(
    service: Arc<S>,
    request: Request<Incoming>,
    framing: Arc<Framing>,
    cut: CancellationToken,
) -> Result<Response<Answer>, Infallible> {
    if request.version() >= Version::HTTP_2 {
        let request = request.map(|body| RequestBody::new(body, None));
        let response = service.answer(request, Length::Clear).await;
        return Ok(response.map(|body| Answer::http2(body, &cut, PATIENCE.sending)));
    }
    let length = framing.begin(request.headers());
    let request = request.map(|body| RequestBody::new(body, Some(Arc::clone(&framing))));
    let mut response = service.answer(request, length).await;
    if framing.is_unread() {
        // The rest of the body must not be read as what comes next.
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    Ok(response.map(|body| Answer::http1(body, &cut)))
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

#[cfg(test)]
mod tests;
