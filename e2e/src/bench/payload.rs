//! Requests and answers of the sizes that matter: a small one, and the first turn of Claude Code.

use std::fmt::Write as _;

use bytes::Bytes;
use serde_json::{Value, json};

/// How large a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    /// 1 KB.
    Small,
    /// 100 KB: Claude Code's tools, system prompt and some turns.
    Large,
}

impl Size {
    fn bytes(self) -> usize {
        match self {
            Self::Small => 1_000,
            Self::Large => 100_000,
        }
    }
}

/// Pieces of a streamed answer, each written at once.
pub(super) const CHUNKS: usize = 20;

/// The body of a messages request of about this size.
pub(super) fn request(size: Size, stream: bool) -> Bytes {
    let mut body = json!({
        "model": "claude-sonnet-4-5-20250929",
        "max_tokens": 1024,
        "stream": stream,
        "metadata": {"user_id": "{\"session_id\":\"7d1c2f7e-52c7-4a0e-9c4f-0d9f5f0c1a11\"}"},
        "messages": [{"role": "user", "content": ""}],
    });
    if size == Size::Large {
        body["system"] =
            json!([{"type": "text", "text": prose(8_000), "cache_control": {"type": "ephemeral"}}]);
        body["tools"] = (0..24).map(tool).collect();
        body["thinking"] = json!({"type": "enabled", "budget_tokens": 512});
    }
    let missing = size.bytes().saturating_sub(body.to_string().len());
    body["messages"][0]["content"] = Value::from(prose(missing));
    Bytes::from(body.to_string())
}

fn tool(number: usize) -> Value {
    let properties: serde_json::Map<String, Value> = (0..8)
        .map(|field| {
            let schema = json!({"type": "string", "description": prose(200), "enum": ["a", "b", field.to_string()]});
            (format!("field_{field}"), schema)
        })
        .collect();
    json!({
        "name": format!("tool_{number}"),
        "description": prose(500),
        "input_schema": {"type": "object", "properties": properties, "required": ["field_0"], "additionalProperties": false},
    })
}

/// Text with what JSON must escape, as code has it.
fn prose(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 80);
    let mut line = 0;
    while text.len() < bytes {
        let _ = writeln!(
            text,
            "{line}: let answer = \"the quick brown fox\"; // jumps over it"
        );
        line += 1;
    }
    text.truncate(bytes);
    text
}

/// A whole answer.
pub(super) fn answer() -> Bytes {
    let message = json!({
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
        "content": [{"type": "text", "text": prose(400)}], "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 250, "output_tokens": 110, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    });
    Bytes::from(message.to_string())
}

/// The pieces of a streamed answer.
pub(super) fn chunks() -> Vec<Bytes> {
    let start = json!({"type": "message_start", "message": {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929",
        "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 250, "output_tokens": 1, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
    }});
    let block = json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}});
    let delta = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "the quick brown fox "}});
    let stop = json!({"type": "content_block_stop", "index": 0});
    let last = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": null}, "usage": {"output_tokens": 110}});
    let event = |data: &Value| {
        format!(
            "event: {}\ndata: {data}\n\n",
            data["type"].as_str().unwrap_or_default()
        )
    };
    (0..CHUNKS)
        .map(|at| {
            let mut piece = String::new();
            if at == 0 {
                piece += &event(&start);
                piece += &event(&block);
            }
            piece += &event(&delta);
            if at == CHUNKS - 1 {
                piece += &event(&stop);
                piece += &event(&last);
                piece += &event(&json!({"type": "message_stop"}));
            }
            Bytes::from(piece)
        })
        .collect()
}
