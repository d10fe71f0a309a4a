//! A message as the events of a stream, in the Messages API's form and in Converse's.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    message::Message,
    script::{Block, Script},
    usage::Usage,
};

/// Where in a message an event stands; faults are placed by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    MessageStart,
    BlockStart,
    Delta,
    BlockStop,
    End,
}

/// One event, not yet in bytes.
pub(crate) struct Event {
    pub(crate) stage: Stage,
    pub(crate) name: &'static str,
    pub(crate) data: Value,
    /// The numbers it reports.
    pub(crate) usage: Option<Usage>,
}

impl Event {
    fn new(stage: Stage, name: &'static str, data: Value) -> Self {
        Self {
            stage,
            name,
            data,
            usage: None,
        }
    }

    fn reporting(self, usage: Usage) -> Self {
        Self {
            usage: Some(usage),
            ..self
        }
    }
}

/// Events of the Messages API.
pub(crate) fn messages(message: &Message, script: &Script) -> Vec<Event> {
    let mut start = message.messages_json();
    start["content"] = json!([]);
    start["stop_reason"] = Value::Null;
    start["stop_sequence"] = Value::Null;
    start["usage"] = message.start_usage.messages_json();
    let mut events = vec![
        Event::new(
            Stage::MessageStart,
            "message_start",
            json!({"type": "message_start", "message": start}),
        )
        .reporting(message.start_usage),
    ];
    for (index, block) in message.content.iter().enumerate() {
        let (start, deltas) = messages_block(block, script);
        events.push(Event::new(
            Stage::BlockStart,
            "content_block_start",
            json!({"type": "content_block_start", "index": index, "content_block": start}),
        ));
        events.extend(deltas.into_iter().map(|delta| {
            Event::new(
                Stage::Delta,
                "content_block_delta",
                json!({"type": "content_block_delta", "index": index, "delta": delta}),
            )
        }));
        events.push(Event::new(
            Stage::BlockStop,
            "content_block_stop",
            json!({"type": "content_block_stop", "index": index}),
        ));
    }
    events.push(
        Event::new(
            Stage::End,
            "message_delta",
            json!({
                "type": "message_delta",
                "delta": {"stop_reason": message.stop_reason, "stop_sequence": message.stop_sequence},
                "usage": message.usage.delta_json(),
            }),
        )
        .reporting(message.usage),
    );
    events.push(Event::new(
        Stage::End,
        "message_stop",
        json!({"type": "message_stop"}),
    ));
    events
}

/// A block's start and its deltas.
fn messages_block(block: &Block, script: &Script) -> (Value, Vec<Value>) {
    match block {
        Block::Text { text } => (
            json!({"type": "text", "text": ""}),
            pieces(text, script)
                .map(|piece| json!({"type": "text_delta", "text": piece}))
                .collect(),
        ),
        Block::Thinking {
            thinking,
            signature,
        } => (
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            pieces(thinking, script)
                .map(|piece| json!({"type": "thinking_delta", "thinking": piece}))
                .chain([json!({"type": "signature_delta", "signature": signature})])
                .collect(),
        ),
        Block::ToolUse { id, name, input } => (
            json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
            // The API opens every call with an empty piece.
            [""].into_iter()
                .chain(pieces(&input.to_string(), script))
                .map(|piece| json!({"type": "input_json_delta", "partial_json": piece}))
                .collect(),
        ),
        Block::RedactedThinking { .. } | Block::Other(_) => (json!(block), Vec::new()),
    }
}

/// Events of Converse: text and reasoning have no start, and the numbers come after the stop.
pub(crate) fn converse(message: &Message, script: &Script) -> Vec<Event> {
    let mut events = vec![Event::new(
        Stage::MessageStart,
        "messageStart",
        json!({"role": "assistant"}),
    )];
    for (index, block) in message.content.iter().enumerate() {
        let Some((start, deltas)) = converse_block(block, script) else {
            continue;
        };
        if let Some(start) = start {
            events.push(Event::new(
                Stage::BlockStart,
                "contentBlockStart",
                json!({"contentBlockIndex": index, "start": start}),
            ));
        }
        events.extend(deltas.into_iter().map(|delta| {
            Event::new(
                Stage::Delta,
                "contentBlockDelta",
                json!({"contentBlockIndex": index, "delta": delta}),
            )
        }));
        events.push(Event::new(
            Stage::BlockStop,
            "contentBlockStop",
            json!({"contentBlockIndex": index}),
        ));
    }
    let mut stop = json!({"stopReason": message.stop_reason});
    if let Some(sequence) = &message.stop_sequence {
        stop["additionalModelResponseFields"] = json!({"stop_sequence": sequence});
    }
    events.push(Event::new(Stage::End, "messageStop", stop));
    events.push(
        Event::new(
            Stage::End,
            "metadata",
            json!({"usage": message.usage.converse_json(), "metrics": {"latencyMs": 420}}),
        )
        .reporting(message.usage),
    );
    events
}

fn converse_block(block: &Block, script: &Script) -> Option<(Option<Value>, Vec<Value>)> {
    match block {
        Block::Text { text } => Some((
            None,
            pieces(text, script)
                .map(|piece| json!({"text": piece}))
                .collect(),
        )),
        Block::Thinking {
            thinking,
            signature,
        } => Some((
            None,
            pieces(thinking, script)
                .map(|piece| json!({"reasoningContent": {"text": piece}}))
                .chain([json!({"reasoningContent": {"signature": signature}})])
                .collect(),
        )),
        Block::RedactedThinking { data } => Some((
            None,
            // The wire carries base64 of what the Messages API already gives as base64.
            vec![json!({"reasoningContent": {"redactedContent": BASE64_STANDARD.encode(data)}})],
        )),
        Block::ToolUse { id, name, input } => Some((
            Some(json!({"toolUse": {"toolUseId": id, "name": name}})),
            pieces(&input.to_string(), script)
                .map(|piece| json!({"toolUse": {"input": piece}}))
                .collect(),
        )),
        Block::Other(_) => None,
    }
}

/// Cuts text into deltas as the script says, never inside a character.
fn pieces<'a>(text: &'a str, script: &Script) -> impl Iterator<Item = &'a str> + use<'a> {
    let size = match (script.chunks, script.chunk_chars) {
        (Some(chunks), _) => text.chars().count().div_ceil(chunks.max(1)),
        (None, Some(chars)) => chars,
        (None, None) => 16,
    }
    .max(1);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest
            .char_indices()
            .nth(size)
            .map_or(rest.len(), |(at, _)| at);
        let (piece, tail) = rest.split_at(end);
        rest = tail;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_the_text_and_as_many_as_asked(text in ".{0,200}", chunks in 1_usize..20) {
            let script = Script { chunks: Some(chunks), ..Script::default() };
            let all: Vec<_> = pieces(&text, &script).collect();
            prop_assert_eq!(all.concat(), text.as_str());
            prop_assert!(all.len() <= chunks);
        }
    }

    #[test]
    fn text_is_cut_into_sixteen_characters_unless_told() {
        let all: Vec<_> = pieces("0123456789abcdefé", &Script::default()).collect();
        assert_eq!(all, ["0123456789abcdef", "é"]);
    }
}
