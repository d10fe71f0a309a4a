//! HTTP/1.1 towards upstreams, read and written by whoever waits for the answer.
//!
//! A client for everything (hyper's) runs each connection as a task of its own, with queues between it and the request: for a
//! stream of small chunks that is a second wake-up a chunk and 30 KB a stream. A proxy asks with a body that it has, for an
//! answer that it reads to its end or drops; nothing needs to run beside that. Why this is worth its own code: ADR 11.

mod body;
mod connection;
mod framing;
mod head;
mod pool;

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri};
use tower::Service as _;

pub use self::body::{AnswerBody, AnswerBroken};
use self::connection::Connection;
pub use self::framing::{BadChunk, Decoded, Decoder, Framing};
pub use self::head::{Head, HeadError, read_head};
use self::pool::Pool;
use super::connector::{ConnectError, GuardedConnector};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The request's URI is not absolute.
    #[error("the request names no upstream")]
    NoOrigin,
    /// No connection was made.
    #[error("no connection")]
    Connect(#[from] ConnectError),
    /// The connection failed before the answer's head was there.
    #[error("the connection failed before an answer came")]
    Io(#[from] std::io::Error),
    /// The upstream closed the connection instead of answering.
    #[error("the connection was closed before an answer came")]
    Closed,
    /// What came is no answer.
    #[error("the answer's head is not HTTP/1.1: {0}")]
    Head(#[from] HeadError),
}

impl SendError {
    /// Whether nothing can have reached the upstream.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::NoOrigin)
    }
}

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Origin {
    scheme: Scheme,
    authority: Authority,
}

impl Origin {
    fn of(uri: &Uri) -> Result<Self, SendError> {
        match (uri.scheme(), uri.authority()) {
            (Some(scheme), Some(authority)) => Ok(Self {
                scheme: scheme.clone(),
                authority: authority.clone(),
            }),
            _ => Err(SendError::NoOrigin),
        }
    }
}

/// Sends requests over connections that are kept for the next ones. Clones share them.
#[derive(Clone)]
pub(super) struct HttpClient {
    connector: GuardedConnector,
    pool: Arc<Pool>,
}

impl HttpClient {
    /// A client that keeps at most `max_idle` connections to each origin, each for `idle_timeout`. Needs a runtime.
    pub(super) fn new(
        connector: GuardedConnector,
        max_idle: usize,
        idle_timeout: Duration,
    ) -> Self {
        let pool = Arc::new(Pool::new(max_idle, idle_timeout));
        pool::reap(Arc::downgrade(&pool), idle_timeout);
        Self { connector, pool }
    }

    /// Sends a request with an absolute URI and resolves when the answer's head is there. Dropping the future or the answer's
    /// body closes the connection. A request at whose first write a kept connection fails is sent again over another.
    pub(super) async fn send(
        &self,
        request: Request<Bytes>,
    ) -> Result<Response<AnswerBody>, SendError> {
        let (head, body) = request.into_parts();
        let origin = Origin::of(&head.uri)?;
        loop {
            let kept = self.pool.take(&origin);
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(kept) => kept,
                None => Box::new(self.connect(&head.uri).await?),
            };
            connection.ask(&head, body.clone());
            match poll_fn(|cx| connection.poll_head(cx)).await {
                Ok(answer) => {
                    return Ok(answer.into_response(|framing, is_reusable| {
                        AnswerBody::new(connection, framing, is_reusable, &self.pool, origin)
                    }));
                }
                Err(_) if is_kept && connection.took_nothing() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a connection for the first request to `uri`'s origin, unless there is one.
    pub(super) async fn warm(&self, uri: &Uri) -> Result<(), SendError> {
        let origin = Origin::of(uri)?;
        if !self.pool.has(&origin) {
            let connection = self.connect(uri).await?;
            self.pool.put(origin, Box::new(connection));
        }
        Ok(())
    }

    async fn connect(&self, uri: &Uri) -> Result<Connection, ConnectError> {
        let stream = self.connector.clone().call(uri.clone()).await?;
        Ok(Connection::new(stream))
    }
}

#[cfg(test)]
mod tests;
