//! What the Messages API asks of a conversation, on the Plan and in `InvokeModel` alike, in the service's words: every call
//! has its result, and thinking comes back as it was said, where it was said.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::thinking_rules;

/// How many turns bring results of tools back, in either request format.
pub(crate) fn rounds(messages: &[Value]) -> usize {
    messages
        .iter()
        .filter(|message| {
            message["role"] == "user"
                && blocks(message).iter().any(|block| {
                    block["type"] == "tool_result" || block.get("toolResult").is_some()
                })
        })
        .count()
}

/// The content blocks of a message; none of one that is a mere string.
pub(crate) fn blocks(message: &Value) -> &[Value] {
    message["content"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// What is wrong with the messages of a body.
///
/// Sources: the API's own errors as clients quote them; "Building with extended thinking", its sections on preserving
/// thinking blocks.
pub(crate) fn check(body: &Map<String, Value>, trusts_foreign: bool) -> Result<(), String> {
    let messages = body
        .get("messages")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    check_roles(messages)?;
    check_tools(messages)?;
    for (index, message) in messages.iter().enumerate() {
        if message["role"] == "assistant" {
            thinking_rules::check(index, blocks(message), trusts_foreign)?;
        }
    }
    if body
        .get("thinking")
        .is_some_and(|thinking| thinking["type"] == "enabled")
    {
        check_opening(messages)?;
    }
    Ok(())
}

fn check_roles(messages: &[Value]) -> Result<(), String> {
    let known = ["user", "assistant", "system"];
    let is_known = |message: &Value| {
        message["role"]
            .as_str()
            .is_some_and(|role| known.contains(&role))
    };
    match messages.iter().position(|message| !is_known(message)) {
        None => Ok(()),
        Some(index) => Err(format!(
            "messages.{index}.role: Input should be 'user', 'assistant' or 'system'"
        )),
    }
}

/// Calls and results in pairs. Turns of one role that follow one another are one turn.
fn check_tools(messages: &[Value]) -> Result<(), String> {
    let mut seen = HashSet::new();
    // Calls that wait for their results, and the message that made the last of them.
    let mut open: Vec<&str> = Vec::new();
    let mut called_at = 0;
    let mut turn = "";
    for (index, message) in messages.iter().enumerate() {
        let role = message["role"].as_str().unwrap_or_default();
        if role == "system" {
            continue;
        }
        if role == "assistant" && turn == "user" {
            all_answered(&open, called_at)?;
        }
        turn = role;
        for (at, block) in blocks(message).iter().enumerate() {
            match block["type"].as_str() {
                Some("tool_use") => {
                    let id = block["id"].as_str().unwrap_or_default();
                    if !seen.insert(id) {
                        return Err("messages: `tool_use` ids must be unique".to_owned());
                    }
                    open.push(id);
                    called_at = index;
                }
                Some("tool_result") => {
                    let id = block["tool_use_id"].as_str().unwrap_or_default();
                    let Some(called) = open.iter().position(|open| *open == id) else {
                        return Err(format!(
                            "messages.{index}.content.{at}: unexpected `tool_use_id` found in `tool_result` blocks: {id}. Each `tool_result` block must have a corresponding `tool_use` block in the previous message."
                        ));
                    };
                    open.swap_remove(called);
                }
                _ => {}
            }
        }
    }
    if turn == "user" {
        all_answered(&open, called_at)?;
    }
    Ok(())
}

/// After the user's turn no call may be left without its result.
fn all_answered(open: &[&str], called_at: usize) -> Result<(), String> {
    if open.is_empty() {
        return Ok(());
    }
    Err(format!(
        "messages.{called_at}: `tool_use` ids were found without `tool_result` blocks immediately after: {}. Each `tool_use` block must have a corresponding `tool_result` block in the next message.",
        open.join(", ")
    ))
}

/// With `thinking: enabled` the last answer that called tools begins with thinking.
fn check_opening(messages: &[Value]) -> Result<(), String> {
    let last = messages
        .iter()
        .enumerate()
        .rev()
        .find(|(_, message)| message["role"] == "assistant");
    let Some((index, message)) = last else {
        return Ok(());
    };
    let kind = |block: &Value| block["type"].as_str().unwrap_or_default().to_owned();
    let content = blocks(message);
    let calls = content.iter().any(|block| block["type"] == "tool_use");
    match content.first().map(kind) {
        Some(first) if calls && !["thinking", "redacted_thinking"].contains(&first.as_str()) => {
            Err(format!(
                "messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found `{first}`. When `thinking` is enabled, a final `assistant` message must start with a thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
            ))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::signature;
    use super::*;

    fn problem(messages: &Value) -> Option<String> {
        let body = json!({"thinking": {"type": "enabled"}, "messages": messages});
        check(body.as_object().unwrap(), false).err()
    }

    fn thinking(place: usize, text: &str) -> Value {
        json!({"type": "thinking", "thinking": text, "signature": signature::sign(place, text)})
    }

    fn call(id: &str) -> Value {
        json!({"type": "tool_use", "id": id, "name": "look", "input": {}})
    }

    fn result(id: &str) -> Value {
        json!({"type": "tool_result", "tool_use_id": id, "content": "seen"})
    }

    fn user(content: &Value) -> Value {
        json!({"role": "user", "content": content})
    }

    fn assistant(content: &Value) -> Value {
        json!({"role": "assistant", "content": content})
    }

    #[test]
    fn a_conversation_as_it_happened_is_taken() {
        let unseen = json!({"type": "redacted_thinking", "data": signature::redact(2, "b")});
        let messages = json!([
            user(&json!("hi")),
            {"role": "system", "content": "by the way"},
            assistant(&json!([thinking(0, "a"), call("1"), unseen, call("2")])),
            user(&json!([result("2"), result("1")])),
            {"role": "system", "content": "and now"},
            assistant(&json!([thinking(0, "c"), {"type": "text", "text": "x"}, call("3")])),
            user(&json!([result("3"), {"type": "text", "text": "go on"}])),
        ]);
        assert_eq!(problem(&messages), None);
        assert_eq!(rounds(messages.as_array().unwrap()), 2);
    }

    #[test]
    fn turns_of_one_role_are_one_turn() {
        let messages = json!([
            user(&json!("hi")),
            assistant(&json!([thinking(0, "a"), call("1")])),
            assistant(&json!([call("2")])),
            user(&json!([result("1"), result("2")])),
        ]);
        let adaptive = json!({"thinking": {"type": "adaptive"}, "messages": messages});
        assert_eq!(check(adaptive.as_object().unwrap(), false), Ok(()));
    }

    #[test]
    fn thinking_that_is_not_as_it_was_is_refused() {
        let mut unsigned = thinking(0, "a");
        unsigned.as_object_mut().unwrap().remove("signature");
        let mut altered = thinking(0, "a");
        altered["thinking"] = json!("b");
        let mut foreign = thinking(0, "a");
        foreign["signature"] = json!("c2ln");
        for (content, expected) in [
            (
                json!([unsigned, call("1")]),
                "messages.1.content.0.thinking.signature: Field required",
            ),
            (
                json!([altered, call("1")]),
                "messages.1.content.0: Invalid `signature` in `thinking` block",
            ),
            (json!([foreign, call("1")]), "Invalid `signature`"),
            (
                json!([thinking(0, "a"), thinking(2, "b"), call("1")]),
                "messages.1.content.1: `thinking` or `redacted_thinking` blocks in the latest assistant message cannot be modified",
            ),
            (
                json!([thinking(2, "b"), thinking(0, "a"), call("1")]),
                "cannot be modified",
            ),
            (
                json!([call("1")]),
                "messages.1.content.0.type: Expected `thinking` or `redacted_thinking`, but found `tool_use`",
            ),
            (
                json!([thinking(0, "a"), {"type": "redacted_thinking", "data": "x"}, call("1")]),
                "Invalid `data` in `redacted_thinking` block",
            ),
        ] {
            let messages = json!([
                user(&json!("hi")),
                assistant(&content),
                user(&json!([result("1")]))
            ]);
            let problem = problem(&messages).unwrap();
            assert!(problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn calls_and_results_that_do_not_pair_are_refused() {
        let ask = user(&json!("hi"));
        let called = assistant(&json!([thinking(0, "a"), call("1")]));
        for (messages, expected) in [
            (
                json!([ask, called, ask]),
                "messages.1: `tool_use` ids were found without `tool_result` blocks immediately after: 1.",
            ),
            (
                json!([user(&json!([result("1")]))]),
                "messages.0.content.0: unexpected `tool_use_id` found in `tool_result` blocks: 1.",
            ),
            (
                json!([ask, called, user(&json!([result("1"), result("1")]))]),
                "messages.2.content.1: unexpected `tool_use_id`",
            ),
            (
                json!([
                    ask,
                    called,
                    user(&json!([result("1")])),
                    called,
                    user(&json!([result("1")]))
                ]),
                "ids must be unique",
            ),
            (
                json!([{"role": "tool", "content": "x"}]),
                "messages.0.role: Input should be",
            ),
        ] {
            let problem = problem(&messages).unwrap();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
