//! `ConverseStream`'s events as those of the Messages API.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::value::RawValue;

use super::blocks::{Block, Kind, MAX_KEPT};
use super::citations;
use super::context::Context;
use super::names::replayable_id;
use super::stop::Stop;
use super::usage::Usage;
use crate::adapter::json;
use crate::stream::{Frame, write_event};

/// Why a stream cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamError {
    /// Bedrock says so itself.
    #[error("bedrock ended the stream with {code}")]
    Reported {
        /// The exception, as it is named on the wire.
        code: String,
        /// Its words, which may tell of the account.
        message: String,
    },
    /// An event is not what it should be.
    #[error("an event is not one of converse")]
    Malformed(#[from] serde_json::Error),
}

/// Turns event after event into server-sent events. Blocks get numbers of their own, since some have no form there.
///
/// Converse begins neither texts nor reasoning, tells the usage after the stop, and may send texts that stay empty: blocks begin
/// with what they show, and the message's end waits for its usage.
#[derive(Debug)]
pub(super) struct Events {
    context: Context,
    /// `message_start`, which holds a guess of the usage, once, until it is taken.
    start: Option<Bytes>,
    is_started: bool,
    open: Option<Block>,
    blocks: u64,
    stop: Option<Stop>,
    usage: Option<Usage>,
    /// Whether that is what Converse reported.
    is_counted: bool,
    is_done: bool,
    hidden: usize,
}

impl Events {
    pub(super) fn new(context: Context) -> Self {
        Self {
            context,
            start: None,
            is_started: false,
            open: None,
            blocks: 0,
            stop: None,
            usage: None,
            is_counted: false,
            is_done: false,
            hidden: 0,
        }
    }

