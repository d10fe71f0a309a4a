//! Refuses HTTP/1.1 requests that say their length twice. A body framed by both Content-Length and Transfer-Encoding is how
//! requests are smuggled past proxies that read one of them; hyper drops the former before anybody can see it. So heads are
//! looked at on their way from the socket.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use memchr::memchr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How much of a head that was refused half-way is read and dropped, and for how long, so that its sender gets to see the answer:
/// a connection that is closed over unread bytes is reset, and what was written to it is lost.
const LINGER_BYTES: usize = 1024 * 1024;
const LINGER_TIME: Duration = Duration::from_secs(2);
/// What every HTTP/2 connection begins with. HTTP/2 has frames, and nothing to confuse.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\n";

/// What a connection's reader tells its service.
#[derive(Debug, Default)]
pub(super) struct Framing {
    /// The next bytes to arrive begin a head.
    at_head: AtomicBool,
    ambiguous: AtomicBool,
    http2: AtomicBool,
}

impl Framing {
    /// Whether the head that was just read frames its body twice.
    pub(super) fn take_ambiguous(&self) -> bool {
        self.ambiguous.swap(false, Ordering::Relaxed)
    }

    /// The request is answered: what comes next is another's head. One that was sent before its predecessor was answered is
    /// not looked at, and read by hyper's rule: Transfer-Encoding counts, and the connection ends with it.
    pub(super) fn answered(&self) {
        let is_http2 = self.http2.load(Ordering::Relaxed);
        self.at_head.store(!is_http2, Ordering::Relaxed);
    }
}

/// Looks for a head's end as hyper does: at an empty line, lines ending in LF or CRLF, after any empty ones before its first.
#[derive(Debug, Default)]
struct HeadScan {
    /// Where the line begins that has not ended.
    line: usize,
    begun: bool,
}

impl HeadScan {
    /// The length of the head that `bytes` begin with, which are those given before and more; `None` until its end has come.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(length) = memchr(b'\n', &bytes[self.line..]) {
            let line = &bytes[self.line..self.line + length];
            self.line += length + 1;
            let is_empty = matches!(line, b"" | b"\r");
            if is_empty && self.begun {
                return Some(self.line);
            }
            self.begun |= !is_empty;
        }
        None
    }
}

/// A connection whose heads are looked at. Copies only heads that arrive in pieces.
pub(super) struct Watched<S> {
    stream: S,
    framing: Arc<Framing>,
    /// What arrived of a head so far.
    pieces: Vec<u8>,
    scan: HeadScan,
    longest_head: usize,
    /// A head grew beyond the longest.
    overlong: bool,
    lingering: Option<Lingering>,
}

/// A closed connection whose sender has not stopped.
struct Lingering {
    left: usize,
    over: Pin<Box<Sleep>>,
}

impl<S> Watched<S> {
    /// Watches `stream`; heads beyond `longest_head` bytes are somebody else's to refuse.
    pub(super) fn new(stream: S, longest_head: usize) -> (Self, Arc<Framing>) {
        let framing = Arc::new(Framing {
            at_head: AtomicBool::new(true),
            ..Framing::default()
        });
        (
            Self {
                stream,
                framing: Arc::clone(&framing),
                pieces: Vec::new(),
                scan: HeadScan::default(),
                longest_head,
                overlong: false,
                lingering: None,
            },
            framing,
        )
    }

    fn look_at(&mut self, arrived: &[u8]) {
        if self.pieces.is_empty() {
            match self.scan.end(arrived) {
                Some(end) => self.judge(&arrived[..end]),
                None => self.pieces.extend_from_slice(arrived),
            }
        } else {
            self.pieces.extend_from_slice(arrived);
            if let Some(end) = self.scan.end(&self.pieces) {
                let head = std::mem::take(&mut self.pieces);
                self.judge(&head[..end]);
            }
        }
        if self.pieces.len() > self.longest_head {
            self.forget();
            self.overlong = true;
        }
    }

    fn judge(&mut self, head: &[u8]) {
        self.forget();
        let is_http2 = head == HTTP2_PREFACE;
        self.framing.http2.store(is_http2, Ordering::Relaxed);
        self.framing
            .ambiguous
            .store(!is_http2 && is_ambiguous(head), Ordering::Relaxed);
    }

