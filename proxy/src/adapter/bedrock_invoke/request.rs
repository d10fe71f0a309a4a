//! A body of the Messages API as `InvokeModel` takes it: what differs is replaced, everything else is copied as it stands.

use memchr::memmem;
use serde_json::value::RawValue;

use crate::adapter::bedrock::betas::{
    self, CONTEXT_MANAGEMENT, EFFORT, FINE_GRAINED_TOOLS, TOOL_EXAMPLES, TOOL_SEARCH,
};
use crate::adapter::bedrock::models::{Caching, ModelTraits};
use crate::adapter::bedrock::{TranslateError, may_change_tools, refuse_tool_changes};
use crate::adapter::json::{self, Kind};

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

/// Members of a tool that Bedrock refuses: one is its beta's there, the other is for tools that Bedrock does not have.
const TOOL_MEMBERS: &[&str] = &["allowed_callers", "eager_input_streaming"];

/// Members of a message that Bedrock takes. The others go with betas that it does not have, such as the `output_config` of
/// `per-turn-control-2026-07-01`.
const TURN_MEMBERS: &[&str] = &["role", "content"];

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
    let mut writer = Writer {
        out: Vec::with_capacity(body.len() + 256),
        markers: Markers::of(model),
    };
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

/// What is wrong with cache markers as the Plan takes them.
struct Markers {
    /// Members of a marker that go: `scope`, whose beta (`prompt-caching-scope-2026-01-05`) Bedrock does not take, and `ttl` where
    /// the model does not know it.
    members: &'static [&'static str],
    /// Whether the markers go altogether.
    all: bool,
}

impl Markers {
    fn of(model: ModelTraits) -> Self {
        Self {
            members: if model.caching < Caching::OneHour {
                &["scope", "ttl"]
            } else {
                &["scope"]
            },
            all: model.caching == Caching::No,
        }
    }

    /// Whether there may be anything to change in a text.
    fn are_in(&self, text: &str) -> bool {
        let has = |word: &str| memmem::find(text.as_bytes(), word.as_bytes()).is_some();
        has("\"scope\"")
            || self.members.contains(&"ttl") && has("\"ttl\"")
            || self.all && has(MARKER)
    }
}

const MARKER: &str = "\"cache_control\"";

/// Where in a body a value stands, as far as it is looked into. Nothing else is: what a client nests may be as deep as its body is
/// long.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// A cache marker.
    Marker,
    /// A message, or the list of them.
    Turn,
    /// What may carry a marker, or a list of it: a block. Below it are so many levels more of the like.
    Holder(u8),
    /// A tool, or the list of them.
    Tool,
    /// Nothing that anything could be in.
    Other,
}

/// From a message's blocks down: a tool result's blocks, the source of a document or search result in it, the blocks of that.
const LEVELS_OF_BLOCK: u8 = 3;

impl Place {
    /// The place of the top-level field `name`.
    fn of_field(name: &str) -> Self {
        match name {
            "system" => Self::Holder(0),
            "tools" => Self::Tool,
            "messages" => Self::Turn,
            _ => Self::Other,
        }
    }

    /// The place of the member `name`.
    fn below(self, name: &str) -> Self {
        match (self, name) {
            (Self::Turn, "content") => Self::Holder(LEVELS_OF_BLOCK),
            (Self::Holder(_) | Self::Tool, "cache_control") => Self::Marker,
            (Self::Holder(levels), "content" | "source") => {
                levels.checked_sub(1).map_or(Self::Other, Self::Holder)
            }
            _ => Self::Other,
        }
    }
}

struct Writer {
    out: Vec<u8>,
    markers: Markers,
}

