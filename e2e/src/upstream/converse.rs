//! Converse: the rules of its requests and the form of its answers.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::{
    message::Message,
    script::Block,
    signature::{self, Verdict},
};

const MAX_CACHE_POINTS: usize = 4;

/// What is wrong with a body, much in the service's words.
pub(crate) fn problem(body: &[u8], trusts_foreign: bool) -> Option<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Some("The request body is not valid JSON.".to_owned());
    };
    check_messages(&body)
        .and_then(|()| check_reasoning(&body, trusts_foreign))
        .and_then(|()| check_tools(&body))
        .and_then(|()| check_cache_points(&body))
        .err()
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

fn check_messages(body: &Value) -> Result<(), String> {
    let messages = list(body, "messages");
    if messages.is_empty() {
        return Err("A conversation must start with a user message. Try again with a conversation that starts with a user message.".to_owned());
    }
    let mut previous = None;
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"]
            .as_str()
            .filter(|role| ["user", "assistant"].contains(role));
        let role = role.ok_or_else(|| {
            format!("Value at 'messages.{index}.role' failed to satisfy constraint: Member must satisfy enum value set: [user, assistant]")
        })?;
        if previous == Some(role) {
            return Err("A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.".to_owned());
        }
        previous = Some(role);
        check_message(index, message, role)?;
        check_tool_results(index, message, messages.get(index + 1))?;
    }
    Ok(())
}

fn check_message(index: usize, message: &Value, role: &str) -> Result<(), String> {
    let content = list(message, "content");
    if content.is_empty() {
        return Err(format!(
            "The content field in the Message object at messages.{index} is empty. Add a ContentBlock object to the content field and try again."
        ));
    }
    let mut previous = "";
    for (block_index, block) in content.iter().enumerate() {
        let place = format!("messages.{index}.content.{block_index}");
        let kind = match block
            .as_object()
            .map(|fields| fields.keys().collect::<Vec<_>>())
            .as_deref()
        {
            Some([kind]) => kind.as_str(),
            _ => {
                return Err(format!(
                    "The ContentBlock object at {place} must set exactly one member."
                ));
            }
        };
        match kind {
            "text"
                if block["text"]
                    .as_str()
                    .is_none_or(|text| text.trim().is_empty()) =>
            {
                return Err(format!(
                    "The text field in the ContentBlock object at {place} is blank. Add text to the text field, and try again."
                ));
            }
            "toolUse" if role != "assistant" => {
                return Err(format!(
                    "{place}: toolUse is not allowed in a user message."
                ));
            }
            "toolResult" if role != "user" => {
                return Err(format!(
                    "{place}: toolResult is not allowed in an assistant message."
                ));
            }
            "cachePoint"
                if ["", "cachePoint", "reasoningContent", "document", "video"]
                    .contains(&previous) =>
            {
                return Err(format!(
                    "{place}: cachePoint cannot be inserted after {previous} block."
                ));
            }
            _ => {}
        }
        previous = kind;
    }
    Ok(())
}

/// The turn after tool calls answers exactly these.
fn check_tool_results(index: usize, message: &Value, next: Option<&Value>) -> Result<(), String> {
    let calls = ids(message, "toolUse");
    let Some(next) = next.filter(|_| !calls.is_empty()) else {
        return Ok(());
    };
    let results: HashSet<_> = ids(next, "toolResult").into_iter().collect();
    let missing: Vec<_> = calls
        .iter()
        .filter(|id| !results.contains(*id))
        .copied()
        .collect();
    if missing.is_empty() && results.len() == calls.len() {
        Ok(())
    } else {
        Err(format!(
            "Expected toolResult blocks at messages.{}.content for the following Ids: {}",
            index + 1,
            missing.join(", ")
        ))
    }
}

/// Reasoning that was signed comes back as it was, where it was: cache points do not count.
fn check_reasoning(body: &Value, trusts_foreign: bool) -> Result<(), String> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    for (index, message) in list(body, "messages").iter().enumerate() {
        let blocks = list(message, "content")
            .iter()
            .filter(|block| block.get("cachePoint").is_none());
        for (at, block) in blocks.enumerate() {
            let Some(reasoning) = block.get("reasoningContent") else {
                continue;
            };
            let text = &reasoning["reasoningText"];
            let (verdict, member) =
                match (text["signature"].as_str(), &reasoning["redactedContent"]) {
                    (Some(signature), _) => {
                        let thinking = text["text"].as_str().unwrap_or_default();
                        (signature::verify(thinking, signature), "signature")
                    }
                    (None, Value::String(data)) => {
                        let data = BASE64_STANDARD.decode(data).ok();
                        let data = data.and_then(|data| String::from_utf8(data).ok());
                        (
                            signature::verify_redacted(&data.unwrap_or_default()),
                            "data",
                        )
                    }
                    // Models other than Claude do not sign.
                    (None, _) if trusts_foreign => continue,
                    (None, _) => {
                        return Err(format!(
                            "messages.{index}.content.{at}.thinking.signature: Field required"
                        ));
                    }
                };
            match verdict {
                Verdict::Genuine { place } if place == at => {}
                Verdict::Foreign if trusts_foreign => {}
                Verdict::Genuine { .. } => {
                    return Err(format!(
                        "messages.{index}.content.{at}: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified. These blocks must remain as they were in the original response."
                    ));
                }
                Verdict::Foreign | Verdict::Altered => {
                    return Err(format!(
                        "messages.{index}.content.{at}: Invalid `{member}` in `thinking` block"
                    ));
                }
            }
        }
    }
    Ok(())
}

