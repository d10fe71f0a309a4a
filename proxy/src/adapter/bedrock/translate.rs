//! Why a body has no form for Bedrock.

use std::fmt::Display;

use memchr::memmem;
use serde_json::value::RawValue;

use crate::adapter::AdapterError;
use crate::adapter::json::{self, Kind};

/// Why a body of the Messages API has no form for Bedrock.
#[derive(Debug, thiserror::Error)]
pub enum TranslateError {
    /// It is not the JSON that it should be.
    #[error("the body is not a JSON object")]
    Malformed(#[from] serde_json::Error),
    /// A field is wrong; this names the field in the Messages API's words.
    #[error("{0}")]
    Invalid(String),
    /// Bedrock has no such thing, and the call would mean something else without it.
    #[error("bedrock does not serve `{0}`")]
    Unsupported(&'static str),
}

impl TranslateError {
    /// A wrong field, and what is wrong with it.
    pub(crate) fn invalid(field: impl Display, what: &str) -> Self {
        Self::Invalid(format!("{field}: {what}"))
    }
}

/// Blocks by which a system turn changes the tools. Their beta (`mid-conversation-tool-changes-2026-07-01`) Bedrock does not take,
/// and without them the model would have other tools than it was told.
const TOOL_CHANGES: [&str; 2] = ["tool_addition", "tool_removal"];

/// Whether a text may hold such a block.
pub(crate) fn may_change_tools(json: &str) -> bool {
    let holds = |name: &&str| memmem::find(json.as_bytes(), name.as_bytes()).is_some();
    TOOL_CHANGES.iter().any(holds)
}

/// Refuses the content of a system turn that changes the tools.
pub(crate) fn refuse_tool_changes(content: &RawValue) -> Result<(), TranslateError> {
    if json::kind_of(content) != Kind::List || !may_change_tools(content.get()) {
        return Ok(());
    }
    json::each(content.get(), |_, block| {
        let kind = json::pick(block.get(), ["type"]).ok();
        let kind = kind.and_then(|[kind]| json::text(kind?));
        let change = TOOL_CHANGES
            .into_iter()
            .find(|name| kind.as_deref() == Some(name));
        change.map_or(Ok(()), |name| Err(TranslateError::Unsupported(name)))
    })
}

impl From<TranslateError> for AdapterError {
    fn from(error: TranslateError) -> Self {
        match error {
            TranslateError::Unsupported(field) => Self::Unsupported { field },
            TranslateError::Invalid(message) => Self::Invalid { message },
            // serde's words may quote what the client sent.
            TranslateError::Malformed(_) => Self::Invalid {
                message: "The request body is not a JSON object as the Messages API has it".into(),
            },
        }
    }
}
