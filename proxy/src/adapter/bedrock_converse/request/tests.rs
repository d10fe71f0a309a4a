//! The traps of Converse's requests, each by its name.

mod cache;
mod documents;
mod thinking;
mod tools;
mod turns;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CLAUDE: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const OPUS: &str = "us.anthropic.claude-opus-4-8";
const NOVA: &str = "us.amazon.nova-lite-v1:0";
const GPT_OSS: &str = "openai.gpt-oss-120b-1:0";

fn translated(body: &Value, model: &str) -> Result<Translated, TranslateError> {
    translate(
        body.to_string().as_bytes(),
        std::iter::empty(),
        ModelTraits::of(model),
    )
}

fn converse_of(body: &Value, model: &str) -> Value {
    serde_json::from_slice(&translated(body, model).unwrap().body).unwrap()
}

fn converse(body: &Value) -> Value {
    converse_of(body, CLAUDE)
}

/// The turns that these become.
fn turns_of(messages: &Value, model: &str) -> Value {
    converse_of(&json!({"max_tokens": 9, "messages": messages}), model)["messages"].clone()
}

fn turns(messages: &Value) -> Value {
    turns_of(messages, CLAUDE)
}

fn refused(body: &Value) -> String {
    match translated(body, CLAUDE) {
        Err(error) => error.to_string(),
        Ok(done) => panic!("{}", String::from_utf8_lossy(&done.body)),
    }
}

fn user(content: &Value) -> Value {
    json!({"role": "user", "content": content})
}

fn assistant(content: &Value) -> Value {
    json!({"role": "assistant", "content": content})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text})
}

fn marked(mut block: Value, ttl: Option<&str>) -> Value {
    block["cache_control"] = match ttl {
        Some(ttl) => json!({"type": "ephemeral", "ttl": ttl}),
        None => json!({"type": "ephemeral"}),
    };
    block
}

fn tool(name: &str) -> Value {
    json!({"name": name, "description": "d", "input_schema": {"type": "object"}})
}

fn call(id: &str, name: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": name, "input": {"a": 1}})
}

fn result(id: &str) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": "done"})
}

fn pdf(title: &str) -> Value {
    json!({"type": "document", "title": title, "source": {"type": "base64", "media_type": "application/pdf", "data": "UERG"}})
}

fn point() -> Value {
    json!({"cachePoint": {"type": "default"}})
}

fn hour() -> Value {
    json!({"cachePoint": {"type": "default", "ttl": "1h"}})
}

#[test]
fn a_plain_call_is_said_again() {
    let body = json!({
        "model": "claude-x", "max_tokens": 64, "stream": true, "temperature": 0.25, "top_p": 0.9, "top_k": 40,
        "stop_sequences": ["STOP"], "system": "Be brief.", "metadata": {"user_id": "u"}, "service_tier": "auto",
        "messages": [{"role": "user", "content": "Grüße \u{1f680}"}], "unheard_of": {"a": 1},
    });
    assert_eq!(
        converse(&body),
        json!({
            "messages": [{"role": "user", "content": [{"text": "Grüße \u{1f680}"}]}],
            "system": [{"text": "Be brief."}],
            "inferenceConfig": {"maxTokens": 64, "temperature": 0.25, "topP": 0.9, "stopSequences": ["STOP"]},
            "additionalModelRequestFields": {"top_k": 40},
            "additionalModelResponseFieldPaths": ["/stop_sequence"],
        })
    );
}

#[test]
fn a_schema_for_the_answer_is_said_in_converses_words() {
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    for body in [
        json!({"max_tokens": 9, "messages": [user(&json!("go"))], "output_config": {"format": {"type": "json_schema", "schema": schema}}}),
        json!({"max_tokens": 9, "messages": [user(&json!("go"))], "output_format": {"type": "json_schema", "schema": schema}}),
    ] {
        let format = &converse(&body)["outputConfig"]["textFormat"];
        assert_eq!(format["type"], "json_schema");
        assert_eq!(
            format["structure"]["jsonSchema"]["schema"],
            schema.to_string()
        );
    }
}

#[test]
fn more_output_than_a_model_has_is_not_asked_for() {
    let body = json!({"max_tokens": 64_000, "messages": [user(&json!("go"))], "top_k": 3});
    for (model, most) in [(CLAUDE, 64_000), (NOVA, 10_000), (GPT_OSS, 64_000)] {
        assert_eq!(
            converse_of(&body, model)["inferenceConfig"]["maxTokens"],
            most,
            "{model}"
        );
    }
    assert_eq!(
        converse_of(&body, NOVA)["additionalModelRequestFields"],
        json!({"inferenceConfig": {"topK": 3}})
    );
}

