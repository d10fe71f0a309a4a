//! A Messages body as an `InvokeModel` body: the same JSON but for what Bedrock takes elsewhere or refuses.
//!
//! What is kept is kept byte for byte, key order included: prompt caching and thinking signatures depend on it.

use std::borrow::Cow;

use indexmap::IndexMap;
use memchr::memmem;
use serde_json::value::RawValue;

/// The value of `anthropic_version` that Bedrock asks for.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>.
const ANTHROPIC_VERSION: &str = r#""bedrock-2023-05-31""#;

/// The betas that Bedrock takes; any other is refused with `invalid beta flag`.
/// Source: the same page, its section on `anthropic_beta`, and the pages on computer use and on the tools it links to.
const BETAS: &[&str] = &[
    "computer-use-2024-10-22",
    "computer-use-2025-01-24",
    "computer-use-2025-11-24",
    "context-1m-2025-08-07",
    CONTEXT_MANAGEMENT,
    "dev-full-thinking-2025-05-14",
    EFFORT,
    "fine-grained-tool-streaming-2025-05-14",
    "interleaved-thinking-2025-05-14",
    "output-128k-2025-02-19",
    "token-efficient-tools-2025-02-19",
    TOOL_EXAMPLES,
    TOOL_SEARCH,
];

const CONTEXT_MANAGEMENT: &str = "context-management-2025-06-27";
const EFFORT: &str = "effort-2025-11-24";
const TOOL_EXAMPLES: &str = "tool-examples-2025-10-29";
const TOOL_SEARCH: &str = "tool-search-tool-2025-10-19";

/// What becomes of a top-level field that Bedrock does not take as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rule {
    /// Bedrock has it elsewhere, or it only steers how the Anthropic API serves the call.
    Drop,
    /// It goes with its beta and is refused without.
    OnlyWith(&'static str),
    /// The call would mean something else without it.
    Unsupported,
}

/// Sources: "Extra inputs are not permitted" answers of `InvokeModel`; Anthropic's feature overview, "Amazon Bedrock" column
/// (<https://docs.anthropic.com/en/docs/build-with-claude/overview>); Claude Code's gateway guide for `tags` and `safeguards`.
const FIELDS: &[(&str, Rule)] = &[
    ("anthropic_beta", Rule::Drop),
    ("anthropic_version", Rule::Drop),
    ("betas", Rule::Drop),
    ("container", Rule::Unsupported),
    ("context_management", Rule::OnlyWith(CONTEXT_MANAGEMENT)),
    ("inference_geo", Rule::Drop),
    ("mcp_servers", Rule::Unsupported),
    ("model", Rule::Drop),
    ("safeguards", Rule::Unsupported),
    ("service_tier", Rule::Drop),
    ("speed", Rule::Drop),
    ("stream", Rule::Drop),
    ("tags", Rule::Drop),
];

/// Features that need no beta, or another one, at the Anthropic API: field, text that tells their use, Bedrock's beta.
/// Source: the Bedrock user guide's pages on tool search, tool use examples and effort.
const FEATURES: &[(&str, &str, &str)] = &[
    ("output_config", "\"effort\"", EFFORT),
    ("tools", "\"defer_loading\"", TOOL_SEARCH),
    ("tools", "\"tool_search_tool_", TOOL_SEARCH),
    ("tools", "\"input_examples\"", TOOL_EXAMPLES),
];