    /// What comes next is no head.
    fn forget(&mut self) {
        self.pieces = Vec::new();
        self.scan = HeadScan::default();
        self.framing.at_head.store(false, Ordering::Relaxed);
    }
}

/// Whether a head has both headers.
fn is_ambiguous(head: &[u8]) -> bool {
    let (mut length, mut encoding) = (false, false);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        length |= name.eq_ignore_ascii_case(b"content-length");
        encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
    }
    length && encoding
}

impl<S: AsyncRead + Unpin> Watched<S> {
    /// Drops what still arrives.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let lingering = self.lingering.get_or_insert_with(|| Lingering {
            left: LINGER_BYTES,
            over: Box::pin(tokio::time::sleep(LINGER_TIME)),
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
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.framing.at_head.load(Ordering::Relaxed) && buf.filled().len() > before {
            self.look_at(&buf.filled()[before..]);
        }
        polled
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        if self.overlong || !self.pieces.is_empty() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    /// What is found when `sent` arrives in pieces of `size` bytes.
    async fn found(sent: &[u8], size: usize) -> bool {
        let pieces = sent.chunks(size).fold(Pieces::default(), Pieces::then);
        let (mut watched, framing) = Watched::new(pieces, 1024);
        let mut all = Vec::new();
        watched.read_to_end(&mut all).await.unwrap();
        assert_eq!(all, sent);
        framing.take_ambiguous()
    }

    /// A reader that gives one piece at each read.
    #[derive(Default)]
    struct Pieces(std::collections::VecDeque<Vec<u8>>);

    impl Pieces {
        fn then(mut self, piece: &[u8]) -> Self {
            self.0.push_back(piece.to_vec());
            self
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(mut piece) = self.0.pop_front() {
                let rest = piece.split_off(piece.len().min(buf.remaining()));
                buf.put_slice(&piece);
                if !rest.is_empty() {
                    self.0.push_front(rest);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    const BOTH: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    const ONE: &[u8] = b"POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 99\r\n\r\ntransfer-encoding: chunked\r\n\r\n";

    proptest! {
        #[test]
        fn both_are_found_however_the_head_arrives(size in 1usize..120) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert!(runtime.block_on(found(BOTH, size)));
            prop_assert!(!runtime.block_on(found(ONE, size)));
        }

        #[test]
        fn both_are_found_whatever_lines_end_in_and_come_before(
            empty in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n"]), 0..4),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n"]), 5),
            size in 1usize..120,
        ) {
            let lines = ["POST / HTTP/1.1", "host: x", "content-length: 5", "transfer-encoding: chunked", ""];
            let mut head = empty.concat();
            for (line, end) in lines.iter().zip(ends) {
                head.push_str(line);
                head.push_str(end);
            }
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            prop_assert!(runtime.block_on(found(head.as_bytes(), size)));
        }
    }

    #[tokio::test]
    async fn nothing_is_collected_of_http2() {
        let frames = [&b"\0\0\x04\x08"[..], BOTH].concat();
        let pieces = Pieces::default().then(HTTP2_PREFACE).then(&frames);
        let (mut watched, framing) = Watched::new(pieces, 1024);
        let mut buffer = [0; 512];
        let _ = watched.read(&mut buffer).await.unwrap();
        framing.answered();
        let _ = watched.read(&mut buffer).await.unwrap();
        assert!(watched.pieces.is_empty() && !framing.take_ambiguous());
    }

    #[tokio::test]
    async fn each_head_of_a_connection_is_looked_at() {
        let (mut watched, framing) = Watched::new(Pieces::default().then(ONE).then(BOTH), 1024);
        let mut buffer = [0; 512];
        let _ = watched.read(&mut buffer).await.unwrap();
        assert!(!framing.take_ambiguous());
        framing.answered();
        let _ = watched.read(&mut buffer).await.unwrap();
        assert!(framing.take_ambiguous());
    }

    #[tokio::test]
    async fn an_endless_head_is_not_collected() {
        let (mut watched, _) = Watched::new(Pieces::default().then(&[b'x'; 4096]), 1024);
        let mut all = Vec::new();
        watched.read_to_end(&mut all).await.unwrap();
        assert!(watched.pieces.is_empty());
    }
}
