//! A body of the Messages API as one of Converse.

mod blocks;
mod cache;
mod documents;
mod fields;
mod system;
mod tools;
mod turns;

use serde_json::value::RawValue;

use self::cache::{CachePoints, Ttl};
use self::documents::DocumentNames;
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
    /// The one sequence that can have stopped the answer, where a model does not tell which.
    pub(super) only_stop_sequence: Option<String>,
}

/// Fields whose use makes the call mean something that Bedrock has no words for.
/// Sources: Anthropic's feature overview, "Amazon Bedrock" column
/// (<https://docs.anthropic.com/en/docs/build-with-claude/overview>); Claude Code's gateway guide for `safeguards`.
const UNSUPPORTED: [&str; 3] = ["container", "mcp_servers", "safeguards"];

/// The fields of a body that are looked at.
struct Body<'a> {
    system: Option<&'a RawValue>,
    messages: Option<&'a RawValue>,
    tools: Option<&'a RawValue>,
    tool_choice: Option<&'a RawValue>,
    cache_control: Option<&'a RawValue>,
    max_tokens: Option<&'a RawValue>,
    temperature: Option<&'a RawValue>,
    top_p: Option<&'a RawValue>,
    top_k: Option<&'a RawValue>,
    stop_sequences: Option<&'a RawValue>,
    thinking: Option<&'a RawValue>,
    output_config: Option<&'a RawValue>,
    output_format: Option<&'a RawValue>,
    context_management: Option<&'a RawValue>,
    anthropic_beta: Option<&'a RawValue>,
    unsupported: [Option<&'a RawValue>; UNSUPPORTED.len()],
}

impl<'a> Body<'a> {
    /// Reads them in one pass.
    fn read(body: &'a str) -> Result<Self, serde_json::Error> {
        let [container, mcp_servers, safeguards] = UNSUPPORTED;
        let [
            system,
            messages,
            tools,
            tool_choice,
            cache_control,
            max_tokens,
            temperature,
            top_p,
            top_k,
            stop_sequences,
            thinking,
            output_config,
            output_format,
            context_management,
            anthropic_beta,
            first,
            second,
            third,
        ] = json::pick(
            body,
            [
                "system",
                "messages",
                "tools",
                "tool_choice",
                "cache_control",
                "max_tokens",
                "temperature",
                "top_p",
                "top_k",
                "stop_sequences",
                "thinking",
                "output_config",
                "output_format",
                "context_management",
                "anthropic_beta",
                container,
                mcp_servers,
                safeguards,
            ],
        )?;
        Ok(Self {
            system,
            messages,
            tools,
            tool_choice,
            cache_control,
            max_tokens,
            temperature,
            top_p,
            top_k,
            stop_sequences,
            thinking,
            output_config,
            output_format,
            context_management,
            anthropic_beta,
            unsupported: [first, second, third],
        })
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
    if let Some(at) = body.unsupported.iter().position(Option::is_some) {
        return Err(TranslateError::Unsupported(UNSUPPORTED[at]));
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
    /// Tools of Anthropic's own making that the client runs: Converse has no form for them.
    native_tools: Vec<&'a RawValue>,
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
            only_stop_sequence,
        }
    }
}

#[cfg(test)]
mod tests;
