//! What `InvokeModel` takes for Anthropic's models, and what it calls them.

use serde_json::{Map, Value};

use super::{
    bedrock_turns::{check_messages, check_thinking},
    conversation, messages_rules,
};

/// Fields of the body that Bedrock knows. Everything else is refused by name.
const FIELDS: [&str; 15] = [
    "anthropic_version",
    "anthropic_beta",
    "max_tokens",
    "messages",
    "system",
    "tools",
    "tool_choice",
    "stop_sequences",
    "temperature",
    "top_p",
    "top_k",
    "thinking",
    "metadata",
    "output_config",
    "context_management",
];

/// Beta flags that Bedrock knows; any other is `invalid beta flag`. The two of 2026 are those that Claude Code 2.1.332 sends
/// when it speaks Bedrock's format.
const BETAS: [&str; 16] = [
    "computer-use-2024-10-22",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    "context-management-2025-06-27",
    "dev-full-thinking-2025-05-14",
    "effort-2025-11-24",
    "fine-grained-tool-streaming-2025-05-14",
    "interleaved-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "prompt-caching-2024-07-31",
    "thinking-display-updates-2026-08-18",
    "thinking-token-count-2026-05-13",
    "token-efficient-tools-2025-02-19",
    "tool-examples-2025-10-29",
    "tool-search-tool-2025-10-19",
];

/// Fields that are known only together with a beta flag.
const FIELDS_OF_BETAS: [(&str, &str); 1] =
    [("context_management", "context-management-2025-06-27")];

/// Fields of a tool that are known only together with a beta flag.
const TOOL_FIELDS_OF_BETAS: [(&str, &str); 3] = [
    ("defer_loading", "tool-search-tool-2025-10-19"),
    ("input_examples", "tool-examples-2025-10-29"),
    (
        "eager_input_streaming",
        "fine-grained-tool-streaming-2025-05-14",
    ),
];

/// Beginnings of the tool types that Bedrock knows, besides tools without a type.
const TOOL_TYPES: [&str; 6] = [
    "custom",
    "bash_",
    "text_editor_",
    "computer_",
    "memory_",
    "tool_search_tool_",
];

const MAX_CACHE_CONTROLS: usize = 4;

/// Whether Bedrock knows a beta flag.
pub(crate) fn is_beta(beta: &str) -> bool {
    BETAS.contains(&beta)
}

/// What is wrong with a body, in the service's words.
pub(crate) fn problem(model: &str, body: &[u8], trusts_foreign: bool) -> Option<String> {
    if !model.contains("anthropic.") && !model.starts_with("arn:") {
        return Some(format!(
            "Malformed input request: {model} does not take Anthropic's request format."
        ));
    }
    let Ok(body) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Some(
            "Malformed input request, please reformat your input and try again.".to_owned(),
        );
    };
    check_fields(&body)
        .and_then(|betas| {
            check_tools(&body, &betas)?;
            check_thinking(&body, &betas)
        })
        .and_then(|()| check_messages(&body))
        .and_then(|()| check_content(&body))
        .and_then(|()| messages_rules::check(&body))
        .and_then(|()| conversation::check(&body, trusts_foreign))
        .err()
}

/// Top-level fields and beta flags; gives the flags.
fn check_fields(body: &Map<String, Value>) -> Result<Vec<&str>, String> {
    match body
        .get("anthropic_version")
        .map(|version| version.as_str())
    {
        None => return Err("anthropic_version: Field required".to_owned()),
        // The second is what Anthropic's SDKs send since version 2026-10-21 of the API.
        Some(Some("bedrock-2023-05-31" | "2026-10-21")) => {}
        Some(_) => return Err("Invalid API version".to_owned()),
    }
    let betas = betas(body)?;
    for field in body.keys() {
        let beta = FIELDS_OF_BETAS.iter().find(|(name, _)| name == field);
        if !FIELDS.contains(&field.as_str()) || beta.is_some_and(|(_, beta)| !betas.contains(beta))
        {
            return Err(extra(field));
        }
    }
    if body
        .get("max_tokens")
        .and_then(Value::as_u64)
        .is_none_or(|tokens| tokens == 0)
    {
        return Err("max_tokens: Field required".to_owned());
    }
    if body
        .get("messages")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
    {
        return Err("messages: at least one message is required".to_owned());
    }
    Ok(betas)
}

