//! One attempt at one upstream.

use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, TryStreamExt as _};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Response, StatusCode};
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::answer::{Answer, CAPABILITY_REJECTED, message_of};
use super::body::RelayBody;
use super::class::{self, Failure};
use super::collect::{CollectError, collect};
use super::encoded::read_usage;
use super::end::End;
use super::ledger::{Count, Ledger};
use super::pace::Pace;
use super::permit::Permit;
use super::relay::{Relay, Step, status_of};
use super::{Router, Timeouts};
use crate::adapter::{Adapter, AdapterError, BrokenReply, ChunkStream, ErrorBody, Reply, chain};
use crate::call::{Call, MAX_ANSWER, MAX_ERROR};
use crate::stream::HoldBack;

/// After how much silence of Bedrock, which sends no pings, the client gets one: load balancers cut silent streams after 60 s.
const PING_AFTER: Duration = Duration::from_secs(15);

/// What an attempt may do with a failing stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// Another upstream is left: nothing is shown before content.
    HoldBack,
    /// There is none: the Plan's stream is shown at once, Bedrock's when it is clear that it is no error.
    Last,
}

/// An attempt that failed before the client saw anything.
pub(super) struct GivenUp {
    pub(super) ledger: Box<Ledger>,
    pub(super) answer: Answer,
}

impl GivenUp {
    /// This failure with the better of two answers. One that was given up while it was at work is paid, and must be seen so.
    pub(super) fn or_better(self, first: Answer) -> Self {
        if self.answer.failure == Failure::Spent {
            return self;
        }
        Self {
            answer: first.or_better(self.answer),
            ..self
        }
    }

    /// Answers the client and closes the call.
    pub(super) async fn into_response(mut self) -> Response<RelayBody> {
        self.ledger.show(self.answer.status.as_u16());
        let count = if self.answer.failure == Failure::Spent || self.ledger.has_worked() {
            Count::Estimated
        } else {
            Count::Reported
        };
        self.ledger
            .close(status_of(self.answer.failure), count)
            .await;
        response(
            self.answer.status,
            self.answer.headers,
            RelayBody::whole(self.answer.body),
        )
    }
}

type Attempted = Result<Response<RelayBody>, GivenUp>;

impl Router {
    /// Asks an upstream. The ledger has begun the attempt; `permit` is settled by what is found, where there is one.
    pub(super) async fn ask<A: Adapter>(
        &self,
        adapter: &A,
        call: &Call,
        target: &A::Target,
        mut ledger: Box<Ledger>,
        permit: Option<Permit>,
        patience: Patience,
    ) -> Attempted {
        let provider = adapter.provider();
        let pace = pace(provider, &self.timeouts);
        let deadline = if call.head.stream {
            pace.first_byte
        } else {
            Instant::now() + self.timeouts.plan_request
        };
        let mut attempt = Failing {
            provider,
            request_id: ledger.request_id,
            permit,
        };
        let mut reply = match timeout_at(deadline, adapter.messages(call, target)).await {
            Ok(Ok(reply)) => reply,
            Ok(Err(error)) => {
                let answer = attempt.unanswered(&error);
                return Err(GivenUp { ledger, answer });
            }
            Err(_) => {
                let answer = attempt.timed_out(call.head.stream);
                return Err(GivenUp { ledger, answer });
            }
        };
        ledger.answered(reply.request_id.take());
        if !reply.status.is_success() {
            ledger.refused();
            let answer = attempt.refused(reply, deadline).await;
            return Err(GivenUp { ledger, answer });
        }
        if !reply.is_event_stream() {
            // A stream that cannot be read as it passes takes as long as an answer that is none.
            let deadline = if call.head.stream {
                Instant::now() + self.timeouts.plan_request
            } else {
                deadline
            };
            return attempt.whole(reply, ledger, deadline).await;
        }
        let relay = Relay::new(reply.body, ledger, attempt.permit.take(), pace);
        if patience == Patience::Last && provider == Provider::Plan {
            return Ok(stream(reply.status, reply.headers, relay));
        }
        // Bedrock's exceptions come behind a 200; as long as it is held back, they can still be the answer's status.
        let hold = HoldBack::new(self.timeouts.hold_back);
        attempt
            .held(reply.status, reply.headers, relay, hold, pace, patience)
            .await
    }
}