    /// Takes the next frame; what it says is appended to `out`.
    pub(super) fn on_frame(
        &mut self,
        frame: Frame<'_>,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        match frame.header(":message-type") {
            Some("exception") => {
                let code = frame.header(":exception-type").unwrap_or_default();
                return Err(StreamError::Reported {
                    code: code.to_owned(),
                    message: message_of(frame.payload),
                });
            }
            Some("error") => {
                let text = |name| frame.header(name).unwrap_or_default().to_owned();
                return Err(StreamError::Reported {
                    code: text(":error-code"),
                    message: text(":error-message"),
                });
            }
            _ => {}
        }
        if self.is_done {
            return Ok(());
        }
        let payload = std::str::from_utf8(frame.payload)
            .map_err(<serde_json::Error as serde::de::Error>::custom)?;
        match frame.header(":event-type").unwrap_or_default() {
            "messageStart" => self.start(),
            "contentBlockStart" => {
                let [index, start] = json::pick(payload, ["contentBlockIndex", "start"])?;
                self.start();
                self.block_start(json::count(index), start, out)?;
            }
            "contentBlockDelta" => {
                let [index, delta] = json::pick(payload, ["contentBlockIndex", "delta"])?;
                self.start();
                if let Some(delta) = delta {
                    self.delta(json::count(index), delta, out)?;
                }
            }
            "contentBlockStop" => {
                let [index] = json::pick(payload, ["contentBlockIndex"])?;
                if self.open.as_ref().map(|open| open.wire) == Some(json::count(index)) {
                    self.close(out);
                }
            }
            "messageStop" => {
                let [reason, fields] =
                    json::pick(payload, ["stopReason", "additionalModelResponseFields"])?;
                self.start();
                self.close(out);
                self.stop = Some(Stop::read(reason, fields, &self.context));
                self.end_if_complete(out);
            }
            "metadata" => {
                let [usage] = json::pick(payload, ["usage"])?;
                // What Converse does not count is nothing to the client, as in an answer that does not stream.
                let before = self.usage.filter(|_| self.is_counted);
                let counted = usage.and_then(Usage::read).or(before);
                self.is_counted = counted.is_some();
                self.usage = Some(counted.unwrap_or_default());
                self.end_if_complete(out);
            }
            // Another kind of event carries nothing of the Messages API.
            _ => {}
        }
        Ok(())
    }

    /// `message_start`, if it is due: it goes before all that was appended.
    pub(super) fn take_start(&mut self) -> Option<Bytes> {
        self.start.take()
    }

    /// How much text came since the last time this was asked that the client does not get to see.
    pub(super) fn take_hidden(&mut self) -> usize {
        std::mem::take(&mut self.hidden)
    }

    /// Whether the message has ended with usage that Converse did not report.
    pub(super) fn ended_uncounted(&self) -> bool {
        self.is_done && !self.is_counted
    }

    /// The stream is over: the message's end with a guess of its usage, if all but that was said.
    pub(super) fn finish(&mut self) -> Option<Bytes> {
        if self.is_done || self.stop.is_none() {
            return None;
        }
        self.usage = Some(self.context.guess());
        let mut out = BytesMut::new();
        self.end_if_complete(&mut out);
        Some(out.freeze())
    }

    fn start(&mut self) {
        if std::mem::replace(&mut self.is_started, true) {
            return;
        }
        let mut data = b"{\"type\":\"message_start\",\"message\":".to_vec();
        self.context.write_head(&mut data);
        data.extend_from_slice(
            b",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,\"usage\":",
        );
        self.context.guess().write(&mut data);
        data.extend_from_slice(b"}}");
        let mut event = BytesMut::new();
        write_event(&mut event, "message_start", &data);
        self.start = Some(event.freeze());
    }

    fn block_start(
        &mut self,
        wire: Option<u64>,
        start: Option<&RawValue>,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        let [tool_use, tool_result, image] = json::pick(
            start.map_or("{}", RawValue::get),
            ["toolUse", "toolResult", "image"],
        )?;
        if let Some(tool_use) = tool_use {
            let [id, name, kind] = json::pick(tool_use.get(), ["toolUseId", "name", "type"])?;
            let ran_already = kind.is_some_and(|kind| kind.get() == r#""server_tool_use""#);
            if let (Some(id), Some(name), false) = (
                id.and_then(json::text),
                name.and_then(json::text),
                ran_already,
            ) {
                // Each start is a call of its own.
                self.close(out);
                self.open = Some(Block::new(wire, Kind::ToolUse));
                let mut data = Vec::with_capacity(160);
                data.extend_from_slice(b"{\"type\":\"tool_use\",\"id\":");
                json::write_text(&mut data, &replayable_id(&id));
                data.extend_from_slice(b",\"name\":");
                json::write_text(&mut data, self.context.tools.original(&name));
                data.extend_from_slice(b",\"input\":{}}");
                self.show(&data, out);
                return Ok(());
            }
        }
        if tool_use.or(tool_result).or(image).is_some() {
            self.switch(wire, Kind::Hidden, out);
        }
        Ok(())
    }

    fn delta(
        &mut self,
        wire: Option<u64>,
        delta: &RawValue,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        let [text, tool_use, reasoning, citation] = json::pick(
            delta.get(),
            ["text", "toolUse", "reasoningContent", "citation"],
        )?;
        let is_hidden = self
            .open
            .as_ref()
            .is_some_and(|open| open.wire == wire && open.kind == Kind::Hidden);
        if is_hidden {
            self.hidden += delta.get().len();
            return Ok(());
        }
        if let Some(text) = text.and_then(json::escaped) {
            self.switch(wire, Kind::Text, out);
            self.text(text, out);
        } else if let Some(tool_use) = tool_use {
            let [input] = json::pick(tool_use.get(), ["input"])?;
            let is_open = self
                .open
                .as_ref()
                .is_some_and(|open| open.wire == wire && open.kind == Kind::ToolUse);
            if let (true, Some(input)) = (is_open, input.and_then(json::escaped)) {
                self.write_delta("input_json_delta\",\"partial_json\":\"", input, "\"", out);
            }
        } else if let Some(reasoning) = reasoning {
            self.reasoning(wire, reasoning, out)?;
        } else if let Some(citation) = citation
            .and_then(|citation| citations::translate(citation, &self.context.titles))
            .and_then(|citation| String::from_utf8(citation).ok())
        {
            self.switch(wire, Kind::Text, out);
            self.citation(citation, out);
        }
        Ok(())
    }

    /// Citations mostly come before the text that they are for: they wait for it, for they alone make no block.
    fn citation(&mut self, citation: String, out: &mut BytesMut) {
        match &mut self.open {
            Some(open) if !open.is_shown() => open.keep_citation(citation),
            _ => self.write_citation(&citation, out),
        }
    }

    fn write_citation(&self, citation: &str, out: &mut BytesMut) {
        self.write_delta("citations_delta\",\"citation\":", citation, "", out);
    }

    /// Shows text; white space waits for what follows, since a text of nothing else cannot be sent back (see
    /// [`super::answer`]).
    fn text(&mut self, text: &str, out: &mut BytesMut) {
        let Some(open) = &mut self.open else { return };
        if text.is_empty() {
            return;
        }
        if !open.is_shown() {
            if is_white_space(text) {
                if !open.keep(text) {
                    open.kind = Kind::Hidden;
                }
                return;
            }
            let white_space = open.take_kept();
            let citations = open.take_citations();
            if citations.is_empty() {
                self.show(b"{\"type\":\"text\",\"text\":\"\"}", out);
            } else {
                self.show(b"{\"type\":\"text\",\"text\":\"\",\"citations\":[]}", out);
            }
            for citation in citations {
                self.write_citation(&citation, out);
            }
            if !white_space.is_empty() {
                let both = white_space + text;
                self.write_delta("text_delta\",\"text\":\"", &both, "\"", out);
                return;
            }
        }
        self.write_delta("text_delta\",\"text\":\"", text, "\"", out);
    }

    fn reasoning(
        &mut self,
        wire: Option<u64>,
        reasoning: &RawValue,
        out: &mut BytesMut,
    ) -> Result<(), StreamError> {
        let [text, signature, redacted] =
            json::pick(reasoning.get(), ["text", "signature", "redactedContent"])?;
        if let Some(redacted) = redacted.and_then(json::text) {
            self.switch(wire, Kind::Redacted, out);
            self.hidden += redacted.len();
            // Each piece is base64 of its own.
            match super::answer::redacted_data(&redacted) {
                Some(piece) => self.keep(&piece),
                None if redacted.is_empty() => {}
                None => self.hide(),
            }
            return Ok(());
        }
        if text.or(signature).is_none() {
            return Ok(());
        }
        self.switch(wire, Kind::Thinking, out);
        if let Some(text) = text.and_then(json::escaped).filter(|text| !text.is_empty()) {
            if self.context.is_claude {
                self.show_thinking(out);
                self.write_delta("thinking_delta\",\"thinking\":\"", text, "\"", out);
            } else {
                self.hidden += text.len();
                self.keep(text);
            }
        }
        if let Some(signature) = signature.and_then(json::escaped)
            && let Some(open) = &mut self.open
        {
            if open.signature.len() + signature.len() > MAX_KEPT {
                let message = "a signature without end";
                return Err(<serde_json::Error as serde::de::Error>::custom(message).into());
            }
            open.signature.push_str(signature);
        }
        Ok(())
    }

    /// Keeps what cannot be shown yet. A block that grows beyond all measure is not shown.
    fn keep(&mut self, text: &str) {
        if self.open.as_mut().is_some_and(|open| !open.keep(text)) {
            self.hide();
        }
    }

    fn hide(&mut self) {
        if let Some(open) = &mut self.open {
            open.kind = Kind::Hidden;
        }
    }

    fn show_thinking(&mut self, out: &mut BytesMut) {
        if self.open.as_ref().is_some_and(|open| !open.is_shown()) {
            self.show(
                b"{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}",
                out,
            );
        }
    }

    /// Makes the block of this number and kind the open one.
    fn switch(&mut self, wire: Option<u64>, kind: Kind, out: &mut BytesMut) {
        let is_open = self
            .open
            .as_ref()
            .is_some_and(|open| open.wire == wire && open.kind == kind);
        if !is_open {
            self.close(out);
            self.open = Some(Block::new(wire, kind));
        }
    }

    /// Begins the open block for the client.
    fn show(&mut self, block: &[u8], out: &mut BytesMut) {
        let index = self.blocks;
        self.blocks += 1;
        if let Some(open) = &mut self.open {
            open.shown_as = Some(index);
        }
        let head =
            format!("{{\"type\":\"content_block_start\",\"index\":{index},\"content_block\":");
        write_parts(out, "content_block_start", &[head.as_bytes(), block, b"}"]);
    }

    fn write_delta(&self, head: &str, text: &str, tail: &str, out: &mut BytesMut) {
        let Some(index) = self.open.as_ref().and_then(|open| open.shown_as) else {
            return;
        };
        let mut digits = Digits::default();
        write_parts(
            out,
            "content_block_delta",
            &[
                b"{\"type\":\"content_block_delta\",\"index\":",
                digits.write(index),
                b",\"delta\":{\"type\":\"",
                head.as_bytes(),
                text.as_bytes(),
                tail.as_bytes(),
                b"}}",
            ],
        );
    }

    /// Ends the open block: what waited for its end is shown, if it can be.
    fn close(&mut self, out: &mut BytesMut) {
        let Some(open) = &mut self.open else { return };
        let (kept, signature) = (open.take_kept(), std::mem::take(&mut open.signature));
        match open.kind {
            Kind::Thinking if !signature.is_empty() => {
                self.show_thinking(out);
                if !kept.is_empty() {
                    self.write_delta("thinking_delta\",\"thinking\":\"", &kept, "\"", out);
                }
                self.write_delta("signature_delta\",\"signature\":\"", &signature, "\"", out);
            }
            Kind::Redacted if !kept.is_empty() => {
                let mut block = b"{\"type\":\"redacted_thinking\",\"data\":".to_vec();
                json::write_text(&mut block, &kept);
                block.push(b'}');
                self.show(&block, out);
            }
            Kind::Text => self.hidden += kept.len(),
            _ => {}
        }
        if let Some(index) = self.open.take().and_then(|open| open.shown_as) {
            let data = format!("{{\"type\":\"content_block_stop\",\"index\":{index}}}");
            write_event(out, "content_block_stop", data.as_bytes());
        }
    }

    fn end_if_complete(&mut self, out: &mut BytesMut) {
        let (Some(stop), Some(usage)) = (&self.stop, &self.usage) else {
            return;
        };
        let mut data = b"{\"type\":\"message_delta\",\"delta\":{".to_vec();
        stop.write(&mut data);
        data.extend_from_slice(b"},\"usage\":");
        usage.write(&mut data);
        data.push(b'}');
        write_event(out, "message_delta", &data);
        write_event(out, "message_stop", b"{\"type\":\"message_stop\"}");
        self.is_done = true;
    }
}

