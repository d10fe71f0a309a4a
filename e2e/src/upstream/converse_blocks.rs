//! Content blocks of Converse: what the service model and the models say of them.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

const IMAGE_FORMATS: [&str; 4] = ["png", "jpeg", "gif", "webp"];
const DOCUMENT_FORMATS: [&str; 9] = [
    "pdf", "csv", "doc", "docx", "xls", "xlsx", "html", "txt", "md",
];

/// What is wrong with the block of this kind.
pub(crate) fn check_block(
    place: &str,
    kind: &str,
    block: &Value,
    is_claude: bool,
) -> Result<(), String> {
    match kind {
        "text" | "searchResult" | "citationsContent" | "guardContent" => Ok(()),
        "image" => {
            one_of(place, &block["format"], &IMAGE_FORMATS)?;
            bytes(place, &block["source"]["bytes"]).map(drop)
        }
        "document" => check_document(place, block),
        "cachePoint" => match (&block["type"], block.get("ttl").and_then(Value::as_str)) {
            (kind, None | Some("5m" | "1h")) if kind == "default" => Ok(()),
            _ => Err(format!("{place}.cachePoint: unknown type or ttl")),
        },
        "toolUse" => {
            id(place, &block["toolUseId"])?;
            if block["input"].is_object() {
                Ok(())
            } else {
                Err(format!("{place}.toolUse.input: Input should be a valid dictionary"))
            }
        }
        "toolResult" => check_result(place, block, is_claude),
        "reasoningContent" if is_claude => check_reasoning(place, block),
        "reasoningContent" => Err(
            "This model doesn't support the reasoningContent field. Remove reasoningContent and try again."
                .to_owned(),
        ),
        _ => Err(format!("{place}: {kind} is no member of ContentBlock")),
    }
}

fn check_document(place: &str, block: &Value) -> Result<(), String> {
    let name = block["name"].as_str().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || " -_()[]".contains(c);
    let is_name = (1..=200).contains(&name.len()) && name.chars().all(allowed);
    if !is_name || name.contains("  ") {
        return Err(format!("{place}: invalid document name {name}"));
    }
    one_of(place, &block["format"], &DOCUMENT_FORMATS)?;
    if ["content", "text"]
        .iter()
        .any(|kind| block["source"].get(kind).is_some())
    {
        return Ok(());
    }
    bytes(place, &block["source"]["bytes"]).map(drop)
}

fn check_result(place: &str, block: &Value, is_claude: bool) -> Result<(), String> {
    id(place, &block["toolUseId"])?;
    let content = block["content"]
        .as_array()
        .ok_or_else(|| format!("{place}.toolResult.content: required"))?;
    for (index, item) in content.iter().enumerate() {
        let place = format!("{place}.toolResult.content.{index}");
        let kind = match item
            .as_object()
            .map(|members| members.keys().collect::<Vec<_>>())
        {
            Some(kinds) if kinds.len() == 1 => kinds[0].clone(),
            _ => return Err(format!("{place}: must set exactly one member")),
        };
        match kind.as_str() {
            "text"
                if item["text"]
                    .as_str()
                    .is_none_or(|text| text.trim().is_empty()) =>
            {
                return Err(format!("{place}: the text field is blank"));
            }
            "json" => {}
            "text" | "image" | "document" | "searchResult" => {
                check_block(&place, &kind, &item[&kind], is_claude)?;
            }
            _ => {
                return Err(format!(
                    "{place}: {kind} is no member of ToolResultContentBlock"
                ));
            }
        }
    }
    match block.get("status").map(Value::as_str) {
        None | Some(Some("success" | "error")) => Ok(()),
        _ => Err(format!("{place}.toolResult.status: unknown")),
    }
}

/// What is replayed to Claude was Claude's: signed, and for redacted thinking base64 of base64.
fn check_reasoning(place: &str, block: &Value) -> Result<(), String> {
    if let Some(redacted) = block.get("redactedContent") {
        let inner = bytes(place, redacted)?;
        return match BASE64_STANDARD.decode(inner) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "The model returned the following errors: {place}: Invalid `data` in `redacted_thinking` block"
            )),
        };
    }
    let text = &block["reasoningText"];
    if text["text"].is_string()
        && text["signature"]
            .as_str()
            .is_some_and(|signature| !signature.is_empty())
    {
        Ok(())
    } else {
        Err(format!(
            "The model returned the following errors: {place}: Invalid `signature` in `thinking` block"
        ))
    }
}

fn id(place: &str, id: &Value) -> Result<(), String> {
    let id = id.as_str().unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    if (1..=64).contains(&id.len()) && id.bytes().all(allowed) {
        Ok(())
    } else {
        Err(format!(
            "{place}.toolUseId: failed to satisfy constraint: [a-zA-Z0-9_.:-]+"
        ))
    }
}

fn one_of(place: &str, value: &Value, known: &[&str]) -> Result<(), String> {
    if value.as_str().is_some_and(|value| known.contains(&value)) {
        Ok(())
    } else {
        Err(format!("{place}: {value} is none of {known:?}"))
    }
}

fn bytes(place: &str, value: &Value) -> Result<Vec<u8>, String> {
    let decoded = value
        .as_str()
        .and_then(|text| BASE64_STANDARD.decode(text).ok());
    match decoded {
        Some(bytes) if !bytes.is_empty() => Ok(bytes),
        _ => Err(format!("{place}: not base64, or empty")),
    }
}
