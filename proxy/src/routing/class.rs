//! What kind of failure an upstream's error is, and so whether the call falls over and the circuit counts it.

use spillway_core::domain::usage::FallbackReason;

/// A failure of the Plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service is unwell: counted, and the call falls over.
    Upstream(FallbackReason),
    /// The credential or its account is refused: the call falls over, and so do all of this credential's.
    Account,
    /// A rate limit of one feature: the call falls over and nothing is counted.
    Feature,
    /// The call itself is at fault: never counted, never tried elsewhere.
    Client,
    /// The upstream may have done the work and bills it, though nobody saw the answer: not tried elsewhere, not counted.
    Spent,
}

impl Failure {
    /// Why the call falls over; `None` if it does not.
    pub(super) fn reason(self) -> Option<FallbackReason> {
        match self {
            Self::Upstream(reason) => Some(reason),
            Self::Account => Some(FallbackReason::Account),
            Self::Feature => Some(FallbackReason::Feature),
            Self::Client | Self::Spent => None,
        }
    }
}

/// Parts of messages, in lower case, by which an account's failure is told where the status leaves it open.
/// Source: <https://docs.anthropic.com/en/api/errors> and the API's answers.
const ACCOUNT_WORDS: &[(u16, &str)] = &[
    (400, "credit balance is too low"),
    (400, "reached your specified api usage limits"),
    (403, "api key"),
    (403, "api-key"),
    (403, "organization"),
    (403, "organisation"),
    (403, "workspace"),
    (403, "credential"),
    (403, "your account"),
];

/// Parts of 429 messages, in lower case, that name a feature of the request rather than the load on the service.
const FEATURE_WORDS: &[&str] = &[
    "long context",
    "context-1m",
    "1m context",
    "fast mode",
    "extra usage",
];

/// The status that an `error.type` stands for.
/// Source: <https://docs.anthropic.com/en/api/errors#http-errors>.
const STATUS_OF_KIND: &[(&str, u16)] = &[
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("api_error", 500),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

/// The class of an answer of this status, with the error's message if its body has one.
pub(super) fn of_status(status: u16, message: &str) -> Failure {
    let message = message.to_ascii_lowercase();
    let is_account = |status: u16| {
        ACCOUNT_WORDS
            .iter()
            .any(|(of, words)| *of == status && message.contains(words))
    };
    match status {
        401 | 402 => Failure::Account,
        400 | 403 if is_account(status) => Failure::Account,
        429 if FEATURE_WORDS.iter().any(|words| message.contains(words)) => Failure::Feature,
        429 => Failure::Upstream(FallbackReason::RateLimited),
        529 => Failure::Upstream(FallbackReason::Overloaded),
        500.. => Failure::Upstream(FallbackReason::ServerError),
        _ => Failure::Client,
    }
}

/// The class of an `error` event in a stream.
pub(super) fn of_event(kind: &str, message: &str) -> Failure {
    of_status(status_of(kind), message)
}

/// The status that would have been given for an `error` event; 500 for a type that is not known.
pub(super) fn status_of(kind: &str) -> u16 {
    STATUS_OF_KIND
        .iter()
        .find(|(known, _)| *known == kind)
        .map_or(500, |(_, status)| *status)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: Failure = Failure::Upstream(FallbackReason::ServerError);
    const OVERLOADED: Failure = Failure::Upstream(FallbackReason::Overloaded);
    const LIMITED: Failure = Failure::Upstream(FallbackReason::RateLimited);

    #[test]
    fn answers_are_classed_by_status_and_words() {
        for (status, message, class) in [
            (500, "Internal server error", SERVER),
            (502, "", SERVER),
            (503, "", SERVER),
            (504, "", SERVER),
            (529, "Overloaded", OVERLOADED),
            (599, "", SERVER),
            (
                429,
                "This request would exceed your account's rate limit.",
                LIMITED,
            ),
            (429, "", LIMITED),
            (
                429,
                "Extra usage is required for long context requests.",
                Failure::Feature,
            ),
            (429, "Fast mode is rate limited", Failure::Feature),
            (401, "invalid x-api-key", Failure::Account),
            (402, "", Failure::Account),
            (
                403,
                "Your API key does not have permission to use the specified resource.",
                Failure::Account,
            ),
            (
                403,
                "This organization has been disabled.",
                Failure::Account,
            ),
            (403, "Request not allowed", Failure::Client),
            (
                400,
                "Your credit balance is too low to access the Anthropic API.",
                Failure::Account,
            ),
            (
                400,
                "You have reached your specified API usage limits.",
                Failure::Account,
            ),
            (
                400,
                "messages: at least one message is required",
                Failure::Client,
            ),
            (
                400,
                "prompt is too long: 1 tokens > 0 maximum",
                Failure::Client,
            ),
            (404, "model: claude-none", Failure::Client),
            (404, "organization", Failure::Client),
            (413, "", Failure::Client),
            (422, "", Failure::Client),
            (307, "", Failure::Client),
        ] {
            assert_eq!(of_status(status, message), class, "{status} {message}");
        }
    }

    #[test]
    fn events_are_classed_by_type_and_words() {
        for (kind, message, class) in [
            ("overloaded_error", "Overloaded", OVERLOADED),
            ("api_error", "Internal server error", SERVER),
            ("timeout_error", "", SERVER),
            (
                "rate_limit_error",
                "Number of request tokens has exceeded your rate limit",
                LIMITED,
            ),
            (
                "rate_limit_error",
                "long context requests",
                Failure::Feature,
            ),
            ("authentication_error", "", Failure::Account),
            ("billing_error", "", Failure::Account),
            (
                "permission_error",
                "Your API key does not have permission",
                Failure::Account,
            ),
            ("permission_error", "", Failure::Client),
            (
                "invalid_request_error",
                "Your credit balance is too low",
                Failure::Account,
            ),
            (
                "invalid_request_error",
                "Output blocked by content filtering policy",
                Failure::Client,
            ),
            ("not_found_error", "", Failure::Client),
            ("request_too_large", "", Failure::Client),
            ("something_new", "", SERVER),
        ] {
            assert_eq!(of_event(kind, message), class, "{kind} {message}");
        }
    }

    #[test]
    fn a_clients_own_failure_and_a_spent_call_stay() {
        assert_eq!(
            (Failure::Client.reason(), Failure::Spent.reason()),
            (None, None)
        );
        assert!(
            [SERVER, Failure::Account, Failure::Feature]
                .iter()
                .all(|failure| failure.reason().is_some())
        );
    }
}
