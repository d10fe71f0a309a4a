//! Content blocks.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::value::RawValue;

use super::Writer;
use super::cache::Ttl;
use super::documents;
use super::turns::{Role, Turns};
use crate::adapter::bedrock::TranslateError;
use crate::adapter::bedrock::models::Vendor;
use crate::adapter::json::{self, Kind};

/// Where a block stands, for errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) message: usize,
    pub(super) block: usize,
    /// Its place in a tool result.
    pub(super) inner: Option<usize>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "messages.{}.content.{}", self.message, self.block)?;
        match self.inner {
            Some(inner) => write!(f, ".tool_result.content.{inner}"),
            None => Ok(()),
        }
    }
}

impl Place {
    fn invalid(self, field: &str, what: &str) -> TranslateError {
        TranslateError::invalid(format_args!("{self}{field}"), what)
    }

    /// In the words that clients know: Claude Code drops what they name and tries again.
    fn unknown_tag(self, kind: &str) -> TranslateError {
        let kind: String = kind.chars().filter(|c| !c.is_control()).take(64).collect();
        let what = format!(
            "Input tag '{kind}' found using 'type' does not match any of the expected tags"
        );
        self.invalid("", &what)
    }

    fn text<'a>(
        self,
        field: &str,
        value: Option<&'a RawValue>,
    ) -> Result<Cow<'a, str>, TranslateError> {
        let Some(value) = value else {
            return Err(self.invalid(field, "Field required"));
        };
        json::text(value).ok_or_else(|| self.invalid(field, "Input should be a valid string"))
    }

    /// A string that is copied as it is.
    fn raw_text<'a>(
        self,
        field: &str,
        value: Option<&'a RawValue>,
    ) -> Result<&'a str, TranslateError> {
        match value {
            None => Err(self.invalid(field, "Field required")),
            Some(value) if json::kind_of(value) == Kind::Text => Ok(value.get()),
            Some(_) => Err(self.invalid(field, "Input should be a valid string")),
        }
    }
}

json::picked! {
    /// The fields of a block, of whatever type.
    struct Fields {
        kind: "type",
        cache_control: "cache_control",
        text: "text",
        source: "source",
        title: "title",
        context: "context",
        citations: "citations",
        id: "id",
        name: "name",
        input: "input",
        tool_use_id: "tool_use_id",
        tool_name: "tool_name",
        content: "content",
        is_error: "is_error",
        thinking: "thinking",
        signature: "signature",
        data: "data",
    }
}

/// A block.
struct Block<'a> {
    kind: Cow<'a, str>,
    ttl: Option<Ttl>,
    fields: Fields<'a>,
}

impl<'a> Block<'a> {
    fn read(place: Place, raw: &'a RawValue) -> Result<Self, TranslateError> {
        let fields = Fields::read(raw.get())
            .map_err(|_| place.invalid("", "Input should be a valid dictionary"))?;
        Ok(Self {
            kind: place.text(".type", fields.kind)?,
            ttl: Ttl::of(fields.cache_control),
            fields,
        })
    }
}

