//! What is known of a call so far, for its usage row.

use std::time::{Duration, Instant};

use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use uuid::Uuid;

use crate::call::{Abandoned, CLIENT_CLOSED_REQUEST, Call, Closing, Outcome, Ticket};
use crate::stream::UsageTap;

/// The longest request id of an upstream's that is kept, in bytes. Anthropic's have 28, AWS' 36.
const MAX_REQUEST_ID: usize = 256;

/// Gathers a call's outcome. Dropped unclosed, which is how hyper says that the client left, it closes as `client_aborted`
/// with what was received and, while an upstream is at work, an estimate of the rest. On the heap, for it is handed from one
/// future to the next.
pub(super) struct Ledger {
    /// The call's id, for logs.
    pub(super) request_id: Uuid,
    ticket: Option<Ticket>,
    received_at: Instant,
    request_bytes: usize,
    attempt: Option<Attempt>,
    fallback: Option<FallbackReason>,
    abandoned: Option<Abandoned>,
    overhead: Option<Duration>,
    ttft: Option<Duration>,
    shown: Option<u16>,
    /// What is counted if the client leaves now.
    at_work: Count,
    /// The upstream began an answer that the client does not get.
    has_worked: bool,
    /// Reads the usage of the attempt that is under way.
    pub(super) tap: UsageTap,
}

struct Attempt {
    provider: Provider,
    upstream_model: Option<String>,
    request_id: Option<String>,
}

/// How much of the tokens may be guessed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Count {
    /// What was reported: the upstream bills no more.
    Reported,
    /// An estimate where nothing was reported: the upstream was at work.
    Estimated,
}

impl Ledger {
    pub(super) fn new(call: &Call, ticket: Ticket) -> Box<Self> {
        Self::of(
            ticket,
            call.admission.request_id,
            call.received_at,
            call.body.len(),
        )
    }

    pub(super) fn of(
        ticket: Ticket,
        request_id: Uuid,
        received_at: Instant,
        request_bytes: usize,
    ) -> Box<Self> {
        Box::new(Self {
            request_id,
            ticket: Some(ticket),
            received_at,
            request_bytes,
            attempt: None,
            fallback: None,
            abandoned: None,
            overhead: None,
            ttft: None,
            shown: None,
            at_work: Count::Estimated,
            has_worked: false,
            tap: UsageTap::default(),
        })
    }

    /// Notes that Bedrock is about to be asked, and why.
    pub(super) fn fall_back(&mut self, reason: FallbackReason) {
        self.fallback.get_or_insert(reason);
    }

    /// Notes that an upstream is asked from now on; what an earlier one reported is kept as abandoned.
    pub(super) fn begin(&mut self, provider: Provider, upstream_model: Option<&str>) {
        let tokens = std::mem::take(&mut self.tap).reported();
        if let Some(before) = self.attempt.take().filter(|_| !tokens.is_zero()) {
            self.abandoned = Some(Abandoned {
                provider: before.provider,
                upstream_model: before.upstream_model,
                tokens,
            });
        }
        self.overhead
            .get_or_insert_with(|| self.received_at.elapsed());
        self.attempt = Some(Attempt {
            provider,
            upstream_model: upstream_model.map(str::to_owned),
            request_id: None,
        });
        self.at_work = Count::Estimated;
        self.has_worked = false;
    }

    /// Notes that the upstream began an answer that cannot be used.
    pub(super) fn worked(&mut self) {
        self.has_worked = true;
    }

    /// Whether the last upstream that was asked began an answer that cannot be used.
    pub(super) fn has_worked(&self) -> bool {
        self.has_worked
    }

    /// Notes that the upstream refused the call, and so does no work for it.
    pub(super) fn refused(&mut self) {
        self.at_work = Count::Reported;
    }

    /// Notes the upstream's request id, unless it is longer than any.
    pub(super) fn answered(&mut self, request_id: Option<String>) {
        if let Some(attempt) = &mut self.attempt {
            attempt.request_id = request_id.filter(|id| id.len() <= MAX_REQUEST_ID);
        }
    }

    /// Notes that the client gets an answer of this status.
    pub(super) fn show(&mut self, status: u16) {
        self.shown = Some(status);
    }

    /// Notes that the client gets content.
    pub(super) fn show_content(&mut self) {
        self.ttft.get_or_insert_with(|| self.received_at.elapsed());
    }

    /// Whether the outcome has been handed over.
    pub(super) fn is_closed(&self) -> bool {
        self.ticket.is_none()
    }

    /// Hands the outcome over, once. The future resolves when it is durable.
    pub(super) fn close(&mut self, status: UsageStatus, count: Count) -> Closing {
        let Some(ticket) = self.ticket.take() else {
            return Closing::done();
        };
        let (tokens, estimated) = match (&self.attempt, count) {
            (None, _) => (TokenUsage::default(), false),
            (Some(_), Count::Reported) => (self.tap.reported(), false),
            (Some(_), Count::Estimated) => self.tap.tokens(self.request_bytes),
        };
        let attempt = self.attempt.take();
        let provider = attempt.as_ref().map(|attempt| attempt.provider);
        let (upstream_model, upstream_request_id) = attempt.map_or((None, None), |attempt| {
            (attempt.upstream_model, attempt.request_id)
        });
        let latency = self.received_at.elapsed();
        ticket.finish(Outcome {
            status,
            http_status: self.shown.unwrap_or(CLIENT_CLOSED_REQUEST),
            provider,
            upstream_model,
            upstream_request_id,
            is_fallback: self.fallback.is_some(),
            fallback_reason: self.fallback,
            tokens,
            estimated,
            abandoned: self.abandoned.take(),
            ttft: self.ttft,
            overhead: self.overhead.unwrap_or(latency),
            latency,
        })
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        drop(self.close(UsageStatus::ClientAborted, self.at_work));
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;

    #[test]
    fn who_leaves_is_charged_an_estimate_while_an_upstream_is_at_work_only() {
        for (steps, estimated) in [
            (&["begin"][..], true),
            (&["begin", "refused"], false),
            (&["begin", "refused", "begin"], true),
        ] {
            let (sender, mut outcomes) = unbounded_channel();
            let received_at = Instant::now();
            let ticket = Ticket::new(received_at, move |outcome| {
                sender.send(outcome).ok();
                Closing::done()
            });
            let mut ledger = Ledger::of(ticket, Uuid::nil(), received_at, 400);
            for step in steps {
                match *step {
                    "begin" => ledger.begin(Provider::Plan, None),
                    _ => ledger.refused(),
                }
            }
            drop(ledger);
            let outcome = outcomes.try_recv().unwrap();
            assert_eq!(
                (outcome.status, outcome.estimated, outcome.tokens.input > 0),
                (UsageStatus::ClientAborted, estimated, estimated),
                "{steps:?}"
            );
        }
    }
}