fn pace(provider: Provider, timeouts: &Timeouts) -> Pace {
    let now = Instant::now();
    match provider {
        Provider::Plan => Pace {
            first_byte: now + timeouts.plan_first_byte,
            idle: timeouts.plan_idle,
            ping: None,
        },
        Provider::Bedrock => Pace {
            first_byte: now + timeouts.bedrock_idle,
            idle: timeouts.bedrock_idle,
            ping: Some(PING_AFTER),
        },
    }
}

/// An attempt that may fail yet.
struct Failing {
    provider: Provider,
    request_id: Uuid,
    permit: Option<Permit>,
}

impl Failing {
    /// Settles the circuit, by the headers of the answer if there was one.
    fn fail(&mut self, failure: Failure, headers: &HeaderMap, why: &str) {
        if failure == Failure::Client {
            tracing::debug!(request_id = %self.request_id, provider = %self.provider, why, "an upstream refused a call");
        } else {
            tracing::warn!(request_id = %self.request_id, provider = %self.provider, ?failure, why, "an attempt failed");
        }
        if let Some(mut permit) = self.permit.take() {
            permit.fail(failure, headers);
        }
    }

    /// Fails without an answer of the upstream's.
    fn own(
        &mut self,
        failure: Failure,
        status: StatusCode,
        error: &ErrorBody,
        why: &str,
    ) -> Answer {
        self.fail(failure, &HeaderMap::new(), why);
        Answer::own(self.provider, failure, status, error, self.request_id)
    }

    fn unanswered(&mut self, error: &AdapterError) -> Answer {
        let (failure, status, shown) = match error {
            AdapterError::Connect(_) => (
                Failure::Upstream(FallbackReason::Connect),
                StatusCode::BAD_GATEWAY,
                ErrorBody::new("api_error", "the upstream could not be reached"),
            ),
            AdapterError::NoAnswer(_) => (
                Failure::Upstream(FallbackReason::StreamBroken),
                StatusCode::BAD_GATEWAY,
                broke_off(),
            ),
            AdapterError::Build(_) => (
                Failure::Upstream(FallbackReason::Connect),
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorBody::new("api_error", "the request could not be sent upstream"),
            ),
            AdapterError::Invalid { message } => (
                Failure::Client,
                StatusCode::BAD_REQUEST,
                ErrorBody::new("invalid_request_error", message.clone()),
            ),
            // In the words that Claude Code acts on, see its gateway guide.
            AdapterError::Unsupported { field } => (
                Failure::Client,
                StatusCode::BAD_REQUEST,
                ErrorBody::new(
                    "invalid_request_error",
                    format!("`{field}` is not available: {CAPABILITY_REJECTED}{field}"),
                ),
            ),
        };
        self.own(failure, status, &shown, &chain(error))
    }

    fn timed_out(&mut self, stream: bool) -> Answer {
        let failure = if stream {
            Failure::Upstream(FallbackReason::Timeout)
        } else {
            Failure::Spent
        };
        let error = ErrorBody::new("timeout_error", "the upstream did not answer in time");
        self.own(
            failure,
            StatusCode::GATEWAY_TIMEOUT,
            &error,
            "no answer in time",
        )
    }

    /// The upstream answered with an error, which is kept as it is.
    async fn refused(&mut self, reply: Reply, deadline: Instant) -> Answer {
        let (status, headers) = (reply.status, reply.headers);
        let Ok(Ok(body)) = timeout_at(deadline, collect(bytes_of(reply.body), MAX_ERROR)).await
        else {
            let failure = class::of_status(status.as_u16(), "");
            self.fail(failure, &headers, "the error's body broke off");
            let body = broke_off().to_event_data();
            return Answer::in_place_of(self.provider, failure, status, headers, body);
        };
        let failure = class::of_status(status.as_u16(), &message_of(&body));
        self.fail(failure, &headers, status.as_str());
        Answer {
            provider: self.provider,
            failure,
            status,
            headers,
            body,
        }
    }

