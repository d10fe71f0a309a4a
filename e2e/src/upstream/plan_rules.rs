//! What the Plan refuses by itself: wrong credentials, versions and bodies, much in the API's words.

use serde_json::{Map, Value};

use super::{
    behaviour::{Failure, Operation},
    config::Config,
    conversation, messages_rules,
    received::Received,
};

const MAX_BODY: usize = 32 * 1024 * 1024;

/// The version whose Messages API no longer takes [`REMOVED_FIELDS`], documents from the assistant and citations from
/// the user (Anthropic's guide "Migrating to API version 2026-10-21"; the wording of these refusals is not documented).
const NEWEST_VERSION: &str = "2026-10-21";
const VERSIONS: [&str; 2] = ["2023-06-01", NEWEST_VERSION];
const REMOVED_FIELDS: [&str; 3] = ["temperature", "top_p", "top_k"];

/// What the request is refused with before any rule is asked.
pub(crate) fn refusal(request: &Received, config: &Config) -> Option<Failure> {
    if request.operation == Operation::Probe {
        return None;
    }
    check(request, config).err()
}

fn check(request: &Received, config: &Config) -> Result<(), Failure> {
    // SDKs since version 2026-10-21 send the key as a bearer token, older ones as x-api-key.
    let bearer = || {
        request
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
    };
    let key = request.header("x-api-key").or_else(bearer);
    let key = key.ok_or_else(|| Failure::status(401).message("x-api-key header is required"))?;
    if !config.plan_keys.iter().any(|expected| expected == key) {
        return Err(Failure::status(401));
    }
    if request.operation == Operation::Unknown {
        return Err(Failure::status(404));
    }
    let version = request
        .header("anthropic-version")
        .ok_or_else(|| bad("anthropic-version: header is required"))?;
    if !VERSIONS.contains(&version) {
        return Err(bad(format!(
            "anthropic-version: \"{version}\" is not a valid version"
        )));
    }
    if request.body.len() > MAX_BODY {
        return Err(Failure::status(413));
    }
    match request.operation {
        Operation::Messages | Operation::CountTokens => check_body(request, version, config),
        _ => Ok(()),
    }
}

fn bad(message: impl Into<String>) -> Failure {
    Failure::status(400).message(message)
}

/// Fields that the API does not know are not looked at.
fn check_body(request: &Received, version: &str, config: &Config) -> Result<(), Failure> {
    let body: Map<String, Value> = serde_json::from_slice(&request.body)
        .map_err(|error| bad(format!("The request body is not valid JSON: {error}")))?;
    if !body.get("model").is_some_and(Value::is_string) {
        return Err(bad("model: Field required"));
    }
    let messages = body
        .get("messages")
        .ok_or_else(|| bad("messages: Field required"))?;
    let messages = messages
        .as_array()
        .ok_or_else(|| bad("messages: Input should be a valid array"))?;
    if messages.is_empty() {
        return Err(bad("messages: at least one message is required"));
    }
    if request.operation == Operation::Messages {
        let max_tokens = body
            .get("max_tokens")
            .ok_or_else(|| bad("max_tokens: Field required"))?;
        if max_tokens.as_u64().is_none_or(|tokens| tokens == 0) {
            return Err(bad(
                "max_tokens: Input should be greater than or equal to 1",
            ));
        }
    }
    messages_rules::check(&body).map_err(bad)?;
    if version == NEWEST_VERSION {
        check_newest(&body, messages)?;
    }
    conversation::check(&body, config.foreign_signatures).map_err(bad)
}

fn check_newest(body: &Map<String, Value>, messages: &[Value]) -> Result<(), Failure> {
    if let Some(field) = REMOVED_FIELDS
        .iter()
        .find(|field| body.contains_key(**field))
    {
        return Err(bad(format!("{field}: Extra inputs are not permitted")));
    }
    for (index, message) in messages.iter().enumerate() {
        let blocks = message["content"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        for (block_index, block) in blocks.iter().enumerate() {
            let place = format!("messages.{index}.content.{block_index}");
            if message["role"] == "assistant" && block["type"] == "document" {
                return Err(bad(format!(
                    "{place}: document blocks are not permitted in assistant messages"
                )));
            }
            let cited = block["citations"]
                .as_array()
                .is_some_and(|citations| !citations.is_empty());
            if message["role"] == "user" && block["type"] == "text" && cited {
                return Err(bad(format!(
                    "{place}.citations: citations are not permitted in user messages"
                )));
            }
        }
    }
    Ok(())
}
