//! Errors of Bedrock in the shape of the Messages API.

use http::StatusCode;

use crate::adapter::ErrorBody;

/// Status and `error.type` for an error code of Bedrock, with what is said where Bedrock's own words may not be shown: they can
/// carry account ids and ARNs.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html#API_runtime_InvokeModelWithResponseStream_Errors>.
const CODES: &[(&str, u16, &str, &str)] = &[
    (
        "AccessDeniedException",
        403,
        "permission_error",
        "Bedrock refused its credential for this model",
    ),
    (
        "ExpiredTokenException",
        403,
        "permission_error",
        "Bedrock refused its credential",
    ),
    (
        "IncompleteSignatureException",
        403,
        "permission_error",
        "Bedrock refused its credential",
    ),
    (
        "InternalServerException",
        500,
        "api_error",
        "Bedrock had an internal error",
    ),
    (
        "InvalidSignatureException",
        403,
        "permission_error",
        "Bedrock refused its credential",
    ),
    (
        "ModelErrorException",
        500,
        "api_error",
        "the model failed on Bedrock",
    ),
    (
        "ModelNotReadyException",
        529,
        "overloaded_error",
        "the model is not ready on Bedrock",
    ),
    (
        "ModelStreamErrorException",
        500,
        "api_error",
        "the model failed on Bedrock",
    ),
    (
        "ModelTimeoutException",
        504,
        "timeout_error",
        "the model took too long on Bedrock",
    ),
    (
        "ResourceNotFoundException",
        404,
        "not_found_error",
        "Bedrock does not have the model that this call is mapped to",
    ),
    (
        "ServiceQuotaExceededException",
        429,
        "rate_limit_error",
        "a Bedrock quota is used up",
    ),
    (
        "ServiceUnavailableException",
        529,
        "overloaded_error",
        "Bedrock is overloaded",
    ),
    (
        "ThrottlingException",
        429,
        "rate_limit_error",
        "Bedrock is throttling",
    ),
    (
        "UnrecognizedClientException",
        403,
        "permission_error",
        "Bedrock refused its credential",
    ),
    (
        "ValidationException",
        400,
        "invalid_request_error",
        "Bedrock refused the request as invalid",
    ),
];

/// Bedrock's prefix before the words of the Anthropic API behind it.
const MODEL_SAYS: &str = "The model returned the following errors: ";

/// How messages begin that are in the Anthropic API's own words: clients act on them.
/// Source: Anthropic's error reference.
const ANTHROPIC_WORDS: &[&str] = &[
    "prompt is too long",
    "input length and `max_tokens` exceed context limit",
];

/// How Bedrock's own messages begin for a prompt that does not fit, such as `Input is too long for requested model.`; and the one
/// that clients know as it is (Claude Code's gateway guide). Of any other they would not learn that they have to compact.
const TOO_LONG: &str = "Input is too long";
const KNOWN_TOO_LONG: &str = "Input is too long.";
const PROMPT_TOO_LONG: &str =
    "prompt is too long: the input is longer than the requested model takes";
/// Codes under which a model's own refusal may come, besides `ValidationException`.
const MODEL_ERRORS: [&str; 2] = ["ModelErrorException", "ModelStreamErrorException"];

