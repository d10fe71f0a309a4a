//! What a request brings back of the conversation before it, in any of the upstreams' formats.

use serde_json::Value;
use spillway_e2e::upstream::Exchange;

/// The parts of a conversation that a gateway must not lose.
#[derive(Debug, Default, PartialEq)]
pub struct Replayed {
    /// Thoughts, each with its signature; redacted ones as they are. The upstreams have verified them.
    pub thoughts: usize,
    /// Names and arguments of the calls.
    pub calls: Vec<(String, Value)>,
    /// Texts of the results, in order; a tool that was found is its name.
    pub results: Vec<String>,
    /// Cache markers, in the messages and before them.
    pub cache_markers: usize,
}

/// Reads it out of a request.
pub fn replayed(exchange: &Exchange) -> Replayed {
    let body: Value = serde_json::from_str(&exchange.body).unwrap();
    let mut all = Replayed::default();
    for message in list(&body["messages"]) {
        for block in list(&message["content"]) {
            all.read(block);
        }
    }
    all.cache_markers = markers(&body);
    all
}

impl Replayed {
    fn read(&mut self, block: &Value) {
        match block["type"].as_str() {
            Some("thinking" | "redacted_thinking") => self.thoughts += 1,
            Some("tool_use") => self.call(block),
            Some("tool_result") => self.result(&block["content"]),
            _ => {}
        }
        if block.get("reasoningContent").is_some() {
            self.thoughts += 1;
        }
        if let Some(call) = block.get("toolUse") {
            self.call(call);
        }
        if let Some(result) = block.get("toolResult") {
            self.result(&result["content"]);
        }
    }

    fn call(&mut self, call: &Value) {
        let name = call["name"].as_str().unwrap().to_owned();
        self.calls.push((name, call["input"].clone()));
    }

    fn result(&mut self, content: &Value) {
        let text = match content {
            Value::String(text) => text.clone(),
            blocks => list(blocks)
                .iter()
                .filter_map(|block| block["text"].as_str().or(block["tool_name"].as_str()))
                .collect(),
        };
        self.results.push(text);
    }
}

/// Cache markers anywhere but in tools' arguments and schemas, which are the client's own.
fn markers(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(markers).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| match name.as_str() {
                "cache_control" | "cachePoint" => 1,
                "input" | "input_schema" | "inputSchema" => 0,
                _ => markers(field),
            })
            .sum(),
        _ => 0,
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