/// Why a body has no `InvokeModel` form.
#[derive(Debug, thiserror::Error)]
pub(in crate::adapter) enum TranslateError {
    #[error("the body is not a JSON object")]
    Malformed(#[source] serde_json::Error),
    #[error("bedrock does not serve `{0}`")]
    Unsupported(&'static str),
}

type Object<'a> = IndexMap<Cow<'a, str>, &'a RawValue>;

/// The `InvokeModel` body for a Messages `body` sent with these `anthropic-beta` values.
pub(in crate::adapter) fn invoke_body<'a>(
    body: &[u8],
    betas: impl Iterator<Item = &'a str>,
) -> Result<Vec<u8>, TranslateError> {
    let mut fields: Object<'_> = serde_json::from_slice(body).map_err(TranslateError::Malformed)?;
    let betas = bedrock_betas(betas, &fields);
    for (name, rule) in FIELDS {
        match rule {
            Rule::Unsupported if fields.get(*name).is_some_and(|value| value.get() != "null") => {
                return Err(TranslateError::Unsupported(name));
            }
            Rule::OnlyWith(beta) if betas.contains(beta) => {}
            Rule::Drop | Rule::OnlyWith(_) | Rule::Unsupported => {
                fields.shift_remove(*name);
            }
        }
    }
    let mut out = Vec::with_capacity(body.len() + 256);
    out.extend_from_slice(b"{\"anthropic_version\":");
    out.extend_from_slice(ANTHROPIC_VERSION.as_bytes());
    if !betas.is_empty() {
        // The names are of the table: nothing in them needs escaping.
        out.extend_from_slice(b",\"anthropic_beta\":[\"");
        out.extend_from_slice(betas.join("\",\"").as_bytes());
        out.extend_from_slice(b"\"]");
    }
    for (name, value) in &fields {
        out.push(b',');
        write_key(&mut out, name)?;
        write_value(&mut out, Place::of_field(name), value)?;
    }
    out.push(b'}');
    Ok(out)
}

/// The betas of the table that the call asks for, by name or by using the feature, each once.
fn bedrock_betas<'a>(
    asked: impl Iterator<Item = &'a str>,
    fields: &Object<'_>,
) -> Vec<&'static str> {
    let in_body: Vec<Cow<'_, str>> = fields
        .get("anthropic_beta")
        .and_then(|list| serde_json::from_str(list.get()).ok())
        .unwrap_or_default();
    let asked: Vec<&str> = asked
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .chain(in_body.iter().map(AsRef::as_ref))
        .collect();
    let used = |beta: &str| {
        FEATURES.iter().any(|(field, text, needed)| {
            *needed == beta
                && fields.get(*field).is_some_and(|value| {
                    memmem::find(value.get().as_bytes(), text.as_bytes()).is_some()
                })
        })
    };
    BETAS
        .iter()
        .copied()
        .filter(|beta| asked.contains(beta) || used(beta))
        .collect()
}

/// Where in a body a value stands, as far as cache markers go. Nothing else is looked into: what a client nests may be as deep
/// as its body is long.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// A marker.
    Marker,
    /// What may carry a marker, or a list of it: a tool, a message, a block. Below it are so many levels more of the like.
    Holder(u8),
    /// Nothing that a marker could be in.
    Other,
}

/// From a message down: its blocks, a tool result's blocks, the blocks of a document or search result in it.
const LEVELS_OF_MESSAGE: u8 = 4;

impl Place {
    /// The place of the top-level field `name`.
    fn of_field(name: &str) -> Self {
        match name {
            "cache_control" => Self::Marker,
            "system" | "tools" => Self::Holder(0),
            "messages" => Self::Holder(LEVELS_OF_MESSAGE),
            _ => Self::Other,
        }
    }

    /// The place of the field `name` in a holder of so many levels.
    fn below(levels: u8, name: &str) -> Self {
        match (name, levels.checked_sub(1)) {
            ("cache_control", _) => Self::Marker,
            ("content" | "source", Some(levels)) => Self::Holder(levels),
            _ => Self::Other,
        }
    }
}

