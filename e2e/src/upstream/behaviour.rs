//! Behaviour on command: which requests a rule takes and what they get. The same types are the JSON of the control API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{agent::Agent, script::Script};

/// What an upstream was asked to do, told from method and path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// `POST /v1/messages`
    Messages,
    /// `POST /v1/messages/count_tokens`, `POST /model/{id}/count-tokens`
    CountTokens,
    /// `GET /v1/models` and `GET /v1/models/{id}`
    Models,
    /// `POST /model/{id}/invoke`
    Invoke,
    /// `POST /model/{id}/invoke-with-response-stream`
    InvokeStream,
    /// `POST /model/{id}/converse`
    Converse,
    /// `POST /model/{id}/converse-stream`
    ConverseStream,
    /// `HEAD` and `GET` of paths that clients probe.
    Probe,
    /// Anything else: answered with 404.
    Unknown,
}

impl Operation {
    /// Whether the operation generates a message; a rule without `operation` takes only these.
    pub fn generates(self) -> bool {
        matches!(
            self,
            Self::Messages
                | Self::Invoke
                | Self::InvokeStream
                | Self::Converse
                | Self::ConverseStream
        )
    }
}

/// One entry of an upstream's queue. The first entry whose `when` fits a request answers it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Which requests it takes; every message by default.
    #[serde(default)]
    pub when: When,
    /// How many requests it takes before it leaves the queue: 1 when left out, `null` for ever.
    #[serde(default = "once")]
    pub times: Option<u32>,
    /// What they get.
    pub reply: Reply,
}

#[expect(clippy::unnecessary_wraps, reason = "serde wants the field's own type")]
fn once() -> Option<u32> {
    Some(1)
}

impl Rule {
    /// A rule for the next message.
    pub fn once(reply: impl Into<Reply>) -> Self {
        Self {
            when: When::default(),
            times: Some(1),
            reply: reply.into(),
        }
    }

    /// A rule for the next `times` messages.
    pub fn times(times: u32, reply: impl Into<Reply>) -> Self {
        Self {
            times: Some(times),
            ..Self::once(reply)
        }
    }

    /// A rule for every message until it is cleared.
    pub fn forever(reply: impl Into<Reply>) -> Self {
        Self {
            times: None,
            ..Self::once(reply)
        }
    }

    /// Restricts the rule.
    #[must_use]
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }
}

/// Conditions that must all hold; those left out always do.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct When {
    /// The model (the Messages API's name, or Bedrock's decoded model id) equals this.
    pub model: Option<String>,
    /// The operation is this one. Left out: any that generates a message.
    pub operation: Option<Operation>,
    /// A header has this value.
    pub header: Option<HeaderIs>,
    /// The body as received contains this text: a marker in the prompt or in `metadata` tells parallel tests apart.
    pub body_contains: Option<String>,
    /// A stream was asked for, or not.
    pub stream: Option<bool>,
    /// So many turns of the conversation brought results of tools back.
    pub rounds: Option<usize>,
}

/// A header and the value it must have.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderIs {
    /// Name, in any case.
    pub name: String,
    /// Value, byte for byte.
    pub value: String,
}

/// What a request gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// A message, with whatever the script says goes wrong in it.
    Message(Box<Script>),
    /// The next turn of a task.
    Agent(Agent),
    /// An error status.
    Fail(Failure),
    /// The connection is reset (RST) before any byte of an answer.
    Reset,
    /// The connection is closed (FIN) before any byte of an answer.
    Close,
    /// No byte ever comes; the connection stays open until the client leaves.
    Hang,
}

/// An error answer. Without `body` it has the upstream's own shape and that status' usual type and wording.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// HTTP status.
    pub status: u16,
    /// `error.type` of the Plan or `x-amzn-errortype` of Bedrock, in place of the usual one.
    #[serde(default)]
    pub error_type: Option<String>,
    /// In place of the usual wording.
    #[serde(default)]
    pub message: Option<String>,
    /// `retry-after` in seconds.
    #[serde(default)]
    pub retry_after: Option<u64>,
    /// Further headers.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The whole body, as it is.
    #[serde(default)]
    pub body: Option<String>,
}

impl Failure {
    /// The usual error of a status.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            ..Self::default()
        }
    }

    /// The Plan's 400 for an account without credit.
    pub fn credit_balance() -> Self {
        Self::status(400).message(
            "Your credit balance is too low to access the Anthropic API. Please go to Plans & Billing to upgrade or purchase credits.",
        )
    }

    /// The Plan's 400 for an organisation that reached the limit it set itself.
    pub fn usage_limit() -> Self {
        Self::status(400).message(
            "You have reached your specified API usage limits. You will regain access on 2026-12-01 at 00:00 UTC.",
        )
    }

    /// The Plan's 400 for a prompt that does not fit the context window.
    pub fn prompt_too_long() -> Self {
        Self::status(400).message("prompt is too long: 210000 tokens > 200000 maximum")
    }

    /// Bedrock's 400 for a prompt that does not fit the context window, in the words that clients know.
    pub fn input_too_long() -> Self {
        Self::status(400).message("Input is too long.")
    }

    /// The same in the words that it mostly has.
    pub fn input_too_long_for_model() -> Self {
        Self::status(400).message(
            "The model returned the following errors: Input is too long for requested model.",
        )
    }

    /// Another wording.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// Another error type.
    #[must_use]
    pub fn error_type(mut self, error_type: impl Into<String>) -> Self {
        self.error_type = Some(error_type.into());
        self
    }

    /// A `retry-after` of so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        Self::Fail(failure)
    }
}

impl From<Script> for Reply {
    fn from(script: Script) -> Self {
        Self::Message(Box::new(script))
    }
}

impl From<Agent> for Reply {
    fn from(agent: Agent) -> Self {
        Self::Agent(agent)
    }
}

/// Whether an upstream works at all.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Mode {
    /// It answers.
    #[default]
    Up,
    /// Every request gets the same reply, whatever its credentials and the queue; 503 when left out.
    Down {
        /// What they get.
        #[serde(default = "unavailable")]
        reply: Reply,
    },
    /// The port is closed and open connections are reset. The other upstream's port still takes control calls.
    Refusing,
}

fn unavailable() -> Reply {
    Failure::status(503).into()
}

impl Mode {
    /// Down with 503.
    pub fn down() -> Self {
        Self::Down {
            reply: unavailable(),
        }
    }
}
