//! What `InvokeModel` knows of turns, and of how thinking is shown in them.

use serde_json::{Map, Value};

use super::{bedrock_invoke::extra, conversation::blocks};

/// Types of content blocks that Bedrock knows.
const BLOCKS: [&str; 12] = [
    "document",
    "image",
    "redacted_thinking",
    "search_result",
    "server_tool_use",
    "text",
    "thinking",
    "tool_reference",
    "tool_result",
    "tool_search_tool_result",
    "tool_use",
    "compaction",
];

/// How thinking is shown: the newest way of it is known only with its beta flag.
pub(crate) fn check_thinking(body: &Map<String, Value>, betas: &[&str]) -> Result<(), String> {
    let Some(thinking) = body.get("thinking") else {
        return Ok(());
    };
    match (&thinking["display"], &thinking["type"]) {
        (Value::Null, _) => Ok(()),
        (Value::String(display), _) if ["summarized", "omitted"].contains(&display.as_str()) => {
            Ok(())
        }
        (Value::String(display), _)
            if display == "updates" && betas.contains(&"thinking-display-updates-2026-08-18") =>
        {
            Ok(())
        }
        (_, kind) => Err(format!(
            "thinking.{}.display: Input should be 'summarized' or 'omitted'",
            kind.as_str().unwrap_or("enabled")
        )),
    }
}

/// A message has its role and its content; blocks are of the types that Bedrock knows.
pub(crate) fn check_messages(body: &Map<String, Value>) -> Result<(), String> {
    let messages = body.get("messages").and_then(Value::as_array);
    for (index, message) in messages.into_iter().flatten().enumerate() {
        let fields = message.as_object().into_iter().flat_map(Map::keys);
        if let Some(field) = fields
            .into_iter()
            .find(|field| !["role", "content"].contains(&field.as_str()))
        {
            return Err(extra(&format!("messages.{index}.{field}")));
        }
        for (at, block) in blocks(message).iter().enumerate() {
            let kind = block["type"].as_str().unwrap_or_default();
            if !BLOCKS.contains(&kind) {
                return Err(format!(
                    "messages.{index}.content.{at}: Input tag '{kind}' found using 'type' does not match any of the expected tags"
                ));
            }
        }
    }
    Ok(())
}
