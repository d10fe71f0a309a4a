//! The body of a stream.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aws_smithy_types::body::SdkBody;
use bytes::BytesMut;
use futures::Stream;
use http_body::Body as _;
use uuid::Uuid;

use super::stream::{Events, StreamError};
use crate::adapter::bedrock::{for_log, text_of, to_anthropic};
use crate::adapter::{BrokenReply, Chunk};
use crate::stream::FrameReader;

/// The largest frame. The service's own are a few kilobytes.
const MAX_FRAME: usize = 16 * 1024 * 1024;

/// Converse's stream as chunks of the Messages API's, as they come.
pub(super) struct ConverseBody {
    body: SdkBody,
    frames: FrameReader,
    events: Events,
    out: BytesMut,
    failed: Option<BrokenReply>,
    is_over: bool,
    request_id: Uuid,
}

impl ConverseBody {
    pub(super) fn new(body: SdkBody, events: Events, request_id: Uuid) -> Self {
        Self {
            body,
            frames: FrameReader::new(MAX_FRAME),
            events,
            out: BytesMut::new(),
            failed: None,
            is_over: false,
            request_id,
        }
    }

    /// Translates the frames that are there.
    fn translate(&mut self) {
        while self.failed.is_none() {
            match self.frames.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    if let Err(error) = self.events.on_frame(frame, &mut self.out) {
                        self.failed = Some(broken(error, self.request_id));
                    }
                }
                Err(error) => self.failed = Some(BrokenReply::Connection(error.into())),
            }
        }
    }

    /// What has been translated, in pieces that are all guess or none.
    fn take_chunk(&mut self) -> Option<Chunk> {
        if let Some(bytes) = self.events.take_start() {
            return Some(Chunk {
                is_guess: true,
                ..bytes.into()
            });
        }
        let hidden = self.events.take_hidden();
        (hidden > 0 || !self.out.is_empty()).then(|| Chunk {
            hidden,
            // Of what it holds, only the message's end tells usage.
            is_guess: self.events.ended_uncounted(),
            ..self.out.split().freeze().into()
        })
    }
}

impl Stream for ConverseBody {
    type Item = Result<Chunk, BrokenReply>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            self.translate();
            if let Some(chunk) = self.take_chunk() {
                return Poll::Ready(Some(Ok(chunk)));
            }
            if let Some(broken) = self.failed.take() {
                self.is_over = true;
                // Nothing is left to say of a message whose usage alone is missing.
                let end = self.events.finish();
                return Poll::Ready(Some(end.map_or(Err(broken), |bytes| Ok(guess(bytes)))));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.frames.push(bytes);
                    }
                }
                Some(Err(error)) => self.failed = Some(BrokenReply::Connection(error)),
                None => {
                    self.is_over = true;
                    return Poll::Ready(self.events.finish().map(|bytes| Ok(guess(bytes))));
                }
            }
        }
    }
}

fn guess(bytes: bytes::Bytes) -> Chunk {
    Chunk {
        is_guess: true,
        ..bytes.into()
    }
}

fn broken(error: StreamError, request_id: Uuid) -> BrokenReply {
    match error {
        StreamError::Reported { code, message } => {
            tracing::warn!(%request_id, code, message = &*for_log(&message), "bedrock ended its stream with an error");
            BrokenReply::Reported(to_anthropic(500, Some(&code), Some(&message)).1)
        }
        malformed @ StreamError::Malformed(_) => BrokenReply::Connection(text_of(malformed)),
    }
}
