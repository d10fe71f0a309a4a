//! Which headers of a client's request go to Bedrock. The signature is over these and the proxy's own, and nothing else.

use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};

/// Beginnings of the headers that steer a call: service tier, guardrail, trace, performance, content types of streams.
/// Source: the headers of `InvokeModel` and `InvokeModelWithResponseStream` in the Bedrock runtime's service model.
const STEERING: &str = "x-amzn-bedrock-";

/// The headers that pass. Values that are no text cannot be signed and are left out.
pub(super) fn for_bedrock(received: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(8);
    for (name, value) in received {
        if passes(name) && value.to_str().is_ok() {
            passed.append(name, value.clone());
        }
    }
    passed
        .entry(CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    // Usage is read beside the bytes of answers.
    passed.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    passed
}

fn passes(name: &HeaderName) -> bool {
    *name == CONTENT_TYPE || *name == ACCEPT || name.as_str().starts_with(STEERING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_the_call_passes_and_nothing_of_the_clients_own() {
        let sent = [
            ("content-type", "application/json"),
            ("accept", "application/vnd.amazon.eventstream"),
            ("x-amzn-bedrock-service-tier", "priority"),
            ("x-amzn-bedrock-guardrailidentifier", "g"),
            ("x-amzn-bedrock-unheard-of", "y"),
            ("authorization", "AWS4-HMAC-SHA256 Credential=client"),
            ("x-api-key", "sk-spw-secret"),
            ("x-amz-date", "20260101T000000Z"),
            ("x-amz-security-token", "client"),
            ("x-amz-content-sha256", "client"),
            ("x-forwarded-for", "10.0.0.1"),
            ("amz-sdk-invocation-id", "1"),
            ("user-agent", "claude-cli"),
            ("cookie", "a=b"),
            ("content-encoding", "gzip"),
            ("content-length", "9"),
            ("accept-encoding", "gzip"),
        ];
        let sent: HeaderMap = sent
            .into_iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect();
        let passed = for_bedrock(&sent);
        let mut names: Vec<&str> = passed.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "accept",
                "accept-encoding",
                "content-type",
                "x-amzn-bedrock-guardrailidentifier",
                "x-amzn-bedrock-service-tier",
                "x-amzn-bedrock-unheard-of"
            ]
        );
        assert_eq!(passed[ACCEPT_ENCODING], "identity");
    }

    #[test]
    fn a_body_without_a_type_is_json() {
        assert_eq!(
            for_bedrock(&HeaderMap::new())[CONTENT_TYPE],
            "application/json"
        );
    }
}
