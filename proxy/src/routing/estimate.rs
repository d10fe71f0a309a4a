//! Guesses how many input tokens a request has, where nobody who knows can be asked.
//!
//! The numbers were fitted to requests whose count the Messages API reported: of text and tools the guess is mostly within a
//! quarter. Server tools, files and URLs bring in what a body does not show.

use serde_json::value::RawValue;

use super::image_size;
use crate::adapter::json;

/// Tokens of an empty conversation, and what each message adds.
const CONVERSATION: u64 = 3;
const MESSAGE: u64 = 4;
/// What a system prompt adds to its text.
const SYSTEM: u64 = 3;
/// The system prompt that comes with tools, and what each tool adds to its definition.
/// Source of the first: <https://docs.anthropic.com/en/docs/agents-and-tools/tool-use/overview#pricing>.
const TOOLS: u64 = 480;
const TOOL: u64 = 14;
/// What a call of a tool, or its result, adds to its content.
const TOOL_BLOCK: u64 = 12;
/// The system prompt that comes with an output schema, and with thinking.
const OUTPUT_SCHEMA: u64 = 210;
const THINKING: u64 = 30;
/// An image whose size is not known, or that is scaled down.
/// Source: <https://docs.anthropic.com/en/docs/build-with-claude/vision#evaluate-image-size>.
const LARGEST_IMAGE: u64 = 1_600;
const PIXELS_PER_TOKEN: u64 = 750;
/// A page of a PDF, as text and as an image, and about how many bytes it has.
/// Source: <https://docs.anthropic.com/en/docs/build-with-claude/pdf-support#estimate-your-costs>.
const PAGE: u64 = 2_500;
const PAGE_BYTES: u64 = 60_000;

/// From a message down: its blocks, a tool result's blocks, the blocks of a document in it.
const LEVELS_OF_MESSAGE: u8 = 4;

/// Counts of bytes by how many make a token.
#[derive(Debug, Default)]
struct Weight {
    tokens: u64,
    /// ASCII text.
    prose: u64,
    /// ASCII of JSON.
    json: u64,
    /// Bytes of any other script.
    other: u64,
}

impl Weight {
    fn tokens(&self) -> u64 {
        self.tokens + self.prose * 10 / 39 + self.json * 10 / 33 + self.other * 10 / 25
    }

    fn prose(&mut self, text: &str) {
        let ascii = ascii(text);
        self.prose += ascii;
        self.other += text.len() as u64 - ascii;
    }

    fn json(&mut self, text: &str) {
        let ascii = ascii(text);
        self.json += ascii;
        self.other += text.len() as u64 - ascii;
    }

    /// A text or a list of blocks.
    fn content(&mut self, value: &RawValue, levels: u8) {
        let text = value.get();
        match (text.as_bytes().first(), levels.checked_sub(1)) {
            (Some(b'"'), _) => self.string(value),
            (Some(b'['), Some(levels)) => {
                // It was read once already, so that nothing in it is malformed.
                let _ = each(text, |block| self.block(block, levels));
            }
            (Some(b'{'), Some(levels)) => self.block(value, levels),
            _ => self.json(text),
        }
    }

    fn string(&mut self, value: &RawValue) {
        match json::text(value) {
            Some(text) => self.prose(&text),
            None => self.json(value.get()),
        }
    }

    fn block(&mut self, value: &RawValue, levels: u8) {
        let Ok(block) = Block::read(value.get()) else {
            return self.json(value.get());
        };
        match block.kind.and_then(json::text).as_deref() {
            Some("text") => self.each(block.text, levels),
            // That of earlier turns is not read again.
            Some("thinking" | "redacted_thinking") => {}
            Some("image") => self.tokens += block.source.map_or(LARGEST_IMAGE, image),
            Some("document") => self.document(block.source, levels),
            Some("search_result") => self.each(block.content, levels),
            Some(kind) if kind.ends_with("tool_use") => {
                self.tokens += TOOL_BLOCK;
                for part in [block.name, block.input].into_iter().flatten() {
                    self.json(part.get());
                }
            }
            Some(kind) if kind.ends_with("tool_result") => {
                self.tokens += TOOL_BLOCK;
                self.each(block.content, levels);
            }
            _ => self.json(value.get()),
        }
    }

