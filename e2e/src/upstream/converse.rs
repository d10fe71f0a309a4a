//! Converse: the form of its answers.

use serde_json::{Value, json};

use super::{message::Message, script::Block};

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
