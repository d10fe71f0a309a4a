//! A scripted message: its content, its numbers, its pace and what goes wrong while it is sent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::usage::Usage;

/// A message on command. Everything left out is derived from the request: the text is `Echo: ` and the last user text,
/// the numbers are counted as [`Usage`] says.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// The answer's text; shorthand for one text block.
    pub text: Option<String>,
    /// An answer of this many ASCII characters; shorthand for big answers.
    pub text_bytes: Option<usize>,
    /// All content blocks, in order; wins over `text` and `text_bytes`.
    pub content: Option<Vec<Block>>,
    /// `end_turn`, or `tool_use` where a tool is called, when left out.
    pub stop_reason: Option<String>,
    /// The stop sequence met.
    pub stop_sequence: Option<String>,
    /// The numbers reported at the end.
    pub usage: Option<Usage>,
    /// The numbers of a stream's `message_start`, where they differ: input as in `usage` and one output token when left out.
    pub start_usage: Option<Usage>,
    /// Characters per delta; 16 when left out.
    pub chunk_chars: Option<usize>,
    /// Number of deltas that each block is cut into; wins over `chunk_chars`.
    pub chunks: Option<usize>,
    /// Milliseconds before each delta.
    pub chunk_delay_ms: u64,
    /// The Plan sends a ping after every so many deltas, besides the one it always sends; Bedrock never pings.
    pub ping_every: Option<usize>,
    /// The Plan compresses the body when the request accepts gzip.
    pub gzip: bool,
    /// Further response headers.
    pub headers: BTreeMap<String, String>,
    /// What goes wrong, in order.
    pub faults: Vec<Fault>,
}

impl Script {
    /// A message with this text.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: Some(text.into()),
            ..Self::default()
        }
    }

    /// A message with these blocks.
    pub fn content(content: Vec<Block>) -> Self {
        Self {
            content: Some(content),
            ..Self::default()
        }
    }

    /// Reports these numbers at the end.
    #[must_use]
    pub fn usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Adds a fault.
    #[must_use]
    pub fn fault(mut self, at: Point, action: Action) -> Self {
        self.faults.push(Fault { at, action });
        self
    }

    /// Waits at a point until the gate is released.
    #[must_use]
    pub fn hold(self, at: Point, gate: impl Into<String>) -> Self {
        self.fault(at, Action::Hold { gate: gate.into() })
    }
}

/// A content block in the Messages API's form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Block {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// Thinking with its signature.
    Thinking {
        /// The thoughts.
        thinking: String,
        /// The signature a replay must carry.
        signature: String,
    },
    /// Thinking that only the model can read.
    RedactedThinking {
        /// Base64.
        data: String,
    },
    /// A tool call.
    ToolUse {
        /// Id of the call.
        id: String,
        /// Name of the tool.
        name: String,
        /// Its arguments.
        input: Value,
    },
    /// A block of any other type, sent as it is in one `content_block_start`; Converse has no such thing and leaves it out.
    #[serde(untagged)]
    Other(Value),
}

/// Something that goes wrong at a point of the answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// When.
    pub at: Point,
    /// What.
    pub action: Action,
}

/// A point of an answer. An answer that does not stream knows `headers`; every other point is the middle of its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Point {
    /// Before the status line.
    Headers,
    /// After the headers, before `message_start`.
    Start,
    /// After the first `content_block_start`, before the first delta.
    Content,
    /// After so many deltas of the whole message.
    Deltas(usize),
    /// After all content, before the final numbers.
    End,
}

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// An error inside the 200 stream, then its end: an `error` event of the Plan, an exception frame of Bedrock.
    /// An answer that does not stream leaves it out.
    Error {
        /// `overloaded_error` and the like; `throttlingException` and the like for Bedrock.
        error_type: String,
        /// Its message.
        message: String,
    },
    /// The body breaks off between two events.
    Cut,
    /// The body breaks off in the middle of the next event.
    CutInside,
    /// The connection is reset (RST).
    Reset,
    /// Nothing for a while.
    Stall {
        /// Milliseconds.
        ms: u64,
    },
    /// Nothing until the gate of this name is released.
    Hold {
        /// Name of the gate.
        gate: String,
    },
}