impl<'a> Writer<'a> {
    /// Appends a block to the turn of `role`.
    pub(super) fn block(
        &mut self,
        turns: &mut Turns<'a>,
        role: Role,
        place: Place,
        raw: &'a RawValue,
    ) -> Result<(), TranslateError> {
        let block = Block::read(place, raw)?;
        match (block.kind.as_ref(), role) {
            ("text", _) => {
                place.raw_text(".text", block.fields.text)?;
                self.text(turns, role, block.fields.text, block.ttl);
                Ok(())
            }
            // What was said before is summed up in it.
            ("compaction", Role::Assistant) => {
                self.text(turns, role, block.fields.content, block.ttl);
                Ok(())
            }
            ("thinking" | "redacted_thinking", Role::Assistant) => {
                self.reasoning(turns, place, &block)
            }
            ("tool_use", Role::Assistant) => self.tool_use(turns, place, &block),
            ("tool_result", Role::User) => self.tool_result(turns, place, &block),
            ("image", _) => {
                self.begin(turns, role, false);
                self.image(place, &block)?;
                self.end(turns, block.ttl);
                Ok(())
            }
            ("document", _) => {
                self.begin(turns, role, false);
                self.document(place, &block)?;
                Self::end_barrier(turns, block.ttl);
                Ok(())
            }
            ("search_result", Role::User) => {
                self.begin(turns, role, false);
                self.search_result(place, &block)?;
                self.end(turns, block.ttl);
                Ok(())
            }
            ("tool_use" | "thinking" | "redacted_thinking", Role::User)
            | ("tool_result", Role::Assistant) => Err(place.invalid(
                "",
                &format!(
                    "`{}` blocks can not be in a message of this role",
                    block.kind
                ),
            )),
            (kind, Role::User) => Err(place.unknown_tag(kind)),
            // What the Plan's own tools did and said, and what it may say in times to come, has no form here. The text that it
            // led to stays.
            (_, Role::Assistant) => {
                self.mark(turns, block.ttl);
                Ok(())
            }
        }
    }

    /// Converse refuses a text that is blank.
    fn text(
        &mut self,
        turns: &mut Turns<'a>,
        role: Role,
        text: Option<&RawValue>,
        ttl: Option<Ttl>,
    ) {
        let Some(text) =
            text.filter(|text| json::kind_of(text) == Kind::Text && !json::is_blank(text))
        else {
            self.mark(turns, ttl);
            return;
        };
        self.begin(turns, role, false);
        self.text_block(text.get());
        self.end(turns, ttl);
    }

    /// Appends a text, which is JSON already.
    pub(super) fn text_block(&mut self, text: &str) {
        self.put("{\"text\":");
        self.put(text);
        self.put("}");
    }

    /// Thinking goes back to Claude as it came, signature and all; without one it would be refused. Other models take none.
    fn reasoning(
        &mut self,
        turns: &mut Turns<'a>,
        place: Place,
        block: &Block<'a>,
    ) -> Result<(), TranslateError> {
        if !self.model.is_anthropic() {
            return Ok(());
        }
        if block.kind == "redacted_thinking" {
            let data = place.text(".data", block.fields.data)?;
            self.begin(turns, Role::Assistant, false);
            // The wire has base64 of what the Messages API has as base64.
            self.put("{\"reasoningContent\":{\"redactedContent\":\"");
            self.put(&BASE64_STANDARD.encode(data.as_bytes()));
            self.put("\"}}");
            Self::end_barrier(turns, None);
            return Ok(());
        }
        let Some(signature) = block.fields.signature.filter(|signature| {
            json::kind_of(signature) == Kind::Text && !json::is_blank(signature)
        }) else {
            return Ok(());
        };
        let thinking = place.raw_text(".thinking", block.fields.thinking)?;
        self.begin(turns, Role::Assistant, false);
        self.put("{\"reasoningContent\":{\"reasoningText\":{\"text\":");
        self.put(thinking);
        self.put(",\"signature\":");
        self.put(signature.get());
        self.put("}}}");
        Self::end_barrier(turns, None);
        Ok(())
    }

    fn tool_use(
        &mut self,
        turns: &mut Turns<'a>,
        place: Place,
        block: &Block<'a>,
    ) -> Result<(), TranslateError> {
        let id = place.text(".id", block.fields.id)?;
        let name = place.text(".name", block.fields.name)?;
        let input = match block.fields.input {
            None => "{}",
            Some(input) if json::kind_of(input) == Kind::Object => input.get(),
            Some(_) => {
                return Err(place.invalid(".input", "Input should be a valid dictionary"));
            }
        };
        self.uses_tools = true;
        self.begin(turns, Role::Assistant, false);
        self.put("{\"toolUse\":{\"toolUseId\":");
        json::write_text(&mut self.out, self.calls.wire(id));
        self.put(",\"name\":");
        json::write_text(&mut self.out, self.tools.wire(name));
        self.put(",\"input\":");
        self.put(input);
        self.put("}}");
        self.end(turns, block.ttl);
        Ok(())
    }

