//! The body of a response.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::frame_relay::FrameRelay;
use super::relay::Relay;

/// A response's body: whole, or relayed as it comes. Dropping it cancels the request upstream and closes the call.
pub struct RelayBody(Kind);

enum Kind {
    Whole(Bytes),
    Stream(Box<Relay>),
    Frames(Box<FrameRelay>),
}

impl RelayBody {
    /// A body that is already there.
    pub fn whole(bytes: Bytes) -> Self {
        Self(Kind::Whole(bytes))
    }

    /// Whether it is already there.
    pub(crate) fn is_whole(&self) -> bool {
        matches!(self.0, Kind::Whole(_))
    }

    /// Ends what is still to come with an error: the proxy ends before it.
    pub(crate) fn interrupt(&mut self) {
        match &mut self.0 {
            Kind::Whole(_) => {}
            Kind::Stream(relay) => relay.interrupt(),
            Kind::Frames(relay) => relay.interrupt(),
        }
    }

    pub(super) fn stream(relay: Relay) -> Self {
        Self(Kind::Stream(Box::new(relay)))
    }

    pub(super) fn frames(relay: FrameRelay) -> Self {
        Self(Kind::Frames(Box::new(relay)))
    }
}

impl Body for RelayBody {
    type Data = Bytes;
    /// A stream that fails ends with an `error` event or an exception, so the body as such never does.
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.0 {
            Kind::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Kind::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Kind::Stream(relay) => relay
                .poll_bytes(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Kind::Frames(relay) => relay
                .poll_bytes(cx)
                .map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Kind::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => {
                SizeHint::with_exact(u64::try_from(bytes.len()).unwrap_or(u64::MAX))
            }
            Kind::Stream(_) | Kind::Frames(_) => SizeHint::default(),
        }
    }
}