fn betas(body: &Map<String, Value>) -> Result<Vec<&str>, String> {
    let Some(betas) = body.get("anthropic_beta") else {
        return Ok(Vec::new());
    };
    let betas: Option<Vec<&str>> = betas
        .as_array()
        .and_then(|betas| betas.iter().map(Value::as_str).collect());
    let betas = betas.ok_or("anthropic_beta: Input should be a valid list")?;
    if betas.iter().all(|beta| BETAS.contains(beta)) {
        Ok(betas)
    } else {
        Err("invalid beta flag".to_owned())
    }
}

fn check_tools(body: &Map<String, Value>, betas: &[&str]) -> Result<(), String> {
    let tools = body
        .get("tools")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    for (index, tool) in tools.iter().enumerate() {
        let kind = tool["type"].as_str().unwrap_or("custom");
        if !TOOL_TYPES.iter().any(|known| kind.starts_with(known)) {
            return Err(format!(
                "tools.{index}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            ));
        }
        for (field, beta) in TOOL_FIELDS_OF_BETAS {
            if tool.get(field).is_some() && !betas.contains(&beta) {
                return Err(extra(&format!("tools.{index}.{kind}.{field}")));
            }
        }
        let name = tool["name"].as_str().unwrap_or_default();
        let valid = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if name.is_empty() || name.len() > 128 || !valid {
            return Err(format!(
                "tools.{index}.{kind}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
            ));
        }
    }
    Ok(())
}

/// Empty text and cache markers, over `tools`, `system` and `messages` in that order.
fn check_content(body: &Map<String, Value>) -> Result<(), String> {
    let mut markers = Vec::new();
    for part in ["tools", "system", "messages"] {
        if let Some(value) = body.get(part) {
            walk(value, part, &mut markers)?;
        }
    }
    if markers.len() > MAX_CACHE_CONTROLS {
        return Err(format!(
            "A maximum of {MAX_CACHE_CONTROLS} blocks with cache_control may be provided. Found {}.",
            markers.len()
        ));
    }
    if markers.is_sorted_by_key(|lives_an_hour| !lives_an_hour) {
        Ok(())
    } else {
        Err("messages: a ttl='1h' cache_control block must not come after a ttl='5m' cache_control block. Note that blocks are processed in the following order: `tools`, `system`, `messages`.".to_owned())
    }
}

/// Collects for each cache marker whether it lives an hour. Tool arguments and schemas are the client's own.
fn walk(value: &Value, path: &str, markers: &mut Vec<bool>) -> Result<(), String> {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{path}.{index}"), markers)?;
            }
        }
        Value::Object(fields) => {
            if fields.get("type").is_some_and(|kind| kind == "text")
                && fields
                    .get("text")
                    .is_some_and(|text| text.as_str() == Some(""))
            {
                return Err(format!("{path}: text content blocks must be non-empty"));
            }
            for (name, field) in fields {
                match name.as_str() {
                    "input" | "input_schema" => {}
                    "cache_control" => markers.extend(marker(field, path)?),
                    _ => walk(field, &format!("{path}.{name}"), markers)?,
                }
            }
        }
        _ => {}
    }
    Ok(())
}

fn marker(cache_control: &Value, path: &str) -> Result<Option<bool>, String> {
    let Some(fields) = cache_control.as_object() else {
        return Ok(None);
    };
    if let Some(unknown) = fields
        .keys()
        .find(|field| !["type", "ttl"].contains(&field.as_str()))
    {
        return Err(extra(&format!("{path}.cache_control.ephemeral.{unknown}")));
    }
    Ok(Some(fields.get("ttl").is_some_and(|ttl| ttl == "1h")))
}

pub(crate) fn extra(field: &str) -> String {
    format!("{field}: Extra inputs are not permitted")
}

