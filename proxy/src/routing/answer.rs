//! Answers that end a call without content, and which of two is worth more to the client.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use spillway_core::domain::usage::Provider;
use uuid::Uuid;

use super::class::{Failure, status_of};
use crate::adapter::bedrock::anthropic_words;
use crate::adapter::{ErrorBody, answer_headers};
use crate::stream::StreamFailure;

/// How the Plan refuses a turn that must begin with thinking, where `thinking` is of type `enabled`.
/// Source: the API's answers.
const MISSING_THINKING: &str = "Expected `thinking` or `redacted_thinking`, but found";

/// How a field is refused that only the Plan has. No client can do without it by itself.
pub(super) const UNKNOWN_FIELD: &str = "Extra inputs are not permitted";

/// What the adapter's own refusals carry for what Bedrock does not have, before its name: Claude Code's gateway guide.
pub(super) const CAPABILITY_REJECTED: &str = "capability_rejected: ";
/// What clients leave out by themselves when a refusal names it, so that the call can be served after all.
/// Source: the same guide.
const CLIENTS_CAN_DO_WITHOUT: &str = "safeguards";

/// An error as the client would get it.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) provider: Provider,
    pub(super) failure: Failure,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

#[derive(Deserialize)]
struct Envelope {
    error: Message,
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    message: String,
}

impl Answer {
    /// An error of the proxy's own, on an upstream's behalf, to the call of this id.
    pub(super) fn own(
        provider: Provider,
        failure: Failure,
        status: StatusCode,
        error: &ErrorBody,
        call: Uuid,
    ) -> Self {
        let mut headers = answer_headers(call, HeaderValue::from_static("application/json"));
        if failure == Failure::Spent {
            // Whoever tries again pays again.
            headers.insert("x-should-retry", HeaderValue::from_static("false"));
        }
        Self {
            provider,
            failure,
            status,
            headers,
            body: error.to_answer(call),
        }
    }

    /// An `error` event of a stream that the client saw nothing of, as the answer it would have been without one.
    pub(super) fn of_event(
        provider: Provider,
        failure: Failure,
        event: &StreamFailure,
        headers: HeaderMap,
    ) -> Self {
        let status = StatusCode::from_u16(status_of(&event.kind))
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::in_place_of(
            provider,
            failure,
            status,
            headers,
            event.data.clone().into(),
        )
    }

    /// An error in the place of the body that came with these headers.
    pub(super) fn in_place_of(
        provider: Provider,
        failure: Failure,
        status: StatusCode,
        mut headers: HeaderMap,
        body: Bytes,
    ) -> Self {
        for name in [CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH] {
            headers.remove(name);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Self {
            provider,
            failure,
            status,
            headers,
            body,
        }
    }

    /// Whether the call is refused because a turn of tool calls began without thinking. Only the model can have left it out: what
    /// another one than Claude thought is not signed, and was not shown.
    pub(super) fn misses_thinking(&self) -> bool {
        self.status == StatusCode::BAD_REQUEST && message_of(&self.body).contains(MISSING_THINKING)
    }

    /// This answer or `other`, whichever helps the client more; this one if they are worth the same.
    pub(super) fn or_better(self, other: Self) -> Self {
        if other.worth() > self.worth() {
            other
        } else {
            self
        }
    }

    /// What is wrong with the call and can be mended by the client says most, then what passes when it is tried again, then what
    /// Bedrock alone does not have, then what only the pool's owner can mend. Where both say the like, the Plan's words count for
    /// more: they are those that clients know.
    fn worth(&self) -> u8 {
        match (self.provider, self.failure) {
            (Provider::Plan, Failure::Client) => 6,
            (Provider::Bedrock, Failure::Client) => worth_of_refusal(&message_of(&self.body)),
            (Provider::Plan, Failure::Upstream(_) | Failure::Feature | Failure::Spent) => 4,
            (Provider::Bedrock, Failure::Upstream(_) | Failure::Feature | Failure::Spent) => 3,
            (Provider::Plan, Failure::Account) => 1,
            (Provider::Bedrock, Failure::Account) => 0,
        }
    }
}

/// What a refusal on Bedrock's behalf is worth.
fn worth_of_refusal(message: &str) -> u8 {
    if let Some((_, what)) = message.rsplit_once(CAPABILITY_REJECTED) {
        return if what == CLIENTS_CAN_DO_WITHOUT { 5 } else { 2 };
    }
    match anthropic_words(message) {
        Some(words) if !words.contains(UNKNOWN_FIELD) => 5,
        _ => 0,
    }
}

/// The `error.message` of an answer's body, or nothing.
pub(super) fn message_of(body: &[u8]) -> String {
    serde_json::from_slice::<Envelope>(body)
        .map_or_else(|_| String::new(), |envelope| envelope.error.message)
}

#[cfg(test)]
mod tests {
    use spillway_core::domain::usage::FallbackReason;