fn ids<'a>(message: &'a Value, kind: &str) -> Vec<&'a str> {
    list(message, "content")
        .iter()
        .filter_map(|block| block[kind]["toolUseId"].as_str())
        .collect()
}

fn check_tools(body: &Value) -> Result<(), String> {
    let tools = list(&body["toolConfig"], "tools");
    let uses_tools = list(body, "messages")
        .iter()
        .flat_map(|message| list(message, "content"))
        .any(|block| block.get("toolUse").is_some() || block.get("toolResult").is_some());
    if uses_tools && tools.is_empty() {
        return Err("The toolConfig field must be defined when using toolUse and toolResult content blocks.".to_owned());
    }
    let mut names = HashSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let Some(name) = tool["toolSpec"]["name"].as_str() else {
            continue;
        };
        let valid = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
        if name.is_empty() || name.len() > 64 || !valid {
            return Err(format!(
                "Value '{name}' at 'toolConfig.tools.{}.member.toolSpec.name' failed to satisfy constraint: Member must have length less than or equal to 64 and satisfy regular expression pattern: [a-zA-Z0-9_-]+",
                index + 1
            ));
        }
        if !names.insert(name) {
            return Err(format!(
                "The toolConfig.tools field contains the duplicate tool name {name}."
            ));
        }
    }
    match body["toolConfig"]["toolChoice"]["tool"]["name"].as_str() {
        Some(choice) if !names.contains(choice) => Err(format!(
            "The toolChoice names the tool {choice}, which toolConfig.tools does not have."
        )),
        _ => Ok(()),
    }
}

fn check_cache_points(body: &Value) -> Result<(), String> {
    let content = list(body, "messages")
        .iter()
        .flat_map(|message| list(message, "content"));
    let points = content
        .chain(list(body, "system"))
        .chain(list(&body["toolConfig"], "tools"))
        .filter(|block| block.get("cachePoint").is_some())
        .count();
    if points > MAX_CACHE_POINTS {
        return Err(format!(
            "A maximum of {MAX_CACHE_POINTS} cachePoint blocks may be provided. Found {points}."
        ));
    }
    Ok(())
}

/// The answer that does not stream.
pub(crate) fn answer(message: &Message, latency_ms: u64) -> Value {
    let content: Vec<Value> = message.content.iter().filter_map(block).collect();
    let mut answer = json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": message.stop_reason,
        "usage": message.usage.converse_json(),
        "metrics": {"latencyMs": latency_ms},
    });
    if let Some(sequence) = &message.stop_sequence {
        answer["additionalModelResponseFields"] = json!({"stop_sequence": sequence});
    }
    answer
}

fn block(block: &Block) -> Option<Value> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    match block {
        Block::Text { text } => Some(json!({"text": text})),
        Block::Thinking {
            thinking,
            signature,
        } => Some(
            json!({"reasoningContent": {"reasoningText": {"text": thinking, "signature": signature}}}),
        ),
        // The wire carries base64 of what the Messages API already gives as base64.
        Block::RedactedThinking { data } => {
            Some(json!({"reasoningContent": {"redactedContent": BASE64_STANDARD.encode(data)}}))
        }
        Block::ToolUse { id, name, input } => {
            Some(json!({"toolUse": {"toolUseId": id, "name": name, "input": input}}))
        }
        Block::Other(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem_of(body: &Value) -> Option<String> {
        problem(body.to_string().as_bytes(), true)
    }

    fn user(content: &Value) -> Value {
        json!({"role": "user", "content": content})
    }

    #[test]
    fn a_tool_round_is_taken() {
        let body = json!({
            "messages": [
                user(&json!([{"text": "hi"}, {"cachePoint": {"type": "default"}}])),
                {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "look", "input": {}}}]},
                user(&json!([{"toolResult": {"toolUseId": "t1", "content": []}}])),
            ],
            "toolConfig": {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {}}}}]},
        });
        assert_eq!(problem_of(&body), None);
    }

    #[test]
    fn what_the_service_refuses_is_refused() {
        let hi = user(&json!([{"text": "hi"}]));
        let tool = |name: &str| json!({"toolSpec": {"name": name, "inputSchema": {"json": {}}}});
        let point = json!({"cachePoint": {"type": "default"}});
        for (body, expected) in [
            (json!({"messages": []}), "must start with a user message"),
            (json!({"messages": [hi, hi]}), "must alternate"),
            (
                json!({"messages": [user(&json!([{"text": " "}]))]}),
                "messages.0.content.0 is blank",
            ),
            (json!({"messages": [user(&json!([]))]}), "is empty"),
            (
                json!({"messages": [user(&json!([point]))]}),
                "cachePoint cannot be inserted",
            ),
            (
                json!({"messages": [hi], "system": [point, point, point, point, point]}),
                "Found 5",
            ),
            (
                json!({"messages": [hi], "toolConfig": {"tools": [tool(&"a".repeat(65))]}}),
                "less than or equal to 64",
            ),
            (
                json!({"messages": [hi], "toolConfig": {"tools": [tool("a"), tool("a")]}}),
                "duplicate tool name",
            ),
            (
                json!({"messages": [user(&json!([{"toolResult": {"toolUseId": "t1"}}]))]}),
                "toolConfig field must be defined",
            ),
            (
                json!({"messages": [
                    hi, {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "a", "input": {}}}]}, hi,
                ]}),
                "Expected toolResult blocks at messages.2.content for the following Ids: t1",
            ),
        ] {
            let problem = problem_of(&body).unwrap();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