/// The model's name in an answer: the id without ARN, region, provider and version suffix.
pub(crate) fn model_name(id: &str) -> String {
    let id = id.rsplit('/').next().unwrap_or(id);
    let name = id.rsplit_once("anthropic.").map_or(id, |(_, name)| name);
    let name = name.split_once(':').map_or(name, |(name, _)| name);
    let name = match name.rsplit_once("-v") {
        Some((name, version)) if version.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

    fn body(changes: &Value) -> Value {
        let mut body = json!({
            "anthropic_version": "bedrock-2023-05-31",
            "max_tokens": 10,
            "messages": [{"role": "user", "content": "hi"}],
        });
        for (name, value) in changes.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    }

    fn problem_of(changes: &Value) -> Option<String> {
        problem(MODEL, body(changes).to_string().as_bytes(), true)
    }

    #[test]
    fn a_plain_body_is_taken() {
        assert_eq!(problem_of(&json!({})), None);
    }

    #[test]
    fn unknown_fields_flags_and_tools_are_refused_in_the_services_words() {
        for (changes, expected) in [
            (
                json!({"model": "x"}),
                "model: Extra inputs are not permitted",
            ),
            (
                json!({"stream": true}),
                "stream: Extra inputs are not permitted",
            ),
            (
                json!({"anthropic_version": "2023-06-01"}),
                "Invalid API version",
            ),
            (
                json!({"context_management": {}}),
                "context_management: Extra inputs are not permitted",
            ),
            (
                json!({"anthropic_beta": ["claude-code-20250219"]}),
                "invalid beta flag",
            ),
            (
                json!({"anthropic_beta": "x"}),
                "anthropic_beta: Input should be a valid list",
            ),
            (
                json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
                "tools.0: Input tag 'web_search_20250305' found using 'type' does not match any of the expected tags",
            ),
            (
                json!({"tools": [{"name": "a", "input_schema": {}, "defer_loading": true}]}),
                "tools.0.custom.defer_loading: Extra inputs are not permitted",
            ),
            (
                json!({"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "scope": "global"}}]}),
                "system.0.cache_control.ephemeral.scope: Extra inputs are not permitted",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}),
                "messages.0.content.0: text content blocks must be non-empty",
            ),
            (
                json!({"messages": [{"role": "user", "content": "a", "output_config": {"effort": "low"}}]}),
                "messages.0.output_config: Extra inputs are not permitted",
            ),
            (
                json!({"messages": [{"role": "user", "content": [{"type": "tool_addition"}]}]}),
                "messages.0.content.0: Input tag 'tool_addition' found using 'type' does not match any of the expected tags",
            ),
            (
                json!({"thinking": {"type": "adaptive", "display": "updates"}}),
                "thinking.adaptive.display: Input should be 'summarized' or 'omitted'",
            ),
        ] {
            assert_eq!(problem_of(&changes).as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_field_travels_with_its_beta() {
        let changes =
            json!({"context_management": {}, "anthropic_beta": ["context-management-2025-06-27"]});
        assert_eq!(problem_of(&changes), None);
        let changes = json!({
            "thinking": {"type": "adaptive", "display": "updates"},
            "anthropic_beta": ["thinking-display-updates-2026-08-18"],
        });
        assert_eq!(problem_of(&changes), None);
    }

    #[test]
    fn cache_markers_are_counted_and_ordered() {
        let text = |ttl: &str| json!({"type": "text", "text": "a", "cache_control": {"type": "ephemeral", "ttl": ttl}});
        let system =
            |ttls: &[&str]| json!({"system": ttls.iter().map(|ttl| text(ttl)).collect::<Vec<_>>()});
        assert_eq!(problem_of(&system(&["1h", "5m", "5m", "5m"])), None);
        assert!(
            problem_of(&system(&["5m"; 5]))
                .unwrap()
                .ends_with("Found 5.")
        );
        assert!(
            problem_of(&system(&["5m", "1h"]))
                .unwrap()
                .contains("must not come after")
        );
    }

    #[test]
    fn model_names_lose_region_provider_and_version() {
        assert_eq!(model_name(MODEL), "claude-sonnet-4-5-20250929");
        assert_eq!(
            model_name(
                "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-8"
            ),
            "claude-opus-4-8"
        );
        assert_eq!(
            model_name("us.amazon.nova-lite-v1:0"),
            "us.amazon.nova-lite"
        );
    }
}
