//! A model that works on a task: what it says follows from how far the conversation has come, in every wire format alike.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    received::Received,
    script::{Block, Script},
    signature,
    usage::{Usage, output_tokens},
};

/// A model with a plan. It answers a request in which the results of `n` turns' calls have come back with the acts of turn
/// `n`, and repeats the last turn from there on. A request without tools gets the usual echo: clients ask such things by the way.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Agent {
    /// What it does, turn by turn.
    pub turns: Vec<Vec<Act>>,
    /// Pace, headers and faults of its messages; content, stop reason and numbers are the agent's own.
    #[serde(default)]
    pub script: Box<Script>,
}

/// One thing that an agent does in its turn, one content block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Act {
    /// Thinks, and signs it; left out where the request does not ask for thinking.
    Think(String),
    /// Thinks what nobody may read; left out likewise.
    ThinkUnseen(String),
    /// Says something.
    Say(String),
    /// Calls a tool.
    Call {
        /// Its name.
        name: String,
        /// Its arguments.
        input: Value,
    },
}

/// Why an agent cannot answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Stuck {
    #[error("the agent has no turns")]
    NoTurns,
    #[error("the agent calls `{0}`, which the request does not offer")]
    NoTool(String),
}

impl Agent {
    /// An agent with these turns.
    pub fn new(turns: Vec<Vec<Act>>) -> Self {
        Self {
            turns,
            script: Box::default(),
        }
    }

    /// Sends its messages as the script says.
    #[must_use]
    pub fn paced(mut self, script: Script) -> Self {
        self.script = Box::new(script);
        self
    }

    /// The message that answers a request; `unique` makes its calls' ids.
    pub(crate) fn script(&self, request: &Received, unique: &str) -> Result<Script, Stuck> {
        let mut script = (*self.script).clone();
        if request.prompt.tools.is_empty() {
            return Ok(script);
        }
        let turn = request
            .prompt
            .rounds
            .min(self.turns.len().saturating_sub(1));
        let acts = self.turns.get(turn).ok_or(Stuck::NoTurns)?;
        let mut content = Vec::with_capacity(acts.len());
        for act in acts {
            content.extend(block(act, content.len(), request, unique)?);
        }
        script.usage = Some(usage(request, output_tokens(&content)));
        script.content = Some(content);
        Ok(script)
    }
}

fn block(
    act: &Act,
    place: usize,
    request: &Received,
    unique: &str,
) -> Result<Option<Block>, Stuck> {
    let thinks = request.prompt.thinks;
    Ok(match act {
        Act::Think(thinking) => thinks.then(|| Block::Thinking {
            thinking: thinking.clone(),
            signature: signature::sign(place, thinking),
        }),
        Act::ThinkUnseen(thinking) => thinks.then(|| Block::RedactedThinking {
            data: signature::redact(place, thinking),
        }),
        Act::Say(text) => Some(Block::Text { text: text.clone() }),
        Act::Call { name, input } => {
            if !request.prompt.tools.contains(name) {
                return Err(Stuck::NoTool(name.clone()));
            }
            Some(Block::ToolUse {
                id: format!("toolu_{unique}_{place}"),
                name: name.clone(),
                input: input.clone(),
            })
        }
    })
}

/// Numbers as prompt caching makes them, so that a marker which got lost on its way is seen in them: the first turn writes
/// three quarters of its input to the cache, each later one reads as much and writes an eighth.
fn usage(request: &Received, output_tokens: u64) -> Usage {
    let input = request.prompt.input_tokens;
    let mut usage = Usage {
        input_tokens: input,
        output_tokens,
        ..Usage::default()
    };
    let Some(lifetime) = request.cache_lifetime() else {
        return usage;
    };
    let (read, written) = if request.prompt.rounds == 0 {
        (0, input / 4 * 3)
    } else {
        (input / 4 * 3, input / 8)
    };
    usage.input_tokens = input - read - written;
    usage.cache_read_input_tokens = read;
    match lifetime {
        CacheLifetime::FiveMinutes => usage.cache_creation_5m_input_tokens = written,
        CacheLifetime::Hour => usage.cache_creation_1h_input_tokens = written,
    }
    usage
}

/// How long what a request marks is to stay in the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CacheLifetime {
    FiveMinutes,
    Hour,
}