    /// The upstream answers without streaming: nothing is shown before it is whole. From here on it is at work and bills it: one
    /// that is too large or too late is not asked for again. One that breaks off is a failing upstream.
    async fn whole(
        mut self,
        reply: Reply,
        mut ledger: Box<Ledger>,
        deadline: Instant,
    ) -> Attempted {
        let body = match timeout_at(deadline, collect(bytes_of(reply.body), MAX_ANSWER)).await {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => {
                ledger.worked();
                let failure = match error {
                    CollectError::Broken(_) => Failure::Upstream(FallbackReason::StreamBroken),
                    CollectError::TooLarge(_) => Failure::Spent,
                };
                let answer = self.own(
                    failure,
                    StatusCode::BAD_GATEWAY,
                    &broke_off(),
                    &chain(&error),
                );
                return Err(GivenUp { ledger, answer });
            }
            Err(_) => {
                let answer = self.timed_out(false);
                return Err(GivenUp { ledger, answer });
            }
        };
        if let Some(mut permit) = self.permit.take() {
            permit.succeed();
        }
        read_usage(&mut ledger.tap, &reply.headers, &body);
        ledger.show(reply.status.as_u16());
        ledger.show_content();
        ledger.close(UsageStatus::Ok, Count::Estimated).await;
        Ok(response(
            reply.status,
            reply.headers,
            RelayBody::whole(body),
        ))
    }

    /// Holds a stream back until it shows content or fails.
    async fn held(
        mut self,
        status: StatusCode,
        headers: HeaderMap,
        mut relay: Relay,
        mut hold: HoldBack,
        pace: Pace,
        patience: Patience,
    ) -> Attempted {
        let end = loop {
            let deadline = hold.deadline().map_or(pace.first_byte, Instant::from_std);
            match timeout_at(deadline, std::future::poll_fn(|cx| relay.poll_step(cx))).await {
                Ok(Step::More(bytes)) if bytes > 0 => hold.hold(bytes, Instant::now().into_std()),
                // A ping: it is to reach the client, where no other upstream is kept waiting for.
                Ok(Step::More(_)) if patience == Patience::Last => {
                    return Ok(stream(status, headers, relay));
                }
                Ok(Step::More(_)) => {}
                Ok(Step::End(end)) => break Some(end),
                Err(_) if hold.deadline().is_none() => break Some(End::Silent),
                Err(_) => return Ok(stream(status, headers, relay)),
            }
            if relay.ledger.tap.has_content() {
                hold.content();
            } else if let Some(event) = relay.ledger.tap.failure() {
                // What the client did wrong it is told as the Plan tells it.
                if self.provider == Provider::Plan
                    && class::of_event(&event.kind, &event.message) == Failure::Client
                {
                    return Ok(stream(status, headers, relay));
                }
                break None;
            }
            if hold.is_released(Instant::now().into_std()) {
                return Ok(stream(status, headers, relay));
            }
        };
        self.permit = relay.permit.take();
        let answer = match (relay.ledger.tap.failure(), end) {
            (Some(event), _) => {
                let failure = class::of_event(&event.kind, &event.message);
                let answer = Answer::of_event(self.provider, failure, event, headers);
                self.fail(failure, &answer.headers, "an error event");
                answer
            }
            (None, end) => {
                let end = end.unwrap_or(End::Finished);
                let error = end.error();
                let status = StatusCode::from_u16(class::status_of(&error.kind))
                    .unwrap_or(StatusCode::BAD_GATEWAY);
                self.own(end.failure(), status, &error, &end.why())
            }
        };
        Err(GivenUp {
            ledger: relay.ledger,
            answer,
        })
    }
}

fn broke_off() -> ErrorBody {
    ErrorBody::new("api_error", "the upstream's answer broke off")
}

/// The bytes of an answer as the client is to see them.
fn bytes_of(source: ChunkStream) -> impl Stream<Item = Result<Bytes, BrokenReply>> {
    source.map_ok(|chunk| chunk.bytes)
}

fn stream(status: StatusCode, headers: HeaderMap, mut relay: Relay) -> Response<RelayBody> {
    relay.ledger.show(status.as_u16());
    response(status, headers, RelayBody::stream(relay))
}

fn response(status: StatusCode, mut headers: HeaderMap, body: RelayBody) -> Response<RelayBody> {
    // Written anew from the body where that is known; behind a stream an error event may have to follow.
    headers.remove(CONTENT_LENGTH);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}
