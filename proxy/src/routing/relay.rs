//! A stream on its way from an upstream to the client.

use std::collections::VecDeque;
use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use spillway_core::domain::usage::UsageStatus;

use super::class::{self, Failure};
use super::end::{End, INTERRUPTED};
use super::ledger::{Count, Ledger};
use super::pace::{Clock, Pace, Silence};
use super::permit::Permit;
use crate::adapter::{ChunkStream, ErrorBody};
use crate::call::Closing;
use crate::stream::{PING, SseReader, error_event};

/// The largest event that is relayed. Results of server tools come as one event each.
pub(super) const MAX_EVENT: usize = 16 * 1024 * 1024;

/// Relays whole events as they come, reading usage beside them. Whatever happens to the upstream, the client gets whole events
/// and, where the answer is not complete, an `error` event; its last events leave when the usage is durable.
pub(super) struct Relay {
    source: Option<ChunkStream>,
    reader: SseReader,
    out: VecDeque<Bytes>,
    pub(super) ledger: Box<Ledger>,
    /// Set while asking the Plan: what the stream tells about it is not settled yet.
    pub(super) permit: Option<Permit>,
    closing: Option<Closing>,
    clock: Clock,
}

/// What has come of a stream.
pub(super) enum Step {
    /// So many bytes more were received.
    More(usize),
    /// It is over.
    End(End),
}

impl Relay {
    pub(super) fn new(
        source: ChunkStream,
        ledger: Box<Ledger>,
        permit: Option<Permit>,
        pace: Pace,
    ) -> Self {
        Self {
            source: Some(source),
            reader: SseReader::new(MAX_EVENT),
            out: VecDeque::new(),
            ledger,
            permit,
            closing: None,
            clock: Clock::new(pace),
        }
    }

    /// Takes in the next chunk, or the end.
    pub(super) fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        let Some(source) = &mut self.source else {
            return Poll::Ready(Step::End(End::Finished));
        };
        let chunk = match source.as_mut().poll_next(cx) {
            Poll::Pending => return self.poll_silence(cx),
            Poll::Ready(None) => return Poll::Ready(Step::End(End::Finished)),
            Poll::Ready(Some(Err(broken))) => return Poll::Ready(Step::End(End::Broken(broken))),
            Poll::Ready(Some(Ok(chunk))) => chunk,
        };
        let tap = &mut self.ledger.tap;
        if let Some(usage) = &chunk.usage {
            tap.report(usage);
        }
        tap.hidden(chunk.hidden);
        tap.pass_over_usage(chunk.is_guess);
        let length = chunk.bytes.len();
        let fits = self
            .reader
            .push(chunk.bytes, &mut self.out, |event| tap.on_event(event));
        self.clock.received(tap.take_progress());
        Poll::Ready(match fits {
            Ok(()) => Step::More(length),
            Err(_) => Step::End(End::TooLarge),
        })
    }

    fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Step> {
        self.clock.poll_silence(cx).map(|silence| match silence {
            Silence::TooLong => Step::End(End::Silent),
            Silence::Ping => {
                self.out.push_back(PING);
                Step::More(0)
            }
        })
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
                self.clock.sent();
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
        let failure = tap
            .failure()
            .map(|failure| class::of_event(&failure.kind, &failure.message));
        if self.permit.is_some()
            && (tap.has_content() || failure.is_some())
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
            // An upstream that said so before any content bills nothing that it did not report.
            let count = if has_content {
                Count::Estimated
            } else {
                Count::Reported
            };
            self.closing = Some(self.ledger.close(status_of(failure), count));
        } else if is_complete {
            self.closing = Some(self.ledger.close(UsageStatus::Ok, Count::Estimated));
        }
    }

    /// The proxy ends before the stream does. What is known of the Plan decides nothing.
    pub(super) fn interrupt(&mut self) {
        self.source = None;
        self.permit = None;
        if !self.ledger.is_closed() {
            let error = ErrorBody::new("overloaded_error", INTERRUPTED);
            self.out.push_back(error_event(&error));
            let closing = self
                .ledger
                .close(UsageStatus::Interrupted, Count::Estimated);
            self.closing = Some(closing);
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
        tracing::warn!(request_id = %self.ledger.request_id, why = end.why(), "a stream failed");
        self.out.push_back(error_event(&end.error()));
        if let Some(mut permit) = self.permit.take() {
            permit.fail(end.failure(), &HeaderMap::new());
        }
        let count = if end.is_reported() && !self.ledger.tap.has_content() {
            Count::Reported
        } else {
            Count::Estimated
        };
        self.closing = Some(self.ledger.close(status_of(end.failure()), count));
    }
}

