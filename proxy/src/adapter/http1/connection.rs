//! A connection: one request at a time, and what has come of its answer.

use std::future::{Future as _, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::Method;
use http::request::Parts;
use hyper_rustls::MaybeHttpsStream;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;
use tokio_util::io::poll_read_buf;

use super::SendError;
use super::head::{Head, read_head, write_head};

/// What is read at once: a piece of a stream is smaller. Doubled while reads fill it.
const MIN_READ: usize = 2 * 1024;
const MAX_READ: usize = 64 * 1024;

/// A connection to an upstream.
pub(super) struct Connection {
    stream: TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>,
    method: Method,
    head: Vec<u8>,
    body: Bytes,
    /// How much of head and body is written.
    written: usize,
    is_sent: bool,
    /// What was read and not taken yet.
    pub(super) input: BytesMut,
    /// How much of `input` holds no end of a head.
    searched: usize,
    read_size: usize,
}

impl Connection {
    pub(super) fn new(stream: MaybeHttpsStream<TokioIo<TcpStream>>) -> Self {
        Self {
            stream: TokioIo::new(stream),
            method: Method::POST,
            head: Vec::new(),
            body: Bytes::new(),
            written: 0,
            is_sent: true,
            input: BytesMut::new(),
            searched: 0,
            read_size: MIN_READ,
        }
    }

    /// Begins a request.
    pub(super) fn ask(&mut self, head: &Parts, body: Bytes) {
        self.method.clone_from(&head.method);
        self.head.clear();
        write_head(&mut self.head, head, body.len());
        self.body = body;
        (self.written, self.is_sent, self.searched) = (0, false, 0);
    }

    /// Whether the connection failed at the first write, so that the upstream cannot have received the whole request.
    pub(super) fn took_nothing(&self) -> bool {
        !self.is_sent && self.written == 0
    }

    /// Whether the request is written whole.
    pub(super) fn is_sent(&self) -> bool {
        self.is_sent
    }

    /// Writes the request and reads the head of its answer, which may come before all is written.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, SendError>> {
        let unwritten = match self.poll_write(cx) {
            // Upstreams that refuse a request close while it is being written: their answer may be there.
            Poll::Ready(Err(error)) if self.written > 0 => Some(error),
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
            _ => None,
        };
        loop {
            if let Some(head) = read_head(&mut self.input, &mut self.searched, &self.method)? {
                return Poll::Ready(Ok(head));
            }
            match (self.poll_read(cx), &unwritten) {
                (Poll::Pending, None) => return Poll::Pending,
                (Poll::Ready(Ok(0)), None) => return Poll::Ready(Err(SendError::Closed)),
                (Poll::Ready(Ok(1..)), _) => {}
                (Poll::Ready(Err(error)), None) => return Poll::Ready(Err(error.into())),
                (_, Some(error)) => return Poll::Ready(Err(io::Error::from(error.kind()).into())),
            }
        }
    }

    /// Writes what is left of the request.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_sent {
            return Poll::Ready(Ok(()));
        }
        let mut stream = Pin::new(&mut self.stream);
        while self.written < self.head.len() + self.body.len() {
            let head = &self.head[self.written.min(self.head.len())..];
            let body = &self.body[self.written.saturating_sub(self.head.len())..];
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let parts = if head.is_empty() { &parts[1..] } else { &parts };
            match ready!(stream.as_mut().poll_write_vectored(cx, parts))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        ready!(stream.poll_flush(cx))?;
        self.is_sent = true;
        // A stream may be open for long, and needs neither; nor has the credential to stay in memory.
        (self.head, self.body) = (Vec::new(), Bytes::new());
        Poll::Ready(Ok(()))
    }

    /// Reads more into `input`; 0 is the connection's end.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.input.capacity() - self.input.len() < MIN_READ / 4 {
            self.input.reserve(self.read_size);
        }
        let room = self.input.capacity() - self.input.len();
        let read = ready!(poll_read_buf(
            Pin::new(&mut self.stream),
            cx,
            &mut self.input
        ))?;
        if read == room {
            self.read_size = (self.read_size * 2).min(MAX_READ);
        } else if read < self.read_size / 4 {
            self.read_size = (self.read_size / 2).max(MIN_READ);
        }
        Poll::Ready(Ok(read))
    }

    /// Whether it waits for a request: nothing has come since the last answer, not even the connection's end.
    pub(super) fn is_quiet(&mut self) -> bool {
        // What it wakes from here on is not the task of the last request.
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0];
        // A task that has done much already would be told that nothing is there, without a look.
        let read = std::pin::pin!(unconstrained(poll_fn(|cx| {
            Pin::new(&mut self.stream).poll_read(cx, &mut ReadBuf::new(&mut byte))
        })));
        let is_pending = read.poll(&mut cx).is_pending();
        self.is_sent && self.input.is_empty() && is_pending
    }

    /// Holds no more memory than a connection needs that waits.
    pub(super) fn shrink(&mut self) {
        self.input = BytesMut::new();
    }
}