    fn tool_result(
        &mut self,
        turns: &mut Turns<'a>,
        place: Place,
        block: &Block<'a>,
    ) -> Result<(), TranslateError> {
        let id = place.text(".tool_use_id", block.fields.tool_use_id)?;
        self.uses_tools = true;
        self.begin(turns, Role::User, true);
        self.put("{\"toolResult\":{\"toolUseId\":");
        json::write_text(&mut self.out, self.calls.wire(id));
        self.put(",\"content\":[");
        // A marker within has no place but behind the result.
        let mut ttl = block.ttl;
        match block.fields.content {
            None => {}
            Some(content) if json::kind_of(content) == Kind::Text && json::is_blank(content) => {}
            Some(content) if json::kind_of(content) == Kind::Text => {
                self.text_block(content.get());
            }
            Some(content) if json::kind_of(content) == Kind::List => {
                let mut is_first = true;
                json::each(content.get(), |at, inner| {
                    let place = Place {
                        inner: Some(at),
                        ..place
                    };
                    let inner = Block::read(place, inner)?;
                    ttl = ttl.max(inner.ttl);
                    self.result_block(&mut is_first, place, &inner)
                })?;
            }
            Some(_) => {
                return Err(place.invalid(".content", "Input should be a valid string or list"));
            }
        }
        self.put("]");
        // Models of other vendors know no status.
        if json::is_true(block.fields.is_error) && self.model.vendor != Vendor::Other {
            self.put(",\"status\":\"error\"");
        }
        self.put("}}");
        self.end(turns, ttl);
        Ok(())
    }

    fn result_block(
        &mut self,
        is_first: &mut bool,
        place: Place,
        block: &Block<'a>,
    ) -> Result<(), TranslateError> {
        let mut comma = |writer: &mut Self| {
            if !std::mem::take(is_first) {
                writer.out.push(b',');
            }
        };
        match block.kind.as_ref() {
            "text" => {
                let text = place.raw_text(".text", block.fields.text)?;
                if !block.fields.text.is_some_and(json::is_blank) {
                    comma(self);
                    self.text_block(text);
                }
                Ok(())
            }
            "image" => {
                comma(self);
                self.image(place, block)
            }
            "document" => {
                comma(self);
                self.document(place, block)
            }
            "search_result" => {
                comma(self);
                self.search_result(place, block)
            }
            // A tool that a search found: all tools are there from the start here.
            "tool_reference" => {
                let name = place.raw_text(".tool_name", block.fields.tool_name)?;
                comma(self);
                self.text_block(name);
                Ok(())
            }
            kind => Err(place.unknown_tag(kind)),
        }
    }

    fn image(&mut self, place: Place, block: &Block<'a>) -> Result<(), TranslateError> {
        let [kind, media_type, data] =
            Self::source(place, block.fields.source, ["type", "media_type", "data"])?;
        match place.text(".source.type", kind)?.as_ref() {
            "base64" => {}
            "url" => return Err(TranslateError::Unsupported("image_source_url")),
            "file" => return Err(TranslateError::Unsupported("image_source_file")),
            kind => return Err(place.unknown_tag(kind)),
        }
        let media_type = place.text(".source.media_type", media_type)?;
        let format = match media_type.as_ref() {
            "image/png" => "png",
            "image/jpeg" => "jpeg",
            "image/gif" => "gif",
            "image/webp" => "webp",
            _ => {
                return Err(place.invalid(
                    ".source.media_type",
                    "Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'",
                ));
            }
        };
        let data = place.raw_text(".source.data", data)?;
        self.put("{\"image\":{\"format\":\"");
        self.put(format);
        self.put("\",\"source\":{\"bytes\":");
        self.put(data);
        self.put("}}}");
        Ok(())
    }