/// The usage status of a call that failed so.
pub(super) fn status_of(failure: Failure) -> UsageStatus {
    if failure == Failure::Client {
        UsageStatus::ClientError
    } else {
        UsageStatus::UpstreamError
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt as _;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::time::Instant;

    use super::*;
    use crate::adapter::{BrokenReply, Chunk};
    use crate::call::{Outcome, Ticket};

    const SECOND: Duration = Duration::from_secs(1);

    fn ledger() -> (Box<Ledger>, UnboundedReceiver<Outcome>) {
        let (sender, outcomes) = unbounded_channel();
        let received_at = std::time::Instant::now();
        let ticket = Ticket::new(received_at, move |outcome| {
            sender.send(outcome).ok();
            Closing::done()
        });
        (
            Ledger::of(ticket, uuid::Uuid::nil(), received_at, 0),
            outcomes,
        )
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is an item of a stream")]
    fn chunk(text: &'static str) -> Result<Chunk, BrokenReply> {
        Ok(Bytes::from_static(text.as_bytes()).into())
    }

    async fn next(relay: &mut Relay) -> Option<String> {
        let bytes = std::future::poll_fn(|cx| relay.poll_bytes(cx)).await?;
        Some(String::from_utf8(bytes.to_vec()).unwrap())
    }

    fn pace(ping: Option<Duration>) -> Pace {
        Pace {
            first_byte: Instant::now() + SECOND * 300,
            idle: SECOND * 40,
            ping,
        }
    }

    const STOP: &str = "event: message_stop\ndata: {}\n\n";

    #[tokio::test(start_paused = true)]
    async fn a_silent_stream_is_kept_alive_by_pings_until_it_has_been_silent_too_long() {
        let source = futures::stream::iter([chunk("event: message_start\ndata: {}\n\n")])
            .chain(futures::stream::pending());
        let (ledger, _outcomes) = ledger();
        let mut relay = Relay::new(Box::pin(source), ledger, None, pace(Some(SECOND * 15)));
        let started = Instant::now();
        let mut seen = Vec::new();
        while let Some(text) = next(&mut relay).await {
            seen.push((
                started.elapsed().as_secs(),
                text.split(['\n', ' ']).nth(1).unwrap().to_owned(),
            ));
        }
        let seen: Vec<(u64, &str)> = seen.iter().map(|(at, name)| (*at, name.as_str())).collect();
        assert_eq!(
            seen,
            [
                (0, "message_start"),
                (15, "ping"),
                (30, "ping"),
                (40, "error")
            ]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn pings_of_the_upstream_are_no_progress() {
        let pings = futures::stream::unfold((), async |()| {
            tokio::time::sleep(SECOND * 10).await;
            Some((chunk("event: ping\ndata: {}\n\n"), ()))
        });
        let (ledger, _outcomes) = ledger();
        let mut relay = Relay::new(Box::pin(pings), ledger, None, pace(None));
        let started = Instant::now();
        let mut last = String::new();
        while let Some(text) = next(&mut relay).await {
            last = text;
        }
        assert!(last.contains("timeout_error"));
        assert_eq!(
            started.elapsed().as_secs(),
            50,
            "forty seconds after the first byte"
        );
    }

    #[tokio::test]
    async fn the_last_events_leave_when_the_usage_is_durable() {
        let (acknowledge, acknowledged) = tokio::sync::oneshot::channel();
        let received_at = std::time::Instant::now();
        let ticket = Ticket::new(received_at, move |_| Closing::after(acknowledged));
        let source = futures::stream::iter([
            chunk("event: content_block_delta\ndata: {}\n\n"),
            chunk(STOP),
        ]);
        let mut relay = Relay::new(
            Box::pin(source),
            Ledger::of(ticket, uuid::Uuid::nil(), received_at, 0),
            None,
            pace(None),
        );
        assert!(
            next(&mut relay)
                .await
                .unwrap()
                .contains("content_block_delta")
        );
        assert!(futures::poll!(std::pin::pin!(next(&mut relay))).is_pending());
        acknowledge.send(()).unwrap();
        assert_eq!(next(&mut relay).await.as_deref(), Some(STOP));
        assert_eq!(next(&mut relay).await, None);
    }

    #[tokio::test]
    async fn an_interrupted_stream_ends_in_an_error_event_unless_it_was_complete() {
        for (sent, expected) in [
            (
                "event: content_block_delta\ndata: {}\n\n",
                UsageStatus::Interrupted,
            ),
            (STOP, UsageStatus::Ok),
        ] {
            let source = futures::stream::iter([chunk(sent)]).chain(futures::stream::pending());
            let (ledger, mut outcomes) = ledger();
            let mut relay = Relay::new(Box::pin(source), ledger, None, pace(None));
            assert_eq!(next(&mut relay).await.as_deref(), Some(sent));
            relay.interrupt();
            let last = next(&mut relay).await;
            assert_eq!(
                last.is_some_and(
                    |last| last.starts_with("event: error\n") && last.contains("overloaded_error")
                ),
                expected == UsageStatus::Interrupted
            );
            assert_eq!(next(&mut relay).await, None);
            assert_eq!(outcomes.recv().await.unwrap().status, expected);
        }
    }

    #[tokio::test]
    async fn an_event_without_end_is_cut_off() {
        let piece = Bytes::from(vec![b'x'; 1024 * 1024]);
        let source = futures::stream::repeat_with(move || Ok(Chunk::from(piece.clone())));
        let (ledger, mut outcomes) = ledger();
        let mut relay = Relay::new(Box::pin(source), ledger, None, pace(None));
        assert!(next(&mut relay).await.unwrap().contains("too large"));
        assert_eq!(next(&mut relay).await, None);
        assert_eq!(
            outcomes.recv().await.unwrap().status,
            UsageStatus::UpstreamError
        );
    }

    #[tokio::test]
    async fn line_ends_behind_the_last_event_are_forwarded_and_half_events_not() {
        for (tail, expected) in [("\r\n", Some("\r\n")), ("event: half", None)] {
            let (ledger, mut outcomes) = ledger();
            let source = futures::stream::iter([chunk(STOP), Ok(Bytes::from(tail).into())]);
            let mut relay = Relay::new(Box::pin(source), ledger, None, pace(None));
            assert_eq!(next(&mut relay).await.as_deref(), Some(STOP));
            assert_eq!(next(&mut relay).await.as_deref(), expected);
            assert_eq!(outcomes.recv().await.unwrap().status, UsageStatus::Ok);
        }
    }
}
