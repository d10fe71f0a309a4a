//! Token counts as the Messages API reports them.

use serde::{Deserialize, Serialize};

/// Tokens of one request by the classes that are priced apart. `input` excludes tokens read from or written to the cache,
/// as in the Messages API's `usage` and in Bedrock Converse's `inputTokens`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenUsage {
    /// Uncached input tokens.
    pub input: u64,
    /// Output tokens, thinking included.
    pub output: u64,
    /// Input tokens read from the prompt cache.
    pub cache_read: u64,
    /// Input tokens written to the five-minute cache; also those whose lifetime was not reported.
    pub cache_creation_5m: u64,
    /// Input tokens written to the one-hour cache.
    pub cache_creation_1h: u64,
}

impl TokenUsage {
    /// Input tokens written to the prompt cache, of either lifetime (`cache_creation_input_tokens`).
    pub const fn cache_creation(&self) -> u64 {
        self.cache_creation_5m
            .saturating_add(self.cache_creation_1h)
    }

    /// Whether nothing was used at all.
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}
