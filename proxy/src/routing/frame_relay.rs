//! A stream in Bedrock's format on its way to the client.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::StatusCode;
use http_body::Body as _;
use spillway_core::domain::usage::UsageStatus;

use super::end::{End, INTERRUPTED};
use super::ledger::{Count, Ledger};
use super::pace::{Clock, Pace};
use super::relay::status_of;
use crate::adapter::BrokenReply;
use crate::adapter::bedrock::for_log;
use crate::adapter::bedrock_relay::{Fault, Operation, failure_of, on_frame, shown_instead};
use crate::adapter::http1::AnswerBody;
use crate::call::Closing;
use crate::routing::class;
use crate::stream::FrameReader;

/// The largest frame: 16 MB of payload and 128 KB of headers.
/// Source: <https://smithy.io/2.0/aws/amazon-eventstream.html>, its section on limits.
const MAX_FRAME: usize = 16 * 1024 * 1024 + 128 * 1024 + 16;

/// Relays whole frames as they come, reading usage beside them. Where the answer is not complete its last frame is an exception;
/// its last frames leave when the usage is durable.
pub(super) struct FrameRelay {
    source: Option<AnswerBody>,
    reader: FrameReader,
    operation: Operation,
    /// Whether the model's own stream is that of the Messages API.
    is_claude: bool,
    has_frames: bool,
    out: VecDeque<Bytes>,
    ledger: Box<Ledger>,
    closing: Option<Closing>,
    clock: Clock,
}

impl FrameRelay {
    pub(super) fn new(
        source: AnswerBody,
        operation: Operation,
        is_claude: bool,
        ledger: Box<Ledger>,
        pace: Pace,
    ) -> Self {
        Self {
            source: Some(source),
            reader: FrameReader::new(MAX_FRAME),
            operation,
            is_claude,
            has_frames: false,
            out: VecDeque::new(),
            ledger,
            closing: None,
            clock: Clock::new(pace),
        }
    }

    /// The next bytes for the client; `None` when all is said and the usage is durable.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(closing) = &mut self.closing {
                ready!(Pin::new(closing).poll(cx));
                self.closing = None;
            }
            if let Some(bytes) = self.out.pop_front() {
                return Poll::Ready(Some(bytes));
            }
            let Some(source) = &mut self.source else {
                return Poll::Ready(None);
            };
            match Pin::new(source).poll_frame(cx) {
                Poll::Pending => {
                    ready!(self.clock.poll_silence(cx));
                    self.end(&End::Silent);
                }
                Poll::Ready(None) => self.end(&End::Finished),
                Poll::Ready(Some(Err(error))) => {
                    self.end(&End::Broken(BrokenReply::Connection(error.into())));
                }
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(chunk) = frame.into_data() {
                        self.take_in(chunk);
                    }
                }
            }
        }
    }

    fn take_in(&mut self, chunk: Bytes) {
        self.clock.received(true);
        self.reader.push(chunk);
        let bad = loop {
            let shown = match self.reader.next_frame() {
                Ok(Some(frame)) => {
                    on_frame(&mut self.ledger.tap, self.operation, &frame);
                    self.has_frames = true;
                    shown_instead(&frame)
                }
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            self.out
                .push_back(shown.unwrap_or_else(|| self.reader.current().clone()));
        };
        self.settle();
        if let Some(error) = bad {
            self.end(&End::Broken(BrokenReply::Connection(error.into())));
        }
    }

    /// Closes the call as soon as its outcome is known.
    fn settle(&mut self) {
        let tap = &self.ledger.tap;
        let (has_content, is_complete) = (tap.has_content(), tap.is_complete());
        if has_content {
            self.ledger.show_content();
        }
        if self.ledger.is_closed() {
            return;
        }
        let tap = &self.ledger.tap;
        let failure = tap.failure().map(|failure| {
            tracing::warn!(
                request_id = %self.ledger.request_id,
                code = failure.kind,
                message = &*for_log(&failure.message),
                "bedrock ended its stream with an error"
            );
            failure_of(StatusCode::INTERNAL_SERVER_ERROR, Some(&failure.kind))
        });
        if let Some((status, words)) = failure {
            let count = if has_content {
                Count::Estimated
            } else {
                Count::Reported
            };
            let status = status_of(class::of_status(status.as_u16(), &words));
            self.closing = Some(self.ledger.close(status, count));
        } else if is_complete {
            self.closing = Some(self.ledger.close(UsageStatus::Ok, Count::Estimated));
        }
    }

    /// The proxy ends before the stream does.
    pub(super) fn interrupt(&mut self) {
        self.source = None;
        if !self.ledger.is_closed() {
            let fault = Fault::new(StatusCode::SERVICE_UNAVAILABLE, INTERRUPTED);
            self.out.push_back(fault.frame(self.operation));
            let closing = self
                .ledger
                .close(UsageStatus::Interrupted, Count::Estimated);
            self.closing = Some(closing);
        }
    }

    /// Bedrock has ended the stream, or was given up.
    fn end(&mut self, end: &End) {
        self.source = None;
        if self.ledger.is_closed() {
            return;
        }
        if matches!(end, End::Finished) && !self.is_cut_off() {
            self.closing = Some(self.ledger.close(UsageStatus::Ok, Count::Estimated));
            return;
        }
        tracing::warn!(request_id = %self.ledger.request_id, why = end.why(), "a stream failed");
        let status = match end {
            End::Silent => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        self.out
            .push_back(Fault::new(status, end.error().message).frame(self.operation));
        let status = status_of(end.failure());
        self.closing = Some(self.ledger.close(status, Count::Estimated));
    }

    /// Whether a stream that ends here lacks its end. What other models' own streams end with nobody knows, and Claude had one
    /// of that kind before the Messages API.
    fn is_cut_off(&self) -> bool {
        self.reader.is_within_frame()
            || self.operation.is_converse()
            || self.ledger.tap.has_started()
            || self.is_claude && !self.has_frames
    }
}
