//! The body of a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_smithy_types::body::SdkBody;
use futures::Stream;
use http_body::Body as _;
use uuid::Uuid;

use super::events::{StreamError, of_frame};
use crate::adapter::bedrock::{for_log, text_of, to_anthropic};
use crate::adapter::{BrokenReply, Chunk};
use crate::stream::FrameReader;

/// The largest frame. The service's own are a few kilobytes; the SDK's reader would collect the four gigabytes that a frame can
/// say it has.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// `InvokeModel`'s stream as chunks of the Messages API's, as they come, until its end or the first error.
pub(super) struct InvokeBody {
    /// Nothing once it is over.
    body: Option<SdkBody>,
    frames: FrameReader,
    request_id: Uuid,
}

impl InvokeBody {
    pub(super) fn new(body: SdkBody, request_id: Uuid) -> Self {
        Self {
            body: Some(body),
            frames: FrameReader::new(MAX_FRAME),
            request_id,
        }
    }

    /// The next event of what has come.
    fn next_event(&mut self) -> Option<Result<Chunk, BrokenReply>> {
        loop {
            let event = match self.frames.next_frame() {
                Ok(None) => return None,
                Ok(Some(frame)) => of_frame(&frame),
                Err(error) => return Some(Err(BrokenReply::Connection(error.into()))),
            };
            match event {
                Ok(None) => {}
                Ok(Some(chunk)) => return Some(Ok(chunk)),
                Err(error) => return Some(Err(broken(error, self.request_id))),
            }
        }
    }
}

impl Stream for InvokeBody {
    type Item = Result<Chunk, BrokenReply>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if self.body.is_none() {
                return Poll::Ready(None);
            }
            if let Some(event) = self.next_event() {
                if event.is_err() {
                    self.body = None;
                }
                return Poll::Ready(Some(event));
            }
            let Some(body) = &mut self.body else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.frames.push(bytes);
                    }
                }
                Some(Err(error)) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(BrokenReply::Connection(error))));
                }
                None => self.body = None,
            }
        }
    }
}

fn broken(error: StreamError, request_id: Uuid) -> BrokenReply {
    match error {
        StreamError::Reported { code, message } => {
            tracing::warn!(%request_id, code, message = &*for_log(&message), "bedrock ended its stream with an error");
            BrokenReply::Reported(to_anthropic(500, Some(&code), Some(&message)).1)
        }
        malformed => BrokenReply::Connection(text_of(malformed)),
    }
}
