//! Which models a caller may use, and what a model is called on Bedrock.

use std::fmt;
use std::str::FromStr;

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::pricing::Price;

/// Why a model pattern cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a model name or glob such as `claude-sonnet-*`: {source}")]
pub struct PatternError {
    /// The pattern as it was given.
    pub pattern: String,
    #[source]
    source: globset::Error,
}

/// A model name, exact or as a glob with `*`, `?`, `[…]` and `{a,b}`.
#[derive(Debug, Clone)]
pub struct ModelPattern {
    text: String,
    matcher: Option<GlobMatcher>,
}

impl ModelPattern {
    /// Compiles `text`.
    pub fn new(text: &str) -> Result<Self, PatternError> {
        let matcher = if text.contains(['*', '?', '[', '{', '\\']) {
            let glob = Glob::new(text).map_err(|source| PatternError {
                pattern: text.to_owned(),
                source,
            })?;
            Some(glob.compile_matcher())
        } else {
            None
        };
        Ok(Self {
            text: text.to_owned(),
            matcher,
        })
    }

    /// Whether `model` is meant.
    pub fn matches(&self, model: &str) -> bool {
        self.matcher
            .as_ref()
            .map_or_else(|| self.text == model, |glob| glob.is_match(model))
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The one model that is meant; `None` for a glob.
    pub fn exact(&self) -> Option<&str> {
        self.matcher.is_none().then_some(self.text.as_str())
    }
}

impl PartialEq for ModelPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for ModelPattern {}

impl Serialize for ModelPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for ModelPattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A list of models that may be used; an empty list allows all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ModelPatterns(Vec<ModelPattern>);

impl ModelPatterns {
    /// Compiles a list of names and globs.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Self, PatternError> {
        patterns
            .into_iter()
            .map(|pattern| ModelPattern::new(pattern.as_ref()))
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether `model` may be used.
    pub fn is_allowed(&self, model: &str) -> bool {
        self.0.is_empty() || self.0.iter().any(|pattern| pattern.matches(model))
    }

    /// Whether every model may be used.
    pub fn allows_all(&self) -> bool {
        self.0.is_empty()
    }
}

/// Which Bedrock operation serves a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BedrockApi {
    /// `InvokeModel` for Anthropic models, Converse for any other.
    #[default]
    Auto,
    /// The model's native body.
    InvokeModel,
    /// Bedrock's own conversation format.
    Converse,
}

impl BedrockApi {
    /// The name in resources and in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "Auto",
            Self::InvokeModel => "InvokeModel",
            Self::Converse => "Converse",
        }
    }
}

impl fmt::Display for BedrockApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text names no Bedrock API.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not a Bedrock API: use Auto, InvokeModel or Converse")]
pub struct ParseBedrockApiError(String);

impl FromStr for BedrockApi {
    type Err = ParseBedrockApiError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Auto, Self::InvokeModel, Self::Converse]
            .into_iter()
            .find(|api| api.as_str() == text)
            .ok_or_else(|| ParseBedrockApiError(text.to_owned()))
    }
}

/// What a model that clients name is called on Bedrock. The first mapping of a pool that matches wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelMapping {
    /// The client's model, exact or glob.
    pub name: ModelPattern,
    /// Model id, inference profile id or ARN.
    pub bedrock_model_id: Option<String>,
    /// The operation to use.
    pub bedrock_api: BedrockApi,
    /// The pool's own price, on either upstream.
    pub price: Option<Price>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_allows_all_and_a_filled_one_only_what_it_names() {
        let some = ModelPatterns::new(["claude-sonnet-*", "claude-haiku-4-5"]).unwrap();
        for (model, allowed) in [
            ("claude-sonnet-4-5-20250929", true),
            ("claude-haiku-4-5", true),
            ("claude-haiku-4-5-20251001", false),
            ("claude-opus-4-8", false),
            ("", false),
        ] {
            assert_eq!(some.is_allowed(model), allowed, "{model}");
            assert!(ModelPatterns::default().is_allowed(model));
        }
    }

    #[test]
    fn a_broken_glob_is_named_in_its_error() {
        let error = ModelPatterns::new(["claude-[*"]).unwrap_err();
        assert!(error.to_string().contains("claude-[*"), "{error}");
    }
}