/// Writes a value as it stands, but without `cache_control.scope`, whose beta (`prompt-caching-scope-2026-01-05`) Bedrock does
/// not take. Only values that hold the word are looked into.
fn write_value(out: &mut Vec<u8>, place: Place, value: &RawValue) -> Result<(), TranslateError> {
    let text = value.get();
    let is_suspect =
        !matches!(place, Place::Other) && memmem::find(text.as_bytes(), b"\"scope\"").is_some();
    match (text.as_bytes().first(), place) {
        (Some(b'{'), _) if is_suspect => write_object(out, place, text),
        (Some(b'['), Place::Holder(levels)) if is_suspect => {
            let items: Vec<&RawValue> =
                serde_json::from_str(text).map_err(TranslateError::Malformed)?;
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                // Lists do not hold lists.
                if item.get().starts_with('{') {
                    write_value(out, Place::Holder(levels), item)?;
                } else {
                    out.extend_from_slice(item.get().as_bytes());
                }
            }
            out.push(b']');
            Ok(())
        }
        _ => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
}

fn write_object(out: &mut Vec<u8>, place: Place, text: &str) -> Result<(), TranslateError> {
    let mut fields: Object<'_> = serde_json::from_str(text).map_err(TranslateError::Malformed)?;
    if matches!(place, Place::Marker) {
        fields.shift_remove("scope");
    }
    out.push(b'{');
    for (at, (name, value)) in fields.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write_key(out, name)?;
        let below = match place {
            Place::Holder(levels) => Place::below(levels, name),
            Place::Marker | Place::Other => Place::Other,
        };
        write_value(out, below, value)?;
    }
    out.push(b'}');
    Ok(())
}