    fn document(&mut self, place: Place, block: &Block<'a>) -> Result<(), TranslateError> {
        let [kind, media_type, data, content] = Self::source(
            place,
            block.fields.source,
            ["type", "media_type", "data", "content"],
        )?;
        let title = block.fields.title.and_then(json::text);
        let name = self.documents.name(title.as_deref());
        self.put("{\"document\":{\"name\":");
        self.put_text(&name);
        match place.text(".source.type", kind)?.as_ref() {
            "base64" => {
                let media_type = place.text(".source.media_type", media_type)?;
                let format = documents::format(&media_type).ok_or_else(|| {
                    place.invalid(".source.media_type", "Input should be 'application/pdf'")
                })?;
                let data = place.raw_text(".source.data", data)?;
                self.put(",\"format\":\"");
                self.put(format);
                self.put("\",\"source\":{\"bytes\":");
                self.put(data);
                self.put("}");
            }
            // As recorded calls have it that were accepted: text for Claude, which counts characters when it cites, and a file for
            // others, of which none was seen to take anything else.
            "text" if self.model.is_anthropic() => {
                let data = place.raw_text(".source.data", data)?;
                self.put(",\"format\":\"txt\",\"source\":{\"text\":");
                self.put(data);
                self.put("}");
            }
            "text" => {
                let data = place.text(".source.data", data)?;
                self.put(",\"format\":\"txt\",\"source\":{\"bytes\":\"");
                self.put(&BASE64_STANDARD.encode(data.as_bytes()));
                self.put("\"}");
            }
            "content" => {
                self.put(",\"format\":\"txt\",\"source\":{\"content\":[");
                self.texts(place, ".source.content", content)?;
                self.put("]}");
            }
            "url" => return Err(TranslateError::Unsupported("document_source_url")),
            "file" => return Err(TranslateError::Unsupported("document_source_file")),
            kind => return Err(place.unknown_tag(kind)),
        }
        if let Some(context) = block
            .fields
            .context
            .filter(|context| !json::is_blank(context))
        {
            self.put(",\"context\":");
            self.put(place.raw_text(".context", Some(context))?);
        }
        self.citations(block.fields.citations);
        self.put("}}");
        Ok(())
    }

    fn search_result(&mut self, place: Place, block: &Block<'a>) -> Result<(), TranslateError> {
        self.put("{\"searchResult\":{\"source\":");
        self.put(place.raw_text(".source", block.fields.source)?);
        self.put(",\"title\":");
        self.put(place.raw_text(".title", block.fields.title)?);
        self.put(",\"content\":[");
        self.texts(place, ".content", block.fields.content)?;
        self.put("]");
        self.citations(block.fields.citations);
        self.put("}}");
        Ok(())
    }

    fn citations(&mut self, citations: Option<&RawValue>) {
        if let Some(citations) = citations
            && let Ok([enabled]) = json::pick(citations.get(), ["enabled"])
            && json::is_true(enabled)
        {
            self.put(",\"citations\":{\"enabled\":true}");
        }
    }

    /// A text, or a list of text blocks.
    fn texts(
        &mut self,
        place: Place,
        field: &str,
        content: Option<&'a RawValue>,
    ) -> Result<(), TranslateError> {
        let content = content.ok_or_else(|| place.invalid(field, "Field required"))?;
        if json::kind_of(content) == Kind::Text {
            self.text_block(content.get());
            return Ok(());
        }
        let mut is_first = true;
        json::each(content.get(), |_, item| {
            let [kind, text] = json::pick(item.get(), ["type", "text"])?;
            if kind.is_none_or(|kind| kind.get() != r#""text""#) {
                return Err(TranslateError::Unsupported("document_content_image"));
            }
            let text = place.raw_text(field, text)?;
            if !std::mem::take(&mut is_first) {
                self.out.push(b',');
            }
            self.text_block(text);
            Ok(())
        })
    }

    fn source<const N: usize>(
        place: Place,
        source: Option<&'a RawValue>,
        names: [&str; N],
    ) -> Result<[Option<&'a RawValue>; N], TranslateError> {
        let source = source.ok_or_else(|| place.invalid(".source", "Field required"))?;
        json::pick(source.get(), names)
            .map_err(|_| place.invalid(".source", "Input should be a valid dictionary"))
    }
}
