//! A client's connection: what is read from it, what is written to it, and how long it is waited for.

mod answer;
mod body;
mod framing;
mod patience;
pub mod scan;

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

pub use self::answer::{Answer, GivenUp};
pub use self::body::RequestBody;
pub(super) use self::framing::Framing;
pub use self::framing::Length;
pub(super) use self::patience::Patience;
use self::patience::Waits;

/// What an HTTP/2 connection begins with. Source: RFC 9113, section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much of what nobody wants to read is dropped behind an answer, and for how long, so that its sender gets to see the
/// answer: a connection that is closed over unread bytes is reset, and what was written to it is lost.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(10);
/// The longest that nothing comes of it.
const LINGER_IDLE: Duration = Duration::from_secs(2);

/// A connection whose heads are looked at, which is not waited for too long, and not closed over what its client still sends.
pub(super) struct ClientStream<S> {
    stream: S,
    framing: Arc<Framing>,
    waits: Waits,
    lingering: Option<Lingering>,
}

/// A closed connection whose sender has not stopped.
struct Lingering {
    left: usize,
    until: Instant,
    over: Pin<Box<Sleep>>,
}

impl<S> ClientStream<S> {
    /// Heads beyond `longest_head` bytes are somebody else's to refuse.
    pub(super) fn new(stream: S, patience: Patience, longest_head: usize) -> Self {
        Self {
            stream,
            framing: Arc::new(Framing::new(longest_head)),
            waits: Waits::new(patience),
            lingering: None,
        }
    }

    /// What its heads say.
    pub(super) fn framing(&self) -> Arc<Framing> {
        Arc::clone(&self.framing)
    }
}

impl<S: AsyncRead + Unpin> ClientStream<S> {
    /// Drops what still arrives.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            left: LINGER_BYTES,
            until: Instant::now() + LINGER_TIME,
            over: Box::pin(sleep(LINGER_IDLE)),
        });
        let mut dropped = [0; 4096];
        loop {
            if lingering.left == 0 || lingering.over.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::new(&mut dropped);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(());
            }
            lingering.left = lingering.left.saturating_sub(buf.filled().len());
            let idle = Instant::now() + LINGER_IDLE;
            lingering.over.as_mut().reset(idle.min(lingering.until));
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        let arrived = &buf.filled()[before..];
        if !arrived.is_empty() {
            self.framing.arrived(arrived);
        }
        self.waits.read(polled, arrived, cx)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.waits.wrote(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.waits.wrote(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.waits.wrote(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.framing.expects_more() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
