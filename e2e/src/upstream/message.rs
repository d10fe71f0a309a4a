//! The message that answers a request, before it is written in any wire format.

use serde_json::{Value, json};

use super::{
    received::Received,
    script::{Block, Script},
    usage::{Usage, output_tokens},
};

/// The echo is cut to this many characters.
const ECHO_CHARS: usize = 200;

/// A message with its numbers.
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) model: String,
    pub(crate) content: Vec<Block>,
    pub(crate) stop_reason: String,
    pub(crate) stop_sequence: Option<String>,
    pub(crate) start_usage: Usage,
    pub(crate) usage: Usage,
}

impl Message {
    pub(crate) fn new(id: String, model: String, request: &Received, script: &Script) -> Self {
        let content = content(request, script);
        let calls_tool = content
            .iter()
            .any(|block| matches!(block, Block::ToolUse { .. }));
        let usage = script.usage.unwrap_or_else(|| Usage {
            input_tokens: request.prompt.input_tokens,
            output_tokens: output_tokens(&content),
            ..Usage::default()
        });
        Self {
            id,
            model,
            stop_reason: script
                .stop_reason
                .clone()
                .unwrap_or_else(|| if calls_tool { "tool_use" } else { "end_turn" }.to_owned()),
            stop_sequence: script.stop_sequence.clone(),
            start_usage: script.start_usage.unwrap_or(Usage {
                output_tokens: 1,
                ..usage
            }),
            usage,
            content,
        }
    }

    /// The whole message in the Messages API's form.
    pub(crate) fn messages_json(&self) -> Value {
        json!({
            "model": self.model,
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "content": self.content,
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "usage": self.usage.messages_json(),
        })
    }
}

fn content(request: &Received, script: &Script) -> Vec<Block> {
    if let Some(content) = &script.content {
        return content.clone();
    }
    let text = match (&script.text, script.text_bytes) {
        (Some(text), _) => text.clone(),
        (None, Some(size)) => filler(size),
        (None, None) => {
            let echo: String = request
                .prompt
                .last_user_text
                .chars()
                .take(ECHO_CHARS)
                .collect();
            format!("Echo: {echo}")
        }
    };
    vec![Block::Text { text }]
}

fn filler(size: usize) -> String {
    const WORDS: &str = "The quick brown fox jumps over the lazy dog. ";
    let mut text = WORDS.repeat(size.div_ceil(WORDS.len()));
    text.truncate(size);
    text
}