/// Fields that Anthropic's validation messages begin with, as in ``messages.1.content.0: Invalid `signature` …``.
const FIELDS: &[&str] = &[
    "anthropic_beta",
    "context_management",
    "max_tokens",
    "messages",
    "metadata",
    "output_config",
    "stop_sequences",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// What the client is told of an error that Bedrock gave with this status, code and message.
pub(crate) fn to_anthropic(
    status: u16,
    code: Option<&str>,
    message: Option<&str>,
) -> (StatusCode, ErrorBody) {
    let known = code.and_then(|code| {
        CODES
            .iter()
            .find(|(name, ..)| name.eq_ignore_ascii_case(code))
    });
    let (status, kind, generic) = match known {
        Some((_, status, kind, generic)) => (*status, *kind, *generic),
        None => match status {
            400..=402 | 404..=407 | 409..=412 | 414..=428 | 430..=499 => {
                (400, "invalid_request_error", "Bedrock refused the request")
            }
            403 => (403, "permission_error", "Bedrock refused its credential"),
            408 => (504, "timeout_error", "the model took too long on Bedrock"),
            413 => (
                413,
                "request_too_large",
                "the request is too large for Bedrock",
            ),
            429 => (429, "rate_limit_error", "Bedrock is throttling"),
            503 => (529, "overloaded_error", "Bedrock is overloaded"),
            504 => (504, "timeout_error", "Bedrock took too long"),
            _ => (500, "api_error", "Bedrock had an error"),
        },
    };
    let is_models = |message: &str| {
        let is_models = |name| code.is_some_and(|code| code.eq_ignore_ascii_case(name));
        MODEL_ERRORS.into_iter().any(is_models) && unprefixed(message).starts_with(TOO_LONG)
    };
    let (status, kind) = match message {
        Some(message) if is_models(message) => (400, "invalid_request_error"),
        _ => (status, kind),
    };
    let words = message
        .filter(|_| matches!(status, 400 | 413))
        .and_then(anthropic_words);
    let body = words.map_or_else(
        || ErrorBody::new(kind, generic),
        |words| ErrorBody::new(kind, words.to_owned()),
    );
    (
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        body,
    )
}

/// A message of Bedrock's in the Anthropic API's own words, so that clients may act on it; `None` if it is not in these or holds
/// anything of the account's.
pub fn anthropic_words(message: &str) -> Option<&str> {
    let words = unprefixed(message);
    if words.starts_with(TOO_LONG) {
        let is_known = words == KNOWN_TOO_LONG;
        return Some(if is_known { words } else { PROMPT_TOO_LONG });
    }
    let names_a_field = FIELDS.iter().any(|field| {
        words
            .strip_prefix(field)
            .is_some_and(|rest| rest.starts_with(['.', ':']))
    });
    let is_anthropics =
        names_a_field || ANTHROPIC_WORDS.iter().any(|start| words.starts_with(start));
    (is_anthropics && !names_an_account(words)).then_some(words)
}

fn unprefixed(message: &str) -> &str {
    message.strip_prefix(MODEL_SAYS).unwrap_or(message).trim()
}

/// Whether a text holds an ARN or anything as long as an account id.
pub(crate) fn names_an_account(text: &str) -> bool {
    text.contains("arn:")
        || text
            .split(|c: char| !c.is_ascii_digit())
            .any(|digits| digits.len() >= 12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_anthropics_types() {
        for (status, code, expected, kind) in [
            (429, "ThrottlingException", 429, "rate_limit_error"),
            (503, "ServiceUnavailableException", 529, "overloaded_error"),
            (408, "ModelTimeoutException", 504, "timeout_error"),
            (424, "ModelErrorException", 500, "api_error"),
            (403, "AccessDeniedException", 403, "permission_error"),
            (404, "ResourceNotFoundException", 404, "not_found_error"),
            (400, "ValidationException", 400, "invalid_request_error"),
            (400, "throttlingException", 429, "rate_limit_error"),
            (418, "TeapotException", 400, "invalid_request_error"),
            (502, "BadGateway", 500, "api_error"),
        ] {
            let (got, body) = to_anthropic(status, Some(code), Some("secret words"));
            assert_eq!(
                (got.as_u16(), body.kind.as_ref()),
                (expected, kind),
                "{code}"
            );
            assert!(!body.message.contains("secret"), "{code}");
        }
    }

    #[test]
    fn anthropics_own_words_go_through() {
        for (message, shown) in [
            (
                "prompt is too long: 201000 tokens > 200000 maximum",
                "prompt is too long: 201000 tokens > 200000 maximum",
            ),
            ("Input is too long.", "Input is too long."),
            (
                "The model returned the following errors: messages.1.content.0: Invalid `signature` in `thinking` block",
                "messages.1.content.0: Invalid `signature` in `thinking` block",
            ),
            (
                "tools.0: Input tag 'web_search_20250305' found using 'type' does not match any of the expected tags",
                "tools.0: Input tag 'web_search_20250305' found using 'type' does not match any of the expected tags",
            ),
        ] {
            assert_eq!(
                to_anthropic(400, Some("ValidationException"), Some(message))
                    .1
                    .message,
                shown
            );
        }
    }

    #[test]
    fn a_prompt_that_is_too_long_reads_as_such_however_bedrock_says_it() {
        for (code, message) in [
            (
                "ValidationException",
                "Input is too long for requested model.",
            ),
            (
                "validationException",
                "The model returned the following errors: Input is too long for requested model.",
            ),
            (
                "modelStreamErrorException",
                "The model returned the following errors: Input is too long for requested model.",
            ),
            (
                "ValidationException",
                "Input is too long. Ask arn:aws:iam::123456789012:user/x",
            ),
        ] {
            // 500 is what an exception in a stream comes as.
            let (status, body) = to_anthropic(500, Some(code), Some(message));
            assert_eq!(
                (status.as_u16(), body.kind.as_ref()),
                (400, "invalid_request_error"),
                "{code}"
            );
            assert_eq!(body.message, PROMPT_TOO_LONG, "{message}");
        }
        let (status, _) = to_anthropic(424, Some("ModelErrorException"), Some("anything else"));
        assert_eq!(status, 500);
    }

    #[test]
    fn aws_words_do_not() {
        for message in [
            "Invocation of model ID anthropic.x with on-demand throughput isn't supported.",
            "messages.0: User: arn:aws:iam::123456789012:user/x is not authorized",
            "system: account 123456789012",
            "messages_extra: x",
        ] {
            let (_, body) = to_anthropic(400, Some("ValidationException"), Some(message));
            assert_eq!(
                body.message, "Bedrock refused the request as invalid",
                "{message}"
            );
        }
        let (_, body) = to_anthropic(
            500,
            Some("InternalServerException"),
            Some("prompt is too long"),
        );
        assert_eq!(
            body.message, "Bedrock had an internal error",
            "only a refusal of the request may speak"
        );
    }
}
