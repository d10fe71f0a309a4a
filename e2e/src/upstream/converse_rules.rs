//! Converse: what it takes, by the service model and by the rules that the service has on top.

use std::collections::HashSet;

use serde_json::Value;

use super::{
    converse_blocks::check_block,
    converse_fields::{check_members, check_model_fields, list},
    thinking_rules,
};

const MAX_CACHE_POINTS: usize = 4;

/// What is wrong with a body for a model, much in the service's words.
pub(crate) fn problem(model: &str, body: &[u8], trusts_foreign: bool) -> Option<String> {
    let Ok(body) = serde_json::from_slice::<Value>(body) else {
        return Some("The request body is not valid JSON.".to_owned());
    };
    let is_claude = model.contains("anthropic.") || model.starts_with("arn:");
    check_members(&body)
        .and_then(|()| check_messages(&body, is_claude))
        .and_then(|()| thinking_rules::check_reasoning(list(&body, "messages"), trusts_foreign))
        .and_then(|()| check_system(&body))
        .and_then(|()| check_tools(&body))
        .and_then(|()| check_cache_points(&body))
        .and_then(|()| check_model_fields(&body, is_claude))
        .err()
}

fn check_messages(body: &Value, is_claude: bool) -> Result<(), String> {
    let messages = list(body, "messages");
    if messages.is_empty() {
        return Err("A conversation must start with a user message. Try again with a conversation that starts with a user message.".to_owned());
    }
    let mut previous = None;
    let mut documents = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"]
            .as_str()
            .filter(|role| ["user", "assistant"].contains(role));
        let role = role.ok_or_else(|| {
            format!("Value at 'messages.{index}.role' failed to satisfy constraint: Member must satisfy enum value set: [user, assistant]")
        })?;
        if previous.is_none() && role == "assistant" && !is_claude {
            return Err("A conversation must start with a user message. Try again with a conversation that starts with a user message.".to_owned());
        }
        if previous == Some(role) {
            return Err("A conversation must alternate between user and assistant roles. Make sure the conversation alternates between user and assistant roles and try again.".to_owned());
        }
        previous = Some(role);
        check_message(index, message, role, is_claude)?;
        check_document_names(message, &mut documents)?;
        check_tool_results(index, message, messages.get(index + 1))?;
    }
    Ok(())
}

fn check_message(index: usize, message: &Value, role: &str, is_claude: bool) -> Result<(), String> {
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
            _ => check_block(&place, kind, &block[kind], is_claude)?,
        }
        previous = kind;
    }
    Ok(())
}

/// Each name once in a request, in results too.
fn check_document_names(message: &Value, seen: &mut HashSet<String>) -> Result<(), String> {
    let content = list(message, "content");
    let inner = content
        .iter()
        .flat_map(|block| list(&block["toolResult"], "content"));
    for block in content.iter().chain(inner) {
        if let Some(name) = block["document"]["name"].as_str()
            && !seen.insert(name.to_lowercase())
        {
            return Err(format!(
                "Document names must be unique, found {name} twice."
            ));
        }
    }
    Ok(())
}

fn check_system(body: &Value) -> Result<(), String> {
    let mut previous = "";
    for (index, block) in list(body, "system").iter().enumerate() {
        let place = format!("system.{index}");
        if let Some(text) = block["text"].as_str() {
            if text.trim().is_empty() {
                return Err(format!("The text field at {place} is blank."));
            }
            previous = "text";
        } else if block.get("cachePoint").is_some() {
            if previous != "text" {
                return Err(format!("{place}: cachePoint cannot be inserted here."));
            }
            check_block(&place, "cachePoint", &block["cachePoint"], true)?;
            previous = "cachePoint";
        } else {
            return Err(format!("{place}: unknown member"));
        }
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
    if body.get("toolConfig").is_some() && tools.is_empty() {
        return Err("toolConfig.tools must have at least one member".to_owned());
    }
    for (index, tool) in tools.iter().enumerate() {
        let Some(name) = tool["toolSpec"]["name"].as_str() else {
            if index == 0 || tool.get("cachePoint").is_none() {
                return Err(format!("toolConfig.tools.{index}: no tool"));
            }
            continue;
        };
        if tool["toolSpec"]["description"] == ""
            || !tool["toolSpec"]["inputSchema"]["json"].is_object()
        {
            return Err(format!(
                "toolConfig.tools.{index}.toolSpec: empty description or no schema"
            ));
        }
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
    let live_an_hour: Vec<bool> = list(&body["toolConfig"], "tools")
        .iter()
        .chain(list(body, "system"))
        .chain(content)
        .filter_map(|block| block.get("cachePoint"))
        .map(|point| point["ttl"] == "1h")
        .collect();
    let points = live_an_hour.len();
    if points > MAX_CACHE_POINTS {
        return Err(format!(
            "A maximum of {MAX_CACHE_POINTS} cachePoint blocks may be provided. Found {points}."
        ));
    }
    if live_an_hour.is_sorted_by_key(|lives_an_hour| !lives_an_hour) {
        Ok(())
    } else {
        Err("a cachePoint with ttl 1h must not come after one with ttl 5m".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

    fn problem_of(body: &Value) -> Option<String> {
        problem(CLAUDE, body.to_string().as_bytes(), true)
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
            (json!({"messages": [hi], "model": "x"}), "no such member"),
            (
                json!({"messages": [user(&json!([{"document": {"name": "a.b", "format": "pdf", "source": {"bytes": "UERG"}}}]))]}),
                "document name",
            ),
            (
                json!({"messages": [hi, {"role": "assistant", "content": [{"reasoningContent": {"reasoningText": {"text": "a"}}}]}]}),
                "signature",
            ),
            (
                json!({"messages": [hi], "additionalModelRequestFields": {"anthropic_beta": ["new"]}}),
                "invalid beta flag",
            ),
            (
                json!({"messages": [hi], "system": [{"text": "a"}, point, {"text": "b"}, {"cachePoint": {"type": "default", "ttl": "1h"}}]}),
                "must not come after",
            ),
            (
                json!({"messages": [user(&json!([point]))]}),
                "cachePoint cannot be inserted",
            ),
            (
                json!({"messages": [user(&json!([{"text": "a"}, point, {"text": "a"}, point, {"text": "a"}, point, {"text": "a"}, point, {"text": "a"}, point]))]}),
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
                json!({"messages": [user(&json!([{"toolResult": {"toolUseId": "t1", "content": []}}]))]}),
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
