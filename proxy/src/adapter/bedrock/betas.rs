//! The betas of the Messages API that Bedrock takes.

use std::borrow::Cow;

use serde_json::value::RawValue;

use crate::adapter::json;

/// The betas that Bedrock takes; any other is refused with `invalid beta flag`.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>,
/// its section on `anthropic_beta`, and the pages on computer use and on the tools it links to. In Bedrock's own format Claude Code
/// 2.1.332 sends two more, `thinking-display-updates-2026-08-18` and `thinking-token-count-2026-05-13`. Nobody documents that
/// they are taken, and a call that falls back is worth more than how its thinking is shown: they go, the first with its field
/// (see [`thinking`]).
const BETAS: &[&str] = &[
    "computer-use-2024-10-22",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    CONTEXT_MANAGEMENT,
    "dev-full-thinking-2025-05-14",
    EFFORT,
    FINE_GRAINED_TOOLS,
    "interleaved-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "token-efficient-tools-2025-02-19",
    TOOL_EXAMPLES,
    TOOL_SEARCH,
];

/// Goes with `context_management`.
pub(crate) const CONTEXT_MANAGEMENT: &str = "context-management-2025-06-27";
/// Goes with `output_config.effort`.
pub(crate) const EFFORT: &str = "effort-2025-11-24";
/// Goes with a tool's `eager_input_streaming`.
pub(crate) const FINE_GRAINED_TOOLS: &str = "fine-grained-tool-streaming-2025-05-14";
/// Goes with a tool's `input_examples`.
pub(crate) const TOOL_EXAMPLES: &str = "tool-examples-2025-10-29";
/// Goes with a tool's `defer_loading` and the tool search tools.
pub(crate) const TOOL_SEARCH: &str = "tool-search-tool-2025-10-19";

/// The betas of the table that a call asks for, in its headers or in its body's `anthropic_beta`, and those that `is_used` says
/// it needs; each once.
pub(crate) fn for_bedrock<'a>(
    headers: impl Iterator<Item = &'a str>,
    in_body: Option<&RawValue>,
    is_used: impl Fn(&str) -> bool,
) -> Vec<&'static str> {
    let in_body: Vec<Cow<'_, str>> = in_body
        .and_then(|list| serde_json::from_str(list.get()).ok())
        .unwrap_or_default();
    let asked: Vec<&str> = headers
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .chain(in_body.iter().map(AsRef::as_ref))
        .collect();
    BETAS
        .iter()
        .copied()
        .filter(|beta| asked.contains(beta) || is_used(beta))
        .collect()
}

/// `thinking` without a `display` that needs a beta which Bedrock does not take: a field travels with its beta.
pub(crate) fn thinking(given: &RawValue) -> Cow<'_, str> {
    const NEEDS_BETA: &str = r#""updates""#;
    let display = json::pick(given.get(), ["display"]).ok();
    if display.is_none_or(|[display]| display.is_none_or(|value| value.get() != NEEDS_BETA)) {
        return Cow::Borrowed(given.get());
    }
    json::without(given.get(), &["display"]).map_or(Cow::Borrowed(given.get()), Cow::Owned)
}

/// Appends the betas as a list. Their names are of the table: nothing in them needs escaping.
pub(crate) fn write(out: &mut Vec<u8>, betas: &[&str]) {
    out.extend_from_slice(b"[\"");
    out.extend_from_slice(betas.join("\",\"").as_bytes());
    out.extend_from_slice(b"\"]");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_of_showing_thinking_goes_with_its_beta() {
        for (given, left) in [
            (
                r#"{"type":"adaptive", "display":"updates"}"#,
                r#"{"type":"adaptive"}"#,
            ),
            (
                r#"{"type": "enabled","budget_tokens":1e3,"display": "summarized"}"#,
                r#"{"type": "enabled","budget_tokens":1e3,"display": "summarized"}"#,
            ),
            (r#"["updates"]"#, r#"["updates"]"#),
        ] {
            assert_eq!(thinking(serde_json::from_str(given).unwrap()), left);
        }
    }
}