    use super::*;

    fn answer(provider: Provider, failure: Failure, message: &'static str) -> Answer {
        Answer::own(
            provider,
            failure,
            StatusCode::BAD_REQUEST,
            &ErrorBody::new("any", message),
            Uuid::nil(),
        )
    }

    #[test]
    fn the_more_useful_error_is_chosen() {
        let upstream = Failure::Upstream(FallbackReason::Overloaded);
        // From the most useful down.
        let order = [
            (Provider::Plan, Failure::Client, "messages: bad"),
            (
                Provider::Bedrock,
                Failure::Client,
                "prompt is too long: 2 tokens > 1 maximum",
            ),
            (Provider::Plan, upstream, "Overloaded"),
            (Provider::Bedrock, upstream, "Bedrock is throttling"),
            (
                Provider::Bedrock,
                Failure::Client,
                "`image_source_url` is not available: capability_rejected: image_source_url",
            ),
            (
                Provider::Plan,
                Failure::Account,
                "credit balance is too low",
            ),
            (
                Provider::Bedrock,
                Failure::Client,
                "Bedrock refused the request as invalid",
            ),
        ];
        for (at, better) in order.iter().enumerate() {
            for worse in &order[at + 1..] {
                let make = |(provider, failure, message): (Provider, Failure, &'static str)| {
                    answer(provider, failure, message)
                };
                for (first, second) in [(better, worse), (worse, better)] {
                    let chosen = make(*first).or_better(make(*second));
                    assert_eq!(
                        (chosen.provider, chosen.failure),
                        (better.0, better.1),
                        "{better:?} {worse:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_refusal_counts_by_what_the_client_can_do_about_it() {
        let overloaded = || {
            let failure = Failure::Upstream(FallbackReason::Overloaded);
            answer(Provider::Plan, failure, "Overloaded")
        };
        for (message, is_shown) in [
            ("prompt is too long: 2 tokens > 1 maximum", true),
            (
                "tools.0: Input tag 'x' found using 'type' does not match any of the expected tags",
                true,
            ),
            (
                "`safeguards` is not available: capability_rejected: safeguards",
                true,
            ),
            (
                "`container` is not available: capability_rejected: container",
                false,
            ),
            ("tools.0.custom.new: Extra inputs are not permitted", false),
        ] {
            let refusal = answer(Provider::Bedrock, Failure::Client, message);
            let chosen = overloaded().or_better(refusal);
            assert_eq!(chosen.provider == Provider::Bedrock, is_shown, "{message}");
        }
    }

    #[test]
    fn a_turn_without_thinking_is_known_by_the_plans_words() {
        let words = "messages.3.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`. When";
        assert!(answer(Provider::Plan, Failure::Client, words).misses_thinking());
        let words = "messages.3.content.0: Invalid `signature` in `thinking` block";
        assert!(!answer(Provider::Plan, Failure::Client, words).misses_thinking());
    }

    #[test]
    fn an_error_event_becomes_the_answer_it_stands_for() {
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (http::header::RETRY_AFTER, "3"),
        ]
        .into_iter()
        .map(|(name, value)| (name, HeaderValue::from_static(value)))
        .collect();
        let data =
            br#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
        let event = StreamFailure {
            kind: "overloaded_error".into(),
            message: "Overloaded".into(),
            data: data.to_vec(),
        };
        let answer = Answer::of_event(Provider::Plan, Failure::Client, &event, headers);
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (529, &data[..]));
        assert_eq!(answer.headers[CONTENT_TYPE], "application/json");
        assert_eq!(answer.headers[http::header::RETRY_AFTER], "3");
        assert_eq!(message_of(&answer.body), "Overloaded");
    }
}
