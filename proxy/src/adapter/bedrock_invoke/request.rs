//! A body of the Messages API as `InvokeModel` takes it: what differs is replaced, everything else is copied as it stands.

use memchr::memmem;
use serde_json::value::RawValue;

use super::writer::{Place, Writer};
use crate::adapter::bedrock::TranslateError;
use crate::adapter::bedrock::betas::{
    self, CONTEXT_MANAGEMENT, EFFORT, FINE_GRAINED_TOOLS, TOOL_EXAMPLES, TOOL_SEARCH,
};
use crate::adapter::bedrock::models::ModelTraits;
use crate::adapter::json;

/// The value of `anthropic_version` that Bedrock asks for.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>.
const ANTHROPIC_VERSION: &str = r#""bedrock-2023-05-31""#;

/// What becomes of a top-level field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Bedrock takes it.
    Keep,
    /// It goes with its beta and is refused without.
    OnlyWith(&'static str),
    /// The call would mean something else without it.
    Unsupported,
}

/// The fields that Bedrock takes, and those that a call cannot do without. Any other is refused with "Extra inputs are not
/// permitted" and left out: Bedrock has it elsewhere (`model`, `stream`), it only steers how the Anthropic API serves the call
/// (`service_tier`, `tags`, `cache_control` of the whole body), or it is newer than this table, as then is its beta.
/// Sources: the same page; Anthropic's feature overview, "Amazon Bedrock" column
/// (<https://docs.anthropic.com/en/docs/build-with-claude/overview>); Claude Code's gateway guide for `tags` and `safeguards`.
const FIELDS: &[(&str, Rule)] = &[
    ("container", Rule::Unsupported),
    ("context_management", Rule::OnlyWith(CONTEXT_MANAGEMENT)),
    ("max_tokens", Rule::Keep),
    ("mcp_servers", Rule::Unsupported),
    ("messages", Rule::Keep),
    ("metadata", Rule::Keep),
    (OUTPUT_CONFIG, Rule::Keep),
    ("safeguards", Rule::Unsupported),
    ("stop_sequences", Rule::Keep),
    ("system", Rule::Keep),
    ("temperature", Rule::Keep),
    ("thinking", Rule::Keep),
    ("tool_choice", Rule::Keep),
    ("tools", Rule::Keep),
    ("top_k", Rule::Keep),
    ("top_p", Rule::Keep),
];

const OUTPUT_CONFIG: &str = "output_config";

/// What of `output_config` Bedrock takes. The rest goes with betas that it does not have, as `task_budget` with
/// `task-budgets-2026-03-13`.
/// Source: Anthropic's page on task budgets; the Bedrock user guide's on effort and on structured outputs.
const OUTPUT_MEMBERS: &[&str] = &["effort", "format"];

/// Features that need no beta, or another one, at the Anthropic API: field, text that tells their use, Bedrock's beta.
/// Source: the Bedrock user guide's pages on tool search, tool use examples, tool streaming and effort.
const FEATURES: &[(&str, &str, &str)] = &[
    ("output_config", "\"effort\"", EFFORT),
    ("tools", "\"defer_loading\"", TOOL_SEARCH),
    ("tools", "\"tool_search_tool_", TOOL_SEARCH),
    ("tools", "\"input_examples\"", TOOL_EXAMPLES),
    ("tools", "\"eager_input_streaming\"", FINE_GRAINED_TOOLS),
];

/// The `InvokeModel` body for a Messages `body` sent with these `anthropic-beta` values.
pub(in crate::adapter) fn translate<'a>(
    body: &[u8],
    asked: impl Iterator<Item = &'a str>,
    model: ModelTraits,
) -> Result<Vec<u8>, TranslateError> {
    let body =
        std::str::from_utf8(body).map_err(<serde_json::Error as serde::de::Error>::custom)?;
    let [in_body, tools, output_config, output_format] = json::pick(
        body,
        ["anthropic_beta", "tools", OUTPUT_CONFIG, "output_format"],
    )?;
    let output = output_config_for(model, output_config, output_format)?;
    let betas = betas::for_bedrock(asked, in_body, |beta| {
        FEATURES.iter().any(|(field, text, needed)| {
            let value = match *field {
                OUTPUT_CONFIG => output.as_deref(),
                _ => tools.map(RawValue::get),
            };
            *needed == beta
                && value
                    .is_some_and(|value| memmem::find(value.as_bytes(), text.as_bytes()).is_some())
        })
    });
    let mut writer = Writer::new(body.len() + 256, model);
    writer.put("{\"anthropic_version\":");
    writer.put(ANTHROPIC_VERSION);
    if !betas.is_empty() {
        writer.put(",\"anthropic_beta\":");
        betas::write(&mut writer.out, &betas);
    }
    json::members(body, |name, value| {
        let Some((name, rule)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            return Ok(());
        };
        match rule {
            Rule::Unsupported if json::is_used(value) => {
                return Err(TranslateError::Unsupported(name));
            }
            Rule::Unsupported => return Ok(()),
            Rule::OnlyWith(beta) if !betas.contains(beta) => return Ok(()),
            Rule::OnlyWith(_) | Rule::Keep => {}
        }
        if *name == OUTPUT_CONFIG {
            return Ok(());
        }
        writer.put(",\"");
        writer.put(name);
        writer.put("\":");
        if *name == "thinking" {
            writer.put(&betas::thinking(value));
            return Ok(());
        }
        writer.value(Place::of_field(name), value)
    })?;
    if let Some(output) = output {
        writer.put(",\"output_config\":");
        writer.put(&output);
    }
    writer.out.push(b'}');
    Ok(writer.out)
}

/// `output_config` for a model: of what Bedrock takes, without the effort that older ones refuse, and with the format that a beta
/// had in a field of its own.
fn output_config_for(
    model: ModelTraits,
    output_config: Option<&RawValue>,
    output_format: Option<&RawValue>,
) -> Result<Option<String>, TranslateError> {
    let mut members = Vec::new();
    let (mut has_format, mut is_whole) = (false, true);
    if let Some(config) = output_config {
        json::members::<serde_json::Error>(config.get(), |name, value| {
            if !OUTPUT_MEMBERS.contains(&name) || (name == "effort" && !model.effort) {
                is_whole = false;
                return Ok(());
            }
            has_format |= name == "format" && value.get() != "null";
            members.push(format!("\"{name}\":{}", value.get()));
            Ok(())
        })
        .map_err(|_| {
            TranslateError::invalid(OUTPUT_CONFIG, "Input should be a valid dictionary")
        })?;
    }
    match output_format.filter(|_| !has_format) {
        Some(moved) => {
            members.retain(|member| !member.starts_with("\"format\""));
            members.push(format!("\"format\":{}", moved.get()));
        }
        None if is_whole => return Ok(output_config.map(|config| config.get().to_owned())),
        None => {}
    }
    Ok((!members.is_empty()).then(|| format!("{{{}}}", members.join(","))))
}

#[cfg(test)]
mod tests;
