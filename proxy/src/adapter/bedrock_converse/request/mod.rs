//! A body of the Messages API as one of Converse.

mod blocks;
mod cache;
mod documents;
mod fields;
mod system;
mod tools;
mod turns;

use std::borrow::Cow;
use std::collections::HashSet;

use self::cache::{CachePoints, Ttl};
use self::documents::DocumentNames;
use super::citations::Titles;
use super::names::{Changed, Names};
use crate::adapter::bedrock::TranslateError;
use crate::adapter::bedrock::models::ModelTraits;
use crate::adapter::json;

/// A request for Converse, and what is needed to read its answer.
#[derive(Debug)]
pub(super) struct Translated {
    /// The body.
    pub(super) body: Vec<u8>,
    /// Names of tools that Converse knows by others.
    pub(super) tools: Changed,
    /// Titles of documents that Converse knows by other names.
    pub(super) titles: Titles,
    /// The one sequence that can have stopped the answer, where a model does not tell which.
    pub(super) only_stop_sequence: Option<String>,
}

json::picked! {
    /// The fields of a body that are looked at.
    struct Body {
        system: "system",
        messages: "messages",
        tools: "tools",
        tool_choice: "tool_choice",
        cache_control: "cache_control",
        max_tokens: "max_tokens",
        temperature: "temperature",
        top_p: "top_p",
        top_k: "top_k",
        stop_sequences: "stop_sequences",
        thinking: "thinking",
        output_config: "output_config",
        output_format: "output_format",
        context_management: "context_management",
        anthropic_beta: "anthropic_beta",
        container: "container",
        mcp_servers: "mcp_servers",
        safeguards: "safeguards",
    }
}

impl Body<'_> {
    /// The fields whose use makes the call mean something that Bedrock has no words for.
    /// Sources: Anthropic's feature overview, "Amazon Bedrock" column
    /// (<https://docs.anthropic.com/en/docs/build-with-claude/overview>); Claude Code's gateway guide for `safeguards`.
    fn unsupported(&self) -> Option<&'static str> {
        let fields = [
            ("container", self.container),
            ("mcp_servers", self.mcp_servers),
            ("safeguards", self.safeguards),
        ];
        fields
            .into_iter()
            .find_map(|(name, value)| value.is_some_and(json::is_used).then_some(name))
    }
}

/// The Converse body for a Messages `body` sent with these `anthropic-beta` values.
pub(super) fn translate<'a>(
    body: &[u8],
    betas: impl Iterator<Item = &'a str>,
    model: ModelTraits,
) -> Result<Translated, TranslateError> {
    let body =
        std::str::from_utf8(body).map_err(<serde_json::Error as serde::de::Error>::custom)?;
    let length = body.len();
    let body = Body::read(body)?;
    if let Some(field) = body.unsupported() {
        return Err(TranslateError::Unsupported(field));
    }
    let mut writer = Writer::new(length, model);
    writer.register_tools(body.tools)?;
    writer.put("{\"messages\":[");
    writer.messages(body.messages, Ttl::of(body.cache_control))?;
    writer.put("]");
    writer.system(body.system)?;
    let choice = writer.tool_config(body.tools, body.tool_choice)?;
    let only_stop_sequence = writer.fields(&body, betas, choice)?;
    writer.out.push(b'}');
    Ok(writer.finish(only_stop_sequence))
}

/// Writes the body, field by field.
struct Writer<'a> {
    out: Vec<u8>,
    model: ModelTraits,
    points: CachePoints,
    /// Names of tools.
    tools: Names<'a>,
    /// Ids of tool calls.
    calls: Names<'a>,
    documents: DocumentNames,
    /// Whether the conversation has tool calls or results.
    uses_tools: bool,
    /// Tools of Anthropic's own making that the client runs, as they are passed on: Converse has no form for them.
    native_tools: Vec<String>,
    native_names: HashSet<Cow<'a, str>>,
}

impl Writer<'_> {
    fn new(length: usize, model: ModelTraits) -> Self {
        Self {
            out: Vec::with_capacity(length + length / 16 + 512),
            model,
            points: CachePoints::new(model.caching),
            tools: Names::of_tools(),
            calls: Names::of_calls(),
            documents: DocumentNames::default(),
            uses_tools: false,
            native_tools: Vec::new(),
            native_names: HashSet::new(),
        }
    }

    /// Appends what needs no escaping.
    fn put(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    /// Appends text as a JSON string.
    fn put_text(&mut self, text: &str) {
        json::write_text(&mut self.out, text);
    }

    fn finish(mut self, only_stop_sequence: Option<String>) -> Translated {
        self.points.settle(&mut self.out);
        Translated {
            body: self.out,
            tools: self.tools.into_changed(),
            titles: self.documents.into_titles(),
            only_stop_sequence,
        }
    }
}

#[cfg(test)]
mod tests;