#[test]
fn what_is_wrong_is_named_and_not_quoted() {
    let messages = |messages: Value| json!({"max_tokens": 9, "messages": messages});
    for (body, words) in [
        (json!({}), "messages: Field required"),
        (
            json!({"messages": "secret"}),
            "messages: Input should be a valid list",
        ),
        (
            messages(json!(["secret"])),
            "messages.0: Input should be a valid dictionary",
        ),
        (
            messages(json!([{"role": "secret", "content": "a"}])),
            "messages.0.role: ",
        ),
        (
            messages(json!([{"role": "user"}])),
            "messages.0.content: Field required",
        ),
        (
            messages(json!([user(&json!([["secret"]]))])),
            "messages.0.content.0: ",
        ),
        (
            messages(json!([user(&json!([{"text": "secret"}]))])),
            "messages.0.content.0.type: Field required",
        ),
        (
            messages(json!([user(&json!([{"type": "text", "text": 1}]))])),
            "messages.0.content.0.text: ",
        ),
        (
            messages(json!([user(&json!([call("t", "n")]))])),
            "messages.0.content.0: `tool_use`",
        ),
        (
            messages(json!([assistant(
                &json!([{"type": "tool_use", "id": "t", "name": "n", "input": "secret"}])
            )])),
            "messages.0.content.0.input: ",
        ),
        (
            json!({"max_tokens": "secret", "messages": [user(&json!("a"))]}),
            "max_tokens: ",
        ),
        (
            json!({"temperature": "secret", "messages": [user(&json!("a"))]}),
            "temperature: ",
        ),
        (
            json!({"stop_sequences": "secret", "messages": [user(&json!("a"))]}),
            "stop_sequences: ",
        ),
        (
            json!({"tools": "secret", "messages": [user(&json!("a"))]}),
            "tools: ",
        ),
        (
            json!({"tools": [{"name": "a"}], "messages": [user(&json!("a"))]}),
            "tools.0.custom.input_schema: ",
        ),
        (
            json!({"system": 1, "messages": [user(&json!("a"))]}),
            "system: ",
        ),
        (
            json!({"system": [{"type": "image"}], "messages": [user(&json!("a"))]}),
            "system.0.type: ",
        ),
    ] {
        let error = refused(&body);
        assert!(error.starts_with(words), "{error} / {words}");
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn depth_ends_in_a_bounded_answer() {
    const DEPTH: usize = 100_000;
    for (open, close) in [("[", "]"), (r#"{"content":["#, "]}"), (r#"{"a":"#, "}")] {
        let deep = format!("{}1{}", open.repeat(DEPTH), close.repeat(DEPTH));
        for body in [
            format!(r#"{{"max_tokens":9,"messages":{deep}}}"#),
            format!(r#"{{"max_tokens":9,"messages":[{{"role":"user","content":{deep}}}]}}"#),
            format!(
                r#"{{"max_tokens":9,"messages":[{{"role":"user","content":[{{"type":"tool_result","tool_use_id":"t","content":[{deep}]}}]}}]}}"#
            ),
            format!(
                r#"{{"max_tokens":9,"messages":[{{"role":"assistant","content":[{{"type":"tool_use","id":"t","name":"n","input":{{"a":{deep}}}}}]}}],"system":{deep},"tools":{deep},"thinking":{deep}}}"#
            ),
        ] {
            let _ = translate(body.as_bytes(), std::iter::empty(), ModelTraits::of(CLAUDE));
        }
    }
}

/// A block of any kind, some of them nonsense.
fn any_block() -> impl Strategy<Value = Value> {
    let words = prop_oneof![Just(""), Just(" "), Just("word"), Just("größe \u{1f680}")];
    (0..12_u8, words, any::<bool>(), 0..4_u8).prop_map(|(kind, word, is_marked, id)| {
        let block = match kind {
            0..=2 => text(word),
            3 => call(&format!("t{id}"), word),
            4 => result(&format!("t{id}")),
            5 => json!({"type": "thinking", "thinking": word, "signature": word}),
            6 => json!({"type": "redacted_thinking", "data": word}),
            7 => pdf(word),
            8 => json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aW1n"}}),
            9 => json!({"type": "server_tool_use", "id": word}),
            10 => json!({"type": word}),
            _ => json!({"type": "tool_result", "tool_use_id": "t", "content": [text(word), pdf(word)]}),
        };
        if is_marked { marked(block, Some(if id > 1 { "1h" } else { "5m" })) } else { block }
    })
}

proptest! {
    #[test]
    fn whatever_comes_out_alternates_and_is_never_empty(
        given in proptest::collection::vec((0..3_usize, proptest::collection::vec(any_block(), 0..4)), 0..6),
        model in prop_oneof![Just(CLAUDE), Just(NOVA), Just(GPT_OSS)],
    ) {
        let roles = ["user", "assistant", "system"];
        let messages: Vec<Value> = given.into_iter().map(|(role, content)| json!({"role": roles[role], "content": content})).collect();
        let body = json!({"max_tokens": 9, "messages": messages});
        if let Ok(done) = translated(&body, model) {
            let converse: Value = serde_json::from_slice(&done.body).unwrap();
            let turns = converse["messages"].as_array().unwrap();
            prop_assert!(!turns.is_empty());
            let mut points = 0;
            for (at, turn) in turns.iter().enumerate() {
                prop_assert!(at == 0 || turns[at - 1]["role"] != turn["role"]);
                let blocks = turn["content"].as_array().unwrap();
                prop_assert!(!blocks.is_empty());
                for (at, block) in blocks.iter().enumerate() {
                    prop_assert!(block["text"].as_str().is_none_or(|text| !text.trim().is_empty()));
                    if block.get("cachePoint").is_some() {
                        points += 1;
                        prop_assert!(at > 0);
                        for kind in ["cachePoint", "document", "reasoningContent"] {
                            prop_assert!(blocks[at - 1].get(kind).is_none());
                        }
                    }
                }
            }
            prop_assert!(points <= 4);
        }
    }

    #[test]
    fn any_json_ends_in_a_request_or_an_error(body in "[\\[\\]{}\",:a-z0-9 ]{0,80}") {
        let _ = translate(body.as_bytes(), std::iter::empty(), ModelTraits::of(CLAUDE));
    }
}
