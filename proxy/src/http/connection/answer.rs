//! The body of a response as a connection sends it: cut off when the proxy ends before it does, and given up when its client
//! takes nothing of it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::AbortOnDropHandle;

use crate::routing::RelayBody;

/// What is given to HTTP/2 at once, which keeps all of it until the client's window is open.
const PIECE: usize = 64 * 1024;

/// A client took nothing of an answer for too long.
#[derive(Debug, thiserror::Error)]
#[error("the client takes nothing")]
pub struct GivenUp;

/// A body on its way to the client.
pub struct Answer(Kind);

enum Kind {
    /// A socket that takes nothing is given up by whoever writes to it.
    Plain(Cuttable),
    /// A stream of HTTP/2 waits for its window, and nobody at the socket.
    Watched(Watched<Cuttable>),
}

impl Answer {
    /// Over HTTP/1.1.
    pub(in crate::http) fn http1(body: RelayBody, cut: &CancellationToken) -> Self {
        Self(Kind::Plain(Cuttable::new(body, cut)))
    }

    /// Over HTTP/2, given up when nothing of it is taken for `patience`.
    pub(in crate::http) fn http2(
        body: RelayBody,
        cut: &CancellationToken,
        patience: Duration,
    ) -> Self {
        let body = Cuttable::new(body, cut);
        // What is given at once is not waited with.
        let exact = body.size_hint().exact();
        Self(if exact.is_some_and(|length| length <= PIECE as u64) {
            Kind::Plain(body)
        } else {
            Kind::Watched(Watched::new(body, patience))
        })
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = GivenUp;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, GivenUp>>> {
        match &mut self.0 {
            Kind::Plain(body) => body
                .poll_bytes(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Watched(body) => body
                .poll_bytes(cx)
                .map(|bytes| bytes.map(|bytes| bytes.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Plain(body) => body.is_end_stream(),
            Kind::Watched(body) => body.is_end_stream,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Plain(body) => body.size_hint(),
            Kind::Watched(body) => body.size_hint,
        }
    }
}

/// Something that gives bytes.
trait Source: Send + 'static {
    fn is_end_stream(&self) -> bool;
    fn size_hint(&self) -> SizeHint;
    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>>;
}

/// A body that ends with its own words when what is left is cut off.
struct Cuttable {
    body: RelayBody,
    /// Until it is cut.
    cut: Option<Cut>,
}

struct Cut {
    token: CancellationToken,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Cuttable {
    fn new(body: RelayBody, cut: &CancellationToken) -> Self {
        let cut = (!body.is_whole()).then(|| Cut {
            token: cut.clone(),
            wait: Box::pin(cut.clone().cancelled_owned()),
        });
        Self { body, cut }
    }
}

impl Source for Cuttable {
    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            // Looked at each time, for an upstream that always has more is never waited for.
            if let Some(cut) = &self.cut
                && cut.token.is_cancelled()
            {
                self.cut = None;
                self.body.interrupt();
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(bytes));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => match &mut self.cut {
                    Some(cut) => ready!(cut.wait.as_mut().poll(cx)),
                    None => return Poll::Pending,
                },
            }
        }
    }
}

/// A body that is dropped when nobody has asked for more of it for too long. Of the stream that it was on remains what HTTP/2
/// keeps of a stream.
struct Watched<B> {
    shared: Arc<Mutex<Shared<B>>>,
    is_end_stream: bool,
    size_hint: SizeHint,
    _watch: AbortOnDropHandle<()>,
}

struct Shared<B> {
    body: Option<B>,
    /// What came and was not asked for.
    rest: Bytes,
    /// Since when nothing was asked for; `None` while the body is what is waited for.
    idle_since: Option<Instant>,
}

impl<B: Source> Watched<B> {
    fn new(body: B, patience: Duration) -> Self {
        let (is_end_stream, size_hint) = (body.is_end_stream(), body.size_hint());
        let shared = Arc::new(Mutex::new(Shared {
            body: Some(body),
            rest: Bytes::new(),
            idle_since: Some(Instant::now()),
        }));
        let watch = tokio::spawn(watch(Arc::clone(&shared), patience));
        Self {
            shared,
            is_end_stream,
            size_hint,
            _watch: AbortOnDropHandle::new(watch),
        }
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, GivenUp>>> {
        let mut shared = self.shared.lock();
        let shared = &mut *shared;
        let Some(body) = &mut shared.body else {
            return Poll::Ready(Some(Err(GivenUp)));
        };
        if shared.rest.is_empty() {
            shared.idle_since = None;
            match ready!(body.poll_bytes(cx)) {
                Some(bytes) => shared.rest = bytes,
                None => return Poll::Ready(None),
            }
        }
        shared.idle_since = Some(Instant::now());
        let piece = if shared.rest.len() <= PIECE {
            std::mem::take(&mut shared.rest)
        } else {
            // Copied, for any part of it would keep the whole.
            Bytes::copy_from_slice(&shared.rest.split_to(PIECE))
        };
        self.is_end_stream = shared.rest.is_empty() && body.is_end_stream();
        Poll::Ready(Some(Ok(piece)))
    }
}

async fn watch<B>(shared: Arc<Mutex<Shared<B>>>, patience: Duration) {
    let mut until = Instant::now() + patience;
    loop {
        sleep_until(until).await;
        let mut shared = shared.lock();
        let now = Instant::now();
        until = shared.idle_since.map_or(now, |since| since) + patience;
        if until <= now {
            let given_up = (shared.body.take(), std::mem::take(&mut shared.rest));
            drop(shared);
            drop(given_up);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Weak;

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(5);

    /// Gives these many bytes, then waits for ever.
    struct Endless {
        bytes: usize,
        _alive: Arc<()>,
    }

    impl Source for Endless {
        fn is_end_stream(&self) -> bool {
            false
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }

        fn poll_bytes(&mut self, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
            match std::mem::take(&mut self.bytes) {
                0 => Poll::Pending,
                bytes => Poll::Ready(Some(Bytes::from(vec![b'x'; bytes]))),
            }
        }
    }

    fn watched(bytes: usize) -> (Watched<Endless>, Weak<()>) {
        let alive = Arc::new(());
        let weak = Arc::downgrade(&alive);
        let body = Endless {
            bytes,
            _alive: alive,
        };
        (Watched::new(body, PATIENCE), weak)
    }

    async fn next(body: &mut Watched<Endless>) -> Option<Result<usize, GivenUp>> {
        let bytes = poll_fn(|cx| body.poll_bytes(cx)).await;
        bytes.map(|bytes| bytes.map(|bytes| bytes.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_asks_for_is_dropped_after_a_while_and_not_before() {
        let (mut body, alive) = watched(3 * PIECE);
        for _ in 0..2 {
            assert!(matches!(next(&mut body).await, Some(Ok(PIECE))));
            tokio::time::sleep(PATIENCE * 9 / 10).await;
            assert!(alive.upgrade().is_some());
        }
        tokio::time::sleep(PATIENCE / 5).await;
        assert!(alive.upgrade().is_none());
        assert!(matches!(next(&mut body).await, Some(Err(GivenUp))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_is_waited_for() {
        let (mut body, alive) = watched(1);
        assert!(matches!(next(&mut body).await, Some(Ok(1))));
        let waiting = tokio::time::timeout(PATIENCE * 3, next(&mut body));
        assert!(waiting.await.is_err());
        assert!(alive.upgrade().is_some());
    }
}