/// Appends an event whose data is made of parts.
fn write_parts(out: &mut BytesMut, name: &str, parts: &[&[u8]]) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_slice(b"\ndata: ");
    for part in parts {
        out.put_slice(part);
    }
    out.put_slice(b"\n\n");
}

/// A number as text, without a heap.
#[derive(Default)]
struct Digits([u8; 20]);

impl Digits {
    fn write(&mut self, mut number: u64) -> &[u8] {
        let mut at = self.0.len();
        loop {
            at -= 1;
            self.0[at] = b'0' + u8::try_from(number % 10).unwrap_or(0);
            number /= 10;
            if number == 0 {
                return &self.0[at..];
            }
        }
    }
}

/// Whether an escaped text is white space.
fn is_white_space(escaped: &str) -> bool {
    if memchr::memchr(b'\\', escaped.as_bytes()).is_none() {
        return escaped.trim().is_empty();
    }
    let quoted = format!("\"{escaped}\"");
    serde_json::from_str::<String>(&quoted).is_ok_and(|text| text.trim().is_empty())
}

fn message_of(payload: &[u8]) -> String {
    let message = || {
        let [message] = json::pick(std::str::from_utf8(payload).ok()?, ["message"]).ok()?;
        json::text(message?).map(Cow::into_owned)
    };
    message().unwrap_or_default()
}

#[cfg(test)]
mod tests;
