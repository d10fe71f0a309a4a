//! Why a body has no form for Bedrock.

use std::fmt::Display;

use crate::adapter::AdapterError;

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