impl Writer {
    fn put(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    /// Appends a value as it stands but for what Bedrock refuses. Only values that hold the words are looked into.
    fn value(&mut self, place: Place, value: &RawValue) -> Result<(), TranslateError> {
        let text = value.get();
        let is_suspect = match place {
            Place::Other => false,
            Place::Tool => {
                self.markers.are_in(text)
                    || TOOL_MEMBERS
                        .iter()
                        .any(|name| memmem::find(text.as_bytes(), name.as_bytes()).is_some())
            }
            Place::Turn => {
                self.markers.are_in(text) || may_change_tools(text) || has_more_than_turns(value)
            }
            Place::Marker | Place::Holder(_) => self.markers.are_in(text),
        };
        match (text.as_bytes().first(), place) {
            (Some(b'{'), _) if is_suspect => self.object(place, text),
            (Some(b'['), Place::Turn | Place::Holder(_) | Place::Tool) if is_suspect => {
                self.put("[");
                json::each(text, |at, item| {
                    if at > 0 {
                        self.put(",");
                    }
                    // Lists do not hold lists.
                    if item.get().starts_with('{') {
                        self.value(place, item)
                    } else {
                        self.put(item.get());
                        Ok(())
                    }
                })?;
                self.put("]");
                Ok(())
            }
            _ => {
                self.put(text);
                Ok(())
            }
        }
    }

    fn object(&mut self, place: Place, text: &str) -> Result<(), TranslateError> {
        if matches!(place, Place::Turn) {
            let [role, content] = json::pick(text, ["role", "content"])?;
            let is_system = role.is_some_and(|role| role.get() == r#""system""#);
            content
                .filter(|_| is_system)
                .map_or(Ok(()), refuse_tool_changes)?;
        }
        self.put("{");
        let start = self.out.len();
        json::members(text, |name, value| {
            let is_dropped = match place {
                Place::Marker => self.markers.members.contains(&name),
                Place::Tool if TOOL_MEMBERS.contains(&name) => true,
                Place::Turn => !TURN_MEMBERS.contains(&name),
                Place::Tool | Place::Holder(_) => self.markers.all && name == "cache_control",
                Place::Other => false,
            };
            if is_dropped {
                return Ok(());
            }
            if self.out.len() > start {
                self.put(",");
            }
            json::write_text(&mut self.out, name);
            self.put(":");
            self.value(place.below(name), value)
        })?;
        self.put("}");
        Ok(())
    }
}

/// Whether a message, or one of a list of them, has members that Bedrock refuses.
fn has_more_than_turns(value: &RawValue) -> bool {
    let mut more = false;
    let mut look = |message: &RawValue| {
        json::members(message.get(), |name, _| {
            more |= !TURN_MEMBERS.contains(&name);
            Ok::<_, serde_json::Error>(())
        })
    };
    // What is malformed stays as it is: Bedrock says so.
    let _ = match json::kind_of(value) {
        Kind::List => json::each(value.get(), |_, message| match json::kind_of(message) {
            Kind::Object => look(message),
            _ => Ok(()),
        }),
        Kind::Object => look(value),
        _ => Ok(()),
    };
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPUS: &str = "global.anthropic.claude-opus-4-8";
    const OLDER: &str = "us.anthropic.claude-3-7-sonnet-20250219-v1:0";
    const OLD: &str = "anthropic.claude-3-haiku-20240307-v1:0";

    fn try_invoke(body: &str) -> Result<Vec<u8>, TranslateError> {
        translate(body.as_bytes(), std::iter::empty(), ModelTraits::of(OPUS))
    }

    fn invoke_of(body: &str, betas: &[&str], model: &str) -> String {
        let model = ModelTraits::of(model);
        let body = translate(body.as_bytes(), betas.iter().copied(), model).unwrap();
        String::from_utf8(body).unwrap()
    }

    fn invoke(body: &str, betas: &[&str]) -> String {
        invoke_of(body, betas, OPUS)
    }

    #[test]
    fn what_bedrock_takes_stays_as_it_was_and_the_rest_goes() {
        let body = r#"{"model":"claude-x","max_tokens": 1e3,"stream":true,"messages":[ {"role":"user","content":"Gr\u00fc\u00dfe  "} ],"zeta":1.0,"cache_control":{"type":"ephemeral"},"tags":{},"top_p":0.50}"#;
        assert_eq!(
            invoke(body, &[]),
            r#"{"anthropic_version":"bedrock-2023-05-31","max_tokens":1e3,"messages":[ {"role":"user","content":"Gr\u00fc\u00dfe  "} ],"top_p":0.50}"#
        );
    }

    #[test]
    fn markers_are_such_as_the_model_takes() {
        let body = |marker: &str| {
            format!(
                r#"{{"system":[{{"type":"text","text":"the \"ttl\""{marker}}}],"tools":[{{"name":"a"{marker},"input_schema":{{"ttl":1,"cache_control":2}}}}]}}"#
            )
        };
        let given = body(r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#);
        for (model, left) in [
            (OPUS, r#","cache_control":{"type":"ephemeral","ttl":"1h"}"#),
            (OLDER, r#","cache_control":{"type":"ephemeral"}"#),
            (OLD, ""),
        ] {
            let sent = invoke_of(&given, &[], model);
            assert!(sent.ends_with(&body(left)[1..]), "{sent}");
        }
    }

    #[test]
    fn members_of_tools_that_bedrock_refuses_go() {
        let body = r#"{"tools":[{"name":"a","eager_input_streaming":true,"input_schema":{"properties":{"allowed_callers":{}}},"allowed_callers":["direct"],"strict":true}]}"#;
        assert_eq!(
            invoke(body, &[]),
            r#"{"anthropic_version":"bedrock-2023-05-31","anthropic_beta":["fine-grained-tool-streaming-2025-05-14"],"tools":[{"name":"a","input_schema":{"properties":{"allowed_callers":{}}},"strict":true}]}"#
        );
    }

    #[test]
    fn effort_goes_with_models_that_know_it() {
        let body = r#"{"output_config":{"effort":"high","format":{"type":"json_schema"}}}"#;
        assert!(invoke(body, &[]).ends_with(&body[1..]));
        let sent = invoke_of(body, &[], OLDER);
        assert!(
            sent.ends_with(r#","output_config":{"format":{"type":"json_schema"}}}"#),
            "{sent}"
        );
        assert!(!sent.contains("effort"), "nor its beta");
        let sent = invoke_of(r#"{"output_config":{"effort":"low"}}"#, &[EFFORT], OLDER);
        assert!(!sent.contains("output_config"));
    }

    #[test]
    fn of_the_output_config_goes_what_bedrock_takes() {
        for (given, sent) in [
            (
                r#"{"effort":"high","task_budget":{"type":"tokens","total":20000}}"#,
                r#","output_config":{"effort":"high"}}"#,
            ),
            (
                r#"{"task_budget":{"total":1},"format":{"type":"json_schema"}}"#,
                r#","output_config":{"format":{"type":"json_schema"}}}"#,
            ),
        ] {
            let out = invoke(
                &format!(r#"{{"output_config":{given}}}"#),
                &["task-budgets-2026-03-13"],
            );
            assert!(out.ends_with(sent), "{out}");
        }
        let out = invoke(r#"{"output_config":{"task_budget":{"total":1}}}"#, &[]);
        assert_eq!(out, r#"{"anthropic_version":"bedrock-2023-05-31"}"#);
        assert!(try_invoke(r#"{"output_config":[]}"#).is_err());
    }

    #[test]
    fn a_system_turn_that_changes_the_tools_is_not_sent() {
        for kind in ["tool_addition", "tool_removal"] {
            let turn = |role: &str| {
                format!(
                    r#"{{"messages":[{{"role":"user","content":"tool_addition"}},{{"role":"{role}","content":[{{"type":"{kind}","tool":{{"name":"n"}}}}]}}]}}"#
                )
            };
            assert!(
                matches!(try_invoke(&turn("system")), Err(TranslateError::Unsupported(name)) if name == kind)
            );
            // Of any other turn Bedrock says itself what is wrong.
            assert!(try_invoke(&turn("user")).is_ok());
        }
    }

    #[test]
    fn the_betas_name_for_a_format_is_the_one_that_bedrock_knows() {
        let format = r#"{"type":"json_schema","schema":{}}"#;
        for body in [
            format!(r#"{{"output_format":{format}}}"#),
            format!(r#"{{"output_config":{{"format":{format}}},"output_format":null}}"#),
        ] {
            assert!(
                invoke(&body, &[])
                    .ends_with(&format!(r#""output_config":{{"format":{format}}}}}"#))
            );
        }
    }

    #[test]
    fn system_turns_and_thinking_are_sent_as_they_are() {
        let body = r#""messages":[{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"b"}]},{"role":"assistant","content":[{"type":"thinking","thinking":"","signature":"c2ln"},{"type":"redacted_thinking","data":"x"}]}],"thinking":{"type":"adaptive"}}"#;
        assert!(
            invoke(
                &format!("{{{body}"),
                &["mid-conversation-system-2026-04-07"]
            )
            .ends_with(body)
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
    fn a_turn_has_its_role_and_content_alone() {
        let betas = ["per-turn-control-2026-07-01,thinking-display-updates-2026-08-18"];
        let body = r#"{"thinking":{"type":"adaptive","display":"updates"},"messages":[{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"output_config"}],"output_config":{"effort":"low"}}, "x"]}"#;
        assert_eq!(
            invoke(body, &betas),
            r#"{"anthropic_version":"bedrock-2023-05-31","thinking":{"type":"adaptive"},"messages":[{"role":"user","content":"a"},{"role":"system","content":[{"type":"text","text":"output_config"}]},"x"]}"#
        );
        let plain = r#""messages":[ {"role":"user",  "content":{"output_config":1}} ]}"#;
        assert!(invoke(&format!("{{{plain}"), &[]).ends_with(plain));
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
                matches!(try_invoke(&body), Err(TranslateError::Unsupported(name)) if name == field)
            );
            for nothing in ["null", "[]", "{}"] {
                let body = format!(r#"{{"{field}":{nothing}}}"#);
                let sent = try_invoke(&body).unwrap();
                assert_eq!(sent, br#"{"anthropic_version":"bedrock-2023-05-31"}"#);
            }
        }
    }

    #[test]
    fn the_scope_of_a_cache_marker_goes_with_its_beta() {
        let body = r#"{"system":[{"type":"text","text":"a \"scope\"","cache_control":{"type":"ephemeral","scope":"global","ttl":"1h"}}],"tools":[{"input_schema":{"properties":{"cache_control":{"scope":1}}},"cache_control":{"scope":"org","type":"ephemeral"}}],"messages":[{"content":[{"scope": 1.50}]}]}"#;
        assert_eq!(
            invoke(body, &["prompt-caching-scope-2026-01-05"]),
            r#"{"anthropic_version":"bedrock-2023-05-31","system":[{"type":"text","text":"a \"scope\"","cache_control":{"type":"ephemeral","ttl":"1h"}}],"tools":[{"input_schema":{"properties":{"cache_control":{"scope":1}}},"cache_control":{"type":"ephemeral"}}],"messages":[{"content":[{"scope":1.50}]}]}"#
        );
    }

    #[test]
    fn the_scope_goes_wherever_a_marker_may_stand_and_nowhere_else() {
        let marked = r#"{"type":"text","cache_control":{"type":"ephemeral","scope":"org"}}"#;
        let plain = r#"{"type":"text","cache_control":{"type":"ephemeral"}}"#;
        let body = |block: &str| {
            format!(
                r#"{{"messages":[{{"content":[{block},{{"type":"tool_result","content":[{block},{{"type":"document","source":{{"type":"content","content":[{block}]}}}}]}}]}}]}}"#
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
            for (field, begin, end) in [
                ("messages", r#"[{"content":"#, "}]"),
                ("messages", "", ""),
                ("system", "", ""),
                ("tools", "", ""),
                ("metadata", "", ""),
            ] {
                let (open, close) = (open.repeat(DEPTH), close.repeat(DEPTH));
                let nested = format!(r#""{field}":{begin}{open}{{"scope":1}}{close}{end}}}"#);
                let out = invoke(&format!("{{{nested}"), &[]);
                // A member that no message has is gone with all that is in it.
                let is_gone = (field, begin, &open[..1]) == ("messages", "", "{");
                assert!(is_gone || out.ends_with(&nested), "{field} {begin}");
            }
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for body in ["", "[]", "{", "\u{0}"] {
            assert!(
                matches!(try_invoke(body), Err(TranslateError::Malformed(_))),
                "{body:?}"
            );
        }
    }
}
