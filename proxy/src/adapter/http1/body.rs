//! The body of an answer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Origin;
use super::connection::Connection;
use super::framing::{BadChunk, Decoded, Decoder, Framing};
use super::pool::Pool;

/// An answer that broke off.
#[derive(Debug, thiserror::Error)]
pub enum AnswerBroken {
    /// The connection failed.
    #[error("the connection failed")]
    Io(#[from] std::io::Error),
    /// It was closed too early.
    #[error("the connection was closed before the end of the answer")]
    Closed,
    /// It is not framed as its head says.
    #[error("the answer is malformed")]
    Malformed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<BadChunk> for AnswerBroken {
    fn from(error: BadChunk) -> Self {
        Self::Malformed(error.into())
    }
}

/// An answer's bytes as they come. Read to its end it gives its connection back; dropped before, it closes it.
pub struct AnswerBody {
    decoder: Decoder,
    reading: Option<Reading>,
}

struct Reading {
    connection: Box<Connection>,
    is_reusable: bool,
    pool: Arc<Pool>,
    origin: Origin,
}

impl AnswerBody {
    pub(super) fn new(
        connection: Box<Connection>,
        framing: Framing,
        is_reusable: bool,
        pool: &Arc<Pool>,
        origin: Origin,
    ) -> Self {
        let mut body = Self {
            decoder: Decoder::new(framing),
            reading: Some(Reading {
                connection,
                is_reusable,
                pool: Arc::clone(pool),
                origin,
            }),
        };
        body.finish_if_whole();
        body
    }

    /// The next bytes; `None` at the end.
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, AnswerBroken>> {
        loop {
            let Some(Reading { connection, .. }) = &mut self.reading else {
                return Poll::Ready(Ok(None));
            };
            if let Decoded::Data(data) = self.decoder.decode(&mut connection.input)? {
                self.finish_if_whole();
                return Poll::Ready(Ok(Some(data)));
            }
            if self.decoder.is_end() {
                self.finish_if_whole();
                continue;
            }
            // An answer may begin before its request is taken in; one that ends before is all there is to know.
            let _ = connection.poll_write(cx);
            let read = ready!(connection.poll_read(cx))?;
            if read == 0 {
                return Poll::Ready(if self.decoder.may_close() {
                    self.reading = None;
                    Ok(None)
                } else {
                    Err(AnswerBroken::Closed)
                });
            }
        }
    }

    fn finish_if_whole(&mut self) {
        if self.decoder.is_end()
            && let Some(read) = self.reading.take()
            && read.is_reusable
            && read.connection.is_sent()
        {
            read.pool.put(read.origin, read.connection);
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = AnswerBroken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, AnswerBroken>>> {
        self.poll_bytes(cx).map(|read| {
            if read.is_err() {
                self.reading = None;
            }
            read.transpose().map(|read| read.map(Frame::data))
        })
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.decoder
            .left()
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
