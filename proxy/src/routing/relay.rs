//! A stream on its way from an upstream to the client.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use spillway_core::domain::usage::{FallbackReason, UsageStatus};
use tokio::time::{Instant, Sleep};

use super::class::{self, Failure};
use super::ledger::{Count, Ledger};
use super::permit::Permit;
use crate::adapter::{BrokenReply, ChunkStream, ErrorBody};
use crate::call::Closing;
use crate::stream::{PING, SseReader, error_event};

/// The largest event that is relayed. Results of server tools come as one event each.
const MAX_EVENT: usize = 16 * 1024 * 1024;

/// Relays whole events as they come, reading usage beside them. Whatever happens to the upstream, the client gets whole events
/// and, where the answer is not complete, an `error` event; its last events leave when the usage is durable.
pub(super) struct Relay {
    source: Option<ChunkStream>,
    reader: SseReader,
    out: VecDeque<Bytes>,
    received: usize,
    pub(super) ledger: Ledger,
    /// Set while asking the Plan: what the stream tells about it is not settled yet.
    pub(super) permit: Option<Permit>,
    closing: Option<Closing>,
    clock: Clock,
}

/// How long a stream may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When the first byte is due.
    pub(super) first_byte: Instant,
    /// The longest between two events that are no pings.
    pub(super) idle: Duration,
    /// After how much silence the client gets a ping; `None` if the upstream sends them.
    pub(super) ping: Option<Duration>,
}

struct Clock {
    pace: Pace,
    /// When there must have been progress.
    due: Instant,
    /// When the client was last sent anything.
    sent: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Clock {
    fn next(&self) -> Instant {
        self.pace.ping.map_or(self.due, |silence| self.due.min(self.sent + silence))
    }
}

/// What has come of a stream.
pub(super) enum Step {
    /// So many bytes more were received.
    More(usize),
    /// It is over.
    End(End),
}

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// The upstream ended it.
    Finished,
    /// It broke off.
    Broken(BrokenReply),
    /// An event was too large.
    TooLarge,
    /// Nothing came in time.
    Silent,
}

impl End {
    /// What the client is told when the answer is not complete.
    pub(super) fn error(&self) -> ErrorBody {
        match self {
            Self::Broken(BrokenReply::Reported(error)) => error.clone(),
            Self::Finished | Self::Broken(BrokenReply::Connection(_)) => ErrorBody::new("api_error", "the upstream's answer broke off"),
            Self::TooLarge => ErrorBody::new("api_error", "the upstream sent an event that is too large"),
            Self::Silent => ErrorBody::new("timeout_error", "the upstream stopped answering"),
        }
    }

    /// What kind of failure that is before any content.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Broken(BrokenReply::Reported(error)) => class::of_event(&error.kind, &error.message),
            Self::Silent => Failure::Upstream(FallbackReason::Timeout),
            _ => Failure::Upstream(FallbackReason::StreamBroken),
        }
    }
}

impl Relay {
    pub(super) fn new(source: ChunkStream, ledger: Ledger, permit: Option<Permit>, pace: Pace) -> Self {
        let sent = Instant::now();
        let sleep = Box::pin(tokio::time::sleep_until(pace.first_byte));
        let clock = Clock { pace, due: pace.first_byte, sent, sleep };
        let reader = SseReader::new(MAX_EVENT);
        Self { source: Some(source), reader, out: VecDeque::new(), received: 0, ledger, permit, closing: None, clock }
    }

    /// Takes in the next chunk, or the end.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Some(source) = &mut self.source else { return Poll::Ready(Step::End(End::Finished)) };
        let chunk = match source.as_mut().poll_next(cx) {
            Poll::Pending => return self.poll_clock(cx),
            Poll::Ready(None) => return Poll::Ready(Step::End(End::Finished)),
            Poll::Ready(Some(Err(broken))) => return Poll::Ready(Step::End(End::Broken(broken))),
            Poll::Ready(Some(Ok(chunk))) => chunk,
        };
        let tap = &mut self.ledger.tap;
        if let Some(usage) = &chunk.usage {
            tap.report(usage);
        }
        let length = chunk.bytes.len();
        let fits = self.reader.push(chunk.bytes, &mut self.out, |event| tap.on_event(event));
        if tap.take_progress() || self.received == 0 {
            self.clock.due = Instant::now() + self.clock.pace.idle;
        }
        self.received += length;
        Poll::Ready(match fits {
            Ok(()) => Step::More(length),
            Err(_) => Step::End(End::TooLarge),
        })
    }

    /// Waits for the next deadline, which moves while nobody looks: the timer is set anew only when it has run out.
    fn poll_clock(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        loop {
            ready!(self.clock.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.clock.due {
                return Poll::Ready(Step::End(End::Silent));
            }
            if self.clock.pace.ping.is_some_and(|silence| now >= self.clock.sent + silence) {
                self.clock.sent = now;
                self.out.push_back(PING);
                return Poll::Ready(Step::More(0));
            }
            let next = self.clock.next();
            self.clock.sleep.as_mut().reset(next);
        }
    }

    /// The next bytes for the client; `None` when all is said and the usage is durable.
    pub(super) fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            self.settle();
            if let Some(closing) = &mut self.closing {
                ready!(Pin::new(closing).poll(cx));
                self.closing = None;
            }
            if let Some(bytes) = self.out.pop_front() {
                self.clock.sent = Instant::now();
                return Poll::Ready(Some(bytes));
            }
            if self.source.is_none() {
                return Poll::Ready(None);
            }
            if let Step::End(end) = ready!(self.poll_step(cx)) {
                self.end(&end);
            }
        }
    }

    /// Draws the conclusions from what has been seen: for the circuit at the first content or error, for the usage at the end.
    fn settle(&mut self) {
        let tap = &self.ledger.tap;
        let failure = tap.failure().map(|failure| class::of_event(&failure.kind, &failure.message));
        if self.permit.is_some() && (tap.has_content() || failure.is_some())
            && let Some(mut permit) = self.permit.take()
        {
            match failure {
                Some(failure) if !tap.has_content() => permit.fail(failure, &HeaderMap::new()),
                _ => permit.succeed(),
            }
        }
        let (has_content, is_complete) = (tap.has_content(), tap.is_complete());
        if has_content {
            self.ledger.show_content();
        }
        if self.ledger.is_closed() {
            return;
        }
        if let Some(failure) = failure {
            self.closing = Some(self.ledger.close(status_of(failure), Count::Estimated));
        } else if is_complete {
            self.closing = Some(self.ledger.close(UsageStatus::Ok, Count::Estimated));
        }
    }

    /// The upstream has ended the stream, or was given up.
    fn end(&mut self, end: &End) {
        self.source = None;
        let rest = self.reader.rest();
        if self.ledger.is_closed() {
            // Behind the last event only line ends are worth forwarding.
            if !rest.is_empty() && rest.iter().all(|byte| matches!(byte, b'\r' | b'\n')) {
                self.out.push_back(rest);
            }
            return;
        }
        tracing::warn!(end = ?end, "a stream ended before its answer was complete");
        self.out.push_back(error_event(&end.error()));
        if let Some(mut permit) = self.permit.take() {
            permit.fail(end.failure(), &HeaderMap::new());
        }
        self.closing = Some(self.ledger.close(status_of(end.failure()), Count::Estimated));
    }
}

/// The usage status of a call that failed so.
pub(super) fn status_of(failure: Failure) -> UsageStatus {
    if failure == Failure::Client { UsageStatus::ClientError } else { UsageStatus::UpstreamError }
}