fn write_key(out: &mut Vec<u8>, name: &str) -> Result<(), TranslateError> {
    serde_json::to_writer(&mut *out, name).map_err(TranslateError::Malformed)?;
    out.push(b':');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoke(body: &str, betas: &[&str]) -> String {
        String::from_utf8(invoke_body(body.as_bytes(), betas.iter().copied()).unwrap()).unwrap()
    }

    #[test]
    fn routing_fields_go_and_the_rest_stays_as_it_was() {
        let body = r#"{"model":"claude-x","max_tokens": 1e3,"stream":true,"messages":[ {"role":"user","content":"Gr\u00fc\u00dfe  "} ],"zeta":1.0,"alpha":[1,  2]}"#;
        assert_eq!(
            invoke(body, &[]),
            r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":1e3,"messages":[ {"role":"user","content":"Gr\u00fc\u00dfe  "} ],"zeta":1.0,"alpha":[1,  2]}"#
        );
    }

    #[test]
    fn betas_are_filtered_to_what_bedrock_takes() {
        let betas = [
            "claude-code-20250219,interleaved-thinking-2025-05-14",
            " request-tags-2026-08-21 , context-1m-2025-08-07",
        ];
        let body = invoke(
            r#"{"anthropic_beta":["interleaved-thinking-2025-05-14","output-128k-2025-02-19","new-2027-01-01"]}"#,
            &betas,
        );
        assert_eq!(
            body,
            r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["context-1m-2025-08-07","interleaved-thinking-2025-05-14","output-128k-2025-02-19"]}"#
        );
        assert!(
            !invoke("{}", &["claude-code-20250219"]).contains("anthropic_beta"),
            "an empty list is refused too"
        );
    }

    #[test]
    fn a_field_travels_with_its_beta() {
        let body = r#"{"context_management":{"edits":[]},"tags":{"a":"b"}}"#;
        assert!(
            invoke(body, &[CONTEXT_MANAGEMENT]).ends_with(r#""context_management":{"edits":[]}}"#)
        );
        assert_eq!(
            invoke(body, &["request-tags-2026-08-21"]),
            r#"{"anthropic_version":"bedrock-2023-05-31"}"#
        );
    }

    #[test]
    fn what_the_plan_serves_without_a_beta_gets_bedrocks() {
        for (body, beta) in [
            (r#"{"output_config":{"effort":"high"}}"#, EFFORT),
            (
                r#"{"tools":[{"name":"a","defer_loading":true}]}"#,
                TOOL_SEARCH,
            ),
            (
                r#"{"tools":[{"type":"tool_search_tool_regex_20251119","name":"s"}]}"#,
                TOOL_SEARCH,
            ),
            (
                r#"{"tools":[{"name":"a","input_examples":[{}]}]}"#,
                TOOL_EXAMPLES,
            ),
        ] {
            assert!(
                invoke(body, &["advanced-tool-use-2025-11-20"])
                    .contains(&format!(r#""anthropic_beta":["{beta}"]"#)),
                "{body}"
            );
        }
        assert!(!invoke(r#"{"output_config":{"format":{}}}"#, &[]).contains("anthropic_beta"));
    }

    #[test]
    fn calls_that_would_mean_something_else_are_not_sent() {
        for field in ["container", "mcp_servers", "safeguards"] {
            let body = format!(r#"{{"{field}":{{"a":1}}}}"#);
            assert!(
                matches!(invoke_body(body.as_bytes(), std::iter::empty()), Err(TranslateError::Unsupported(name)) if name == field)
            );
            assert!(
                invoke_body(
                    format!(r#"{{"{field}":null}}"#).as_bytes(),
                    std::iter::empty()
                )
                .is_ok()
            );
        }
    }

    #[test]
    fn the_scope_of_a_cache_marker_goes_with_its_beta() {
        let body = r#"{"system":[{"type":"text","text":"a \"scope\"","cache_control":{"type":"ephemeral","scope":"global","ttl":"1h"}}],"tools":[{"input_schema":{"properties":{"cache_control":{"scope":1}}},"cache_control":{"scope":"org","type":"ephemeral"}}],"messages":[{"scope": 1.50}]}"#;
        assert_eq!(
            invoke(body, &["prompt-caching-scope-2026-01-05"]),
            r#"{"anthropic_version":"bedrock-2023-05-31","system":[{"type":"text","text":"a \"scope\"","cache_control":{"type":"ephemeral","ttl":"1h"}}],"tools":[{"input_schema":{"properties":{"cache_control":{"scope":1}}},"cache_control":{"type":"ephemeral"}}],"messages":[{"scope":1.50}]}"#
        );
    }

    #[test]
    fn the_scope_goes_wherever_a_marker_may_stand_and_nowhere_else() {
        let marked = r#"{"type":"text","cache_control":{"type":"ephemeral","scope":"org"}}"#;
        let plain = r#"{"type":"text","cache_control":{"type":"ephemeral"}}"#;
        let body = |block: &str| {
            format!(
                r#"{{"cache_control":{{"type":"ephemeral"}},"messages":[{{"content":[{block},{{"type":"tool_result","content":[{block},{{"type":"document","source":{{"type":"content","content":[{block}]}}}}]}}]}}]}}"#
            )
        };
        assert!(invoke(&body(marked), &[]).ends_with(&body(plain)[1..]));
        let own = r#""metadata":{"cache_control":{"scope":1}},"messages":[{"content":[{"type":"tool_use","input":{"cache_control":{"scope":1}}}]}]}"#;
        assert!(invoke(&format!("{{{own}"), &[]).ends_with(own));
    }

    #[test]
    fn a_body_may_be_nested_as_deeply_as_it_likes() {
        const DEPTH: usize = 100_000;
        for (open, close) in [
            ("[", "]"),
            (r#"{"content":["#, "]}"),
            (r#"{"cache_control":"#, "}"),
            (r#"{"a":"#, "}"),
        ] {
            for field in ["messages", "system", "tools", "unheard_of"] {
                let nested = format!(
                    r#""{field}":{}{{"scope":1}}{}}}"#,
                    open.repeat(DEPTH),
                    close.repeat(DEPTH)
                );
                let out = invoke(&format!("{{{nested}"), &[]);
                assert!(out.ends_with(&nested), "{field} {open}");
            }
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for body in ["", "[]", "{", "\u{0}"] {
            assert!(
                matches!(
                    invoke_body(body.as_bytes(), std::iter::empty()),
                    Err(TranslateError::Malformed(_))
                ),
                "{body:?}"
            );
        }
    }
}