    fn each(&mut self, value: Option<&RawValue>, levels: u8) {
        if let Some(value) = value {
            self.content(value, levels);
        }
    }

    fn document(&mut self, source: Option<&RawValue>, levels: u8) {
        let source = source.and_then(|source| Source::read(source.get()).ok());
        match source {
            Some(Source {
                kind: Some(kind),
                data: Some(text),
                ..
            }) if kind.get() == r#""text""# => self.string(text),
            Some(Source {
                content: Some(content),
                ..
            }) => self.content(content, levels),
            Some(Source {
                data: Some(data), ..
            }) => {
                let bytes = data.get().len() as u64 / 4 * 3;
                self.tokens += PAGE * bytes.div_ceil(PAGE_BYTES);
            }
            _ => self.tokens += PAGE,
        }
    }
}

/// Calls `on_item` for each item of a list without collecting them: they may be many more than make sense.
fn each<'a>(list: &'a str, mut on_item: impl FnMut(&'a RawValue)) -> Result<(), serde_json::Error> {
    json::each(list, |_, item| {
        on_item(item);
        Ok(())
    })
}

fn ascii(text: &str) -> u64 {
    text.bytes().filter(u8::is_ascii).count() as u64
}

fn image(source: &RawValue) -> u64 {
    member(source, "data")
        .and_then(json::text)
        .and_then(|data| image_size::of_base64(&data))
        .map_or(LARGEST_IMAGE, |(width, height)| {
            (u64::from(width) * u64::from(height) / PIXELS_PER_TOKEN).clamp(1, LARGEST_IMAGE)
        })
}

json::picked! {
    struct Request {
        system: "system",
        messages: "messages",
        tools: "tools",
        thinking: "thinking",
        output_config: "output_config",
        output_format: "output_format",
    }
}

json::picked! {
    struct Block {
        kind: "type",
        text: "text",
        content: "content",
        source: "source",
        name: "name",
        input: "input",
    }
}

json::picked! {
    struct Source {
        kind: "type",
        data: "data",
        content: "content",
    }
}

/// The value of the one member of this name.
fn member<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    json::pick(object.get(), [name]).ok()?[0]
}

