//! `tools` and `tool_choice`.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::Writer;
use super::cache::{List, Section, Ttl};
use crate::adapter::bedrock::TranslateError;
use crate::adapter::json::{self, Kind};

/// How the types of tools begin that Claude knows by itself and the client runs: Converse passes them on to the model as they
/// are. Those that Anthropic's servers run, Bedrock does not have, and tool search Converse refuses.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-tool-use.html>.
const NATIVE_TOOLS: &[&str] = &["bash_", "computer_", "memory_", "text_editor_"];

/// Members that such a tool loses: its marker becomes a cache point, and what the others are for goes with betas that Converse has
/// no form for, or is Bedrock's to decide.
const NOT_OF_NATIVE_TOOLS: &[&str] = &[
    "allowed_callers",
    "cache_control",
    "defer_loading",
    "eager_input_streaming",
    "input_examples",
];

struct Tool<'a> {
    kind: Option<Cow<'a, str>>,
    name: Cow<'a, str>,
    description: Option<&'a RawValue>,
    input_schema: Option<&'a RawValue>,
    strict: bool,
    ttl: Option<Ttl>,
    raw: &'a RawValue,
}

impl<'a> Tool<'a> {
    fn read(at: usize, raw: &'a RawValue) -> Result<Self, TranslateError> {
        let [kind, name, description, input_schema, strict, cache_control] = json::pick(
            raw.get(),
            [
                "type",
                "name",
                "description",
                "input_schema",
                "strict",
                "cache_control",
            ],
        )
        .map_err(|_| {
            TranslateError::invalid(
                format_args!("tools.{at}"),
                "Input should be a valid dictionary",
            )
        })?;
        let kind = kind.and_then(json::text).filter(|kind| kind != "custom");
        let name = name.and_then(json::text).ok_or_else(|| {
            TranslateError::invalid(format_args!("tools.{at}.name"), "Field required")
        });
        Ok(Self {
            name: if kind.is_some() {
                name.unwrap_or_default()
            } else {
                name?
            },
            kind,
            description,
            input_schema,
            strict: json::is_true(strict),
            ttl: Ttl::of(cache_control),
            raw,
        })
    }

    fn is_native(&self) -> bool {
        self.kind
            .as_ref()
            .is_some_and(|kind| NATIVE_TOOLS.iter().any(|start| kind.starts_with(start)))
    }
}

impl<'a> Writer<'a> {
    /// Gives the tools their names, before the conversation that uses them: those that fit first, so that they keep theirs.
    pub(super) fn register_tools(
        &mut self,
        tools: Option<&'a RawValue>,
    ) -> Result<(), TranslateError> {
        let Some(tools) = tools else { return Ok(()) };
        if json::kind_of(tools) != Kind::List {
            return Err(TranslateError::invalid(
                "tools",
                "Input should be a valid list",
            ));
        }
        let mut others = Vec::new();
        json::each(tools.get(), |at, raw| {
            let tool = Tool::read(at, raw)?;
            if tool.is_native() && self.model.is_anthropic() {
                let native = json::without(tool.raw.get(), NOT_OF_NATIVE_TOOLS)?;
                self.native_tools.push(native);
                self.native_names.insert(tool.name.clone());
            } else if let Some(kind) = &tool.kind {
                return Err(unknown_tag(at, kind));
            } else if !self.tools.fits(&tool.name) {
                others.push(tool.name);
                return Ok(());
            }
            self.tools.wire(tool.name);
            Ok(())
        })?;
        for name in others {
            self.tools.wire(name);
        }
        Ok(())
    }

