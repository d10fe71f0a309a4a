//! The numbers an answer reports, and how they come about when nothing scripts them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::script::Block;

/// Token counts. The input excludes what was read from or written to the cache.
///
/// Where nothing scripts them: input is one token per four bytes of the request's `messages`, `system`, `tools` and
/// `toolConfig` as they were sent, rounded up; output one token per four characters of what was generated, rounded up
/// per block, at least one; nothing touches the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Usage {
    /// Input tokens that touched no cache.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// Input tokens read from the cache.
    pub cache_read_input_tokens: u64,
    /// Input tokens written to the cache for five minutes.
    pub cache_creation_5m_input_tokens: u64,
    /// Input tokens written to the cache for an hour.
    pub cache_creation_1h_input_tokens: u64,
}

impl Usage {
    /// All tokens written to the cache.
    pub fn cache_creation_input_tokens(&self) -> u64 {
        self.cache_creation_5m_input_tokens + self.cache_creation_1h_input_tokens
    }

    /// As `message.usage` of the Messages API.
    pub(crate) fn messages_json(&self) -> Value {
        json!({
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_creation_input_tokens(),
            "cache_read_input_tokens": self.cache_read_input_tokens,
            "cache_creation": {
                "ephemeral_5m_input_tokens": self.cache_creation_5m_input_tokens,
                "ephemeral_1h_input_tokens": self.cache_creation_1h_input_tokens,
            },
            "output_tokens": self.output_tokens,
            "service_tier": "standard",
        })
    }

    /// As `usage` of a stream's `message_delta`.
    pub(crate) fn delta_json(&self) -> Value {
        json!({
            "input_tokens": self.input_tokens,
            "cache_creation_input_tokens": self.cache_creation_input_tokens(),
            "cache_read_input_tokens": self.cache_read_input_tokens,
            "output_tokens": self.output_tokens,
        })
    }

    /// As Converse's `usage`.
    pub(crate) fn converse_json(&self) -> Value {
        let written = self.cache_creation_input_tokens();
        let mut usage = json!({
            "inputTokens": self.input_tokens,
            "outputTokens": self.output_tokens,
            "totalTokens": self.input_tokens + self.output_tokens + self.cache_read_input_tokens + written,
            "cacheReadInputTokens": self.cache_read_input_tokens,
            "cacheWriteInputTokens": written,
        });
        if written > 0 {
            usage["cacheDetails"] = [
                ("5m", self.cache_creation_5m_input_tokens),
                ("1h", self.cache_creation_1h_input_tokens),
            ]
            .into_iter()
            .filter(|(_, tokens)| *tokens > 0)
            .map(|(ttl, tokens)| json!({"ttl": ttl, "inputTokens": tokens}))
            .collect();
        }
        usage
    }
}

/// Output tokens of generated blocks.
pub(crate) fn output_tokens(content: &[Block]) -> u64 {
    let tokens: usize = content
        .iter()
        .map(|block| match block {
            Block::Text { text } => text.chars().count(),
            Block::Thinking { thinking, .. } => thinking.chars().count(),
            Block::RedactedThinking { data } => data.len(),
            Block::ToolUse { name, input, .. } => name.len() + input.to_string().len(),
            Block::Other(value) => value.to_string().len(),
        })
        .map(|size| size.div_ceil(4))
        .sum();
    tokens.max(1) as u64
}

/// Input tokens of so many bytes of prompt.
pub(crate) fn input_tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}
