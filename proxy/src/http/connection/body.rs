//! The body of a request.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::Framing;

/// A request's body, which tells its connection whether it was read to its end.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    /// Whom to tell; nobody where requests have frames, and once it is told.
    framing: Option<Arc<Framing>>,
}

impl RequestBody {
    pub(in crate::http) fn new(incoming: Incoming, framing: Option<Arc<Framing>>) -> Self {
        let mut body = Self { incoming, framing };
        body.tell();
        body
    }

    fn tell(&mut self) {
        if self.incoming.is_end_stream()
            && let Some(framing) = self.framing.take()
        {
            framing.ended();
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        match &polled {
            Poll::Ready(None) => {
                if let Some(framing) = self.framing.take() {
                    framing.ended();
                }
            }
            Poll::Ready(Some(Ok(_))) => self.tell(),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let Some(framing) = self.framing.take() {
            framing.left_unread();
        }
    }
}