    /// Appends `toolConfig`, where there are tools or the conversation has used some. Gives the choice if it is for
    /// `additionalModelRequestFields`: Converse has no word for it, or the tools that it is about stand there.
    pub(super) fn tool_config(
        &mut self,
        tools: Option<&'a RawValue>,
        tool_choice: Option<&'a RawValue>,
    ) -> Result<Option<&'a RawValue>, TranslateError> {
        let [kind, name, one_at_a_time] = match tool_choice {
            None => [None; 3],
            Some(choice) => json::pick(choice.get(), ["type", "name", "disable_parallel_tool_use"])
                .map_err(|_| {
                    TranslateError::invalid("tool_choice", "Input should be a valid dictionary")
                })?,
        };
        let kind = kind.and_then(json::text).unwrap_or(Cow::Borrowed("auto"));
        let name = name.and_then(json::text);
        let is_claude = self.model.is_anthropic();
        if kind == "none" && !is_claude && !self.uses_tools {
            return Ok(None);
        }
        let start = self.out.len();
        self.put(",\"toolConfig\":{\"tools\":[");
        let mut list = List::new(Section::Tools);
        if let Some(tools) = tools {
            json::each(tools.get(), |at, raw| {
                let tool = Tool::read(at, raw)?;
                if tool.kind.is_some() {
                    list.mark(&mut self.points, &mut self.out, tool.ttl);
                    return Ok(());
                }
                self.tool(&mut list, at, tool)
            })?;
        }
        let names_native = name
            .as_ref()
            .is_some_and(|name| self.native_names.contains(name));
        let is_among_native = names_native || list.is_empty() && !self.native_tools.is_empty();
        if list.is_empty() && self.uses_tools {
            self.former_tools(&mut list);
        }
        if list.is_empty() {
            self.out.truncate(start);
            return Ok(tool_choice.filter(|_| is_among_native));
        }
        list.finish(&mut self.points, &mut self.out);
        self.put("]");
        let passed_on = match kind.as_ref() {
            _ if is_among_native => tool_choice,
            // Both that and Converse's own would be two choices, which are refused: `disable_parallel_tool_use` is lost.
            "any" => {
                self.put(",\"toolChoice\":{\"any\":{}}");
                None
            }
            "tool" => {
                let name = name.ok_or_else(|| {
                    TranslateError::invalid("tool_choice.tool.name", "Field required")
                })?;
                self.put(",\"toolChoice\":{\"tool\":{\"name\":");
                json::write_text(&mut self.out, self.tools.wire(name));
                self.put("}}");
                None
            }
            "none" => tool_choice.filter(|_| is_claude),
            "auto" => tool_choice.filter(|_| is_claude && json::is_true(one_at_a_time)),
            _ => {
                return Err(TranslateError::invalid(
                    "tool_choice.type",
                    "Input should be 'auto', 'any', 'tool' or 'none'",
                ));
            }
        };
        self.put("}");
        Ok(passed_on)
    }

    fn tool(&mut self, list: &mut List, at: usize, tool: Tool<'a>) -> Result<(), TranslateError> {
        let Some(schema) = tool
            .input_schema
            .filter(|schema| json::kind_of(schema) == Kind::Object)
        else {
            return Err(TranslateError::invalid(
                format_args!("tools.{at}.custom.input_schema"),
                "Field required",
            ));
        };
        list.begin(&mut self.out);
        self.put("{\"toolSpec\":{\"name\":");
        json::write_text(&mut self.out, self.tools.wire(tool.name));
        if let Some(description) = tool
            .description
            .filter(|text| json::kind_of(text) == Kind::Text && json::escaped(text) != Some(""))
        {
            self.put(",\"description\":");
            self.put(description.get());
        }
        self.put(",\"inputSchema\":{\"json\":");
        self.put(schema.get());
        self.put("}");
        if tool.strict && self.model.is_anthropic() {
            self.put(",\"strict\":true");
        }
        self.put("}}");
        list.end(&mut self.points, &mut self.out, tool.ttl);
        Ok(())
    }

    /// Converse refuses tool calls in a conversation that has no tools: those that it used are declared, with any arguments.
    fn former_tools(&mut self, list: &mut List) {
        let native = self.native_names.len();
        let mut names: Vec<String> = self.tools.all().skip(native).map(str::to_owned).collect();
        if names.is_empty() {
            names.push("no_tool".to_owned());
        }
        for name in names {
            list.begin(&mut self.out);
            self.put("{\"toolSpec\":{\"name\":");
            self.put_text(&name);
            self.put(",\"inputSchema\":{\"json\":{\"type\":\"object\"}}}}");
            list.end(&mut self.points, &mut self.out, None);
        }
    }
}

/// In the words that clients know: Claude Code leaves the tool out and tries again.
fn unknown_tag(at: usize, kind: &str) -> TranslateError {
    let kind: String = kind.chars().filter(|c| !c.is_control()).take(64).collect();
    let what =
        format!("Input tag '{kind}' found using 'type' does not match any of the expected tags");
    TranslateError::invalid(format_args!("tools.{at}"), &what)
}
