//! What the Messages API asks of content blocks, on the Plan and through `InvokeModel`, in its own words.

use serde_json::{Map, Value};

use super::conversation::blocks;

/// What is wrong with the blocks of a body's turns.
pub(crate) fn check(body: &Map<String, Value>) -> Result<(), String> {
    let turns = body.get("messages").and_then(Value::as_array);
    let turns = turns.map(Vec::as_slice).unwrap_or_default();
    for (index, turn) in turns.iter().enumerate() {
        for (block_index, block) in blocks(turn).iter().enumerate() {
            check_block(block)
                .map_err(|what| format!("messages.{index}.content.{block_index}{what}"))?;
        }
    }
    Ok(())
}

fn check_block(block: &Value) -> Result<(), String> {
    match block["type"].as_str() {
        Some("text")
            if block["text"]
                .as_str()
                .is_some_and(|text| text.trim().is_empty()) =>
        {
            Err(": text content blocks must contain non-whitespace text".to_owned())
        }
        Some("thinking") if block["signature"] == "" => {
            Err(": Invalid `signature` in `thinking` block".to_owned())
        }
        Some("tool_use") => check_id(".tool_use.id", &block["id"]),
        Some("tool_result") => check_id(".tool_result.tool_use_id", &block["tool_use_id"]),
        _ => Ok(()),
    }
}

fn check_id(field: &str, id: &Value) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    match id.as_str() {
        Some(id) if !id.is_empty() && id.bytes().all(allowed) => Ok(()),
        _ => Err(format!(
            "{field}: String should match pattern '^[a-zA-Z0-9_-]+$'"
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn problem(messages: &Value) -> Option<String> {
        let body = json!({"messages": messages});
        check(body.as_object().unwrap()).err()
    }

    #[test]
    fn what_cannot_be_replayed_is_named() {
        let user = |content: Value| json!({"role": "user", "content": content});
        let assistant = |content: Value| json!({"role": "assistant", "content": content});
        let call = |id: &str| json!({"type": "tool_use", "id": id, "name": "n", "input": {}});
        for (messages, words) in [
            (
                json!([user(json!([{"type": "text", "text": " "}]))]),
                "non-whitespace",
            ),
            (
                json!([assistant(
                    json!([{"type": "thinking", "thinking": "a", "signature": ""}])
                )]),
                "Invalid `signature`",
            ),
            (
                json!([assistant(json!([call("a:0")]))]),
                "tool_use.id: String should match",
            ),
        ] {
            let problem = problem(&messages).unwrap();
            assert!(problem.contains(words), "{problem}");
        }
    }
}