/// About how many input tokens a request of this body has; `None` if it is no request with messages.
pub fn input_tokens(body: &[u8]) -> Option<u64> {
    let request = Request::read(std::str::from_utf8(body).ok()?).ok()?;
    let mut weight = Weight {
        tokens: CONVERSATION,
        ..Weight::default()
    };
    each(request.messages?.get(), |message| {
        weight.tokens += MESSAGE;
        match member(message, "content") {
            Some(content) => weight.content(content, LEVELS_OF_MESSAGE),
            None => weight.json(message.get()),
        }
    })
    .ok()?;
    if let Some(system) = request.system {
        weight.tokens += SYSTEM;
        weight.content(system, LEVELS_OF_MESSAGE);
    }
    let mut has_tools = false;
    let counted = each(request.tools.map_or("[]", RawValue::get), |tool| {
        has_tools = true;
        weight.tokens += TOOL;
        weight.json(tool.get());
    });
    // What is no list has no tools.
    counted.ok();
    weight.tokens += if has_tools { TOOLS } else { 0 };
    let schema = request
        .output_format
        .or_else(|| member(request.output_config?, "format"));
    if let Some(schema) = schema {
        weight.tokens += OUTPUT_SCHEMA;
        weight.json(schema.get());
    }
    if request
        .thinking
        .is_some_and(|thinking| !thinking.get().contains("\"disabled\""))
    {
        weight.tokens += THINKING;
    }
    Some(weight.tokens())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn count(body: &Value) -> u64 {
        input_tokens(body.to_string().as_bytes()).unwrap()
    }

    fn user(content: &Value) -> Value {
        json!({"model": "m", "messages": [{"role": "user", "content": content}]})
    }

    #[test]
    fn a_text_counts_alike_as_a_string_and_as_a_block() {
        let text = "The quick brown fox jumps over the lazy dog. ".repeat(40);
        let count_of = |content: &Value| count(&user(content));
        let expected = 40 * 10;
        for content in [json!(text), json!([{"type": "text", "text": text}])] {
            let counted = count_of(&content);
            assert!(counted.abs_diff(expected) < expected / 4, "{counted}");
        }
        let result = json!([{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": text}]}]);
        assert_eq!(count_of(&result), count_of(&json!(text)) + TOOL_BLOCK);
    }

    #[test]
    fn other_scripts_take_more_tokens_for_a_character() {
        let latin = count(&user(&json!("a".repeat(390))));
        let chinese = count(&user(&json!("字".repeat(390))));
        assert!(chinese > 3 * latin, "{chinese} {latin}");
    }

    #[test]
    fn system_tools_schemas_and_thinking_are_counted() {
        let plain = count(&user(&json!("hello")));
        let tool = json!({"name": "get_weather", "description": "Gets the weather", "input_schema": {"type": "object"}});
        for (field, value, least) in [
            ("system", json!("You are helpful, and brief at that."), 8),
            (
                "system",
                json!([{"type": "text", "text": "You are helpful, and brief at that."}]),
                8,
            ),
            ("tools", json!([tool]), TOOLS + 20),
            ("tools", json!([tool, tool, tool]), TOOLS + 60),
            (
                "output_config",
                json!({"format": {"type": "json_schema", "schema": {}}}),
                OUTPUT_SCHEMA,
            ),
            ("thinking", json!({"type": "adaptive"}), THINKING),
        ] {
            let mut body = user(&json!("hello"));
            body[field] = value;
            let counted = count(&body);
            assert!(counted >= plain + least, "{field}: {counted}");
        }
        let mut body = user(&json!("hello"));
        body["tools"] = json!([]);
        body["thinking"] = json!({"type": "disabled"});
        assert_eq!(count(&body), plain);
    }

    #[test]
    fn images_count_by_size_and_not_by_bytes() {
        let small = "iVBORw0KGgoAAAANSUhEUgAAAMgAAABkCAYAAADDhn8LAAAA";
        for (data, tokens) in [
            (small.to_owned(), 200 * 100 / 750),
            (format!("{small}{}", "A".repeat(100_000)), 200 * 100 / 750),
            ("not an image".to_owned(), LARGEST_IMAGE),
        ] {
            let image = json!([{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]);
            assert_eq!(count(&user(&image)), CONVERSATION + MESSAGE + tokens);
        }
        let url = json!([{"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}]);
        assert_eq!(count(&user(&url)), CONVERSATION + MESSAGE + LARGEST_IMAGE);
    }

    #[test]
    fn documents_count_by_their_text_or_their_pages() {
        let of = |source: Value| count(&user(&json!([{"type": "document", "source": source}])));
        let text =
            of(json!({"type": "text", "media_type": "text/plain", "data": "word ".repeat(100)}));
        assert!((100..200).contains(&text), "{text}");
        let blocks = of(
            json!({"type": "content", "content": [{"type": "text", "text": "word ".repeat(100)}]}),
        );
        assert_eq!(blocks, text);
        let two_pages = of(
            json!({"type": "base64", "media_type": "application/pdf", "data": "A".repeat(100_000)}),
        );
        assert!(two_pages >= 2 * PAGE, "{two_pages}");
    }

    #[test]
    fn thinking_of_earlier_turns_is_not_counted() {
        let with = json!([{"type": "thinking", "thinking": "x".repeat(9000), "signature": "y".repeat(900)}, {"type": "text", "text": "ok"}]);
        assert_eq!(
            count(&user(&with)),
            count(&user(&json!([{"type": "text", "text": "ok"}])))
        );
    }

    #[test]
    fn nesting_has_no_bottom_to_fall_to() {
        let deep = format!(
            r#"{{"messages":[{{"content":{}1{}}}]}}"#,
            r#"[{"type":"tool_result","content":"#.repeat(50_000),
            "}]".repeat(50_000)
        );
        assert!(input_tokens(deep.as_bytes()).unwrap() > 100_000);
        for body in ["", "[]", "{}", r#"{"messages":1}"#] {
            assert_eq!(input_tokens(body.as_bytes()), None, "{body}");
        }
        assert!(input_tokens(br#"{"messages":[1,{"content":null},{}]}"#).is_some());
    }
}
