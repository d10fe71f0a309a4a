//! The traps of Converse's requests, each by its name.

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
fn arguments_and_schemas_keep_their_order_and_numbers() {
    let body = r#"{"max_tokens":9,"tools":[{"name":"n","input_schema":{"type":"object","z":1.50,"a":12345678901234567890123}}],
        "messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"n","input":{"z":1e2, "a":[0.10]}}]}]}"#;
    let done = translate(body.as_bytes(), std::iter::empty(), ModelTraits::of(CLAUDE)).unwrap();
    let out = String::from_utf8(done.body).unwrap();
    assert!(
        out.contains(r#""json":{"type":"object","z":1.50,"a":12345678901234567890123}"#),
        "{out}"
    );
    assert!(out.contains(r#""input":{"z":1e2, "a":[0.10]}"#), "{out}");
}

#[test]
fn tool_names_over_64_characters_are_mapped_everywhere_and_back() {
    let long = "mcp__server__".to_owned() + &"x".repeat(80);
    let body = json!({
        "max_tokens": 9, "tools": [tool(&long), tool("short")], "tool_choice": {"type": "tool", "name": long},
        "messages": [user(&json!("go")), assistant(&json!([call("t1", &long)])), user(&json!([result("t1")]))],
    });
    let done = translated(&body, CLAUDE).unwrap();
    let converse: Value = serde_json::from_slice(&done.body).unwrap();
    let wire = converse["toolConfig"]["tools"][0]["toolSpec"]["name"]
        .as_str()
        .unwrap();
    assert!(wire.len() <= 64 && wire != long);
    assert_eq!(converse["toolConfig"]["toolChoice"]["tool"]["name"], wire);
    assert_eq!(
        converse["messages"][1]["content"][0]["toolUse"]["name"],
        wire
    );
    assert_eq!(
        converse["toolConfig"]["tools"][1]["toolSpec"]["name"],
        "short"
    );
    assert_eq!(done.tools.original(wire), long);
}

#[test]
fn ids_that_converse_refuses_are_mapped_alike_in_call_and_result() {
    let long = "call|".to_owned() + &"1".repeat(80);
    let converse = converse(&json!({
        "max_tokens": 9, "tools": [tool("n")],
        "messages": [assistant(&json!([call(&long, "n"), call("fine.1:2", "n")])), user(&json!([result("fine.1:2"), result(&long)]))],
    }));
    let calls = &converse["messages"][0]["content"];
    let results = &converse["messages"][1]["content"];
    assert_eq!(
        calls[0]["toolUse"]["toolUseId"],
        results[1]["toolResult"]["toolUseId"]
    );
    assert_eq!(calls[0]["toolUse"]["toolUseId"].as_str().unwrap().len(), 64);
    assert_eq!(results[0]["toolResult"]["toolUseId"], "fine.1:2");
}

#[test]
fn cache_points_stand_behind_what_was_marked() {
    let converse = converse(&json!({
        "max_tokens": 9,
        "tools": [tool("a"), marked(tool("b"), Some("1h"))],
        "system": [text("one"), marked(text("two"), Some("1h"))],
        "messages": [user(&json!([marked(text("long"), None), text("question")]))],
    }));
    assert_eq!(converse["toolConfig"]["tools"][2], hour());
    assert_eq!(
        converse["system"],
        json!([{"text": "one"}, {"text": "two"}, hour()])
    );
    assert_eq!(
        converse["messages"][0]["content"],
        json!([{"text": "long"}, point(), {"text": "question"}])
    );
}

#[test]
fn at_most_four_cache_points_and_an_hour_before_five_minutes() {
    let converse = converse(&json!({
        "max_tokens": 9,
        "tools": [marked(tool("a"), Some("1h"))],
        "system": [marked(text("one"), None), marked(text("two"), Some("1h"))],
        "messages": [user(&json!([marked(text("a"), Some("1h")), marked(text("b"), None)]))],
    }));
    assert_eq!(converse["toolConfig"]["tools"].as_array().unwrap().len(), 1);
    assert_eq!(
        converse["system"],
        json!([{"text": "one"}, point(), {"text": "two"}, point()])
    );
    assert_eq!(
        converse["messages"][0]["content"],
        json!([{"text": "a"}, point(), {"text": "b"}, point()])
    );
}

#[test]
fn no_cache_point_directly_behind_a_document() {
    for (content, expected) in [
        (
            json!([text("a"), marked(pdf("d"), None), text("b")]),
            vec!["text", "document", "text", "cachePoint"],
        ),
        (
            json!([text("a"), marked(pdf("d"), None)]),
            vec!["text", "cachePoint", "document"],
        ),
        (json!([marked(pdf("d"), None)]), vec!["document"]),
    ] {
        let turns = turns(&json!([user(&content)]));
        let kinds: Vec<&str> = turns[0]["content"]
            .as_array()
            .unwrap()
            .iter()
            .map(|block| block.as_object().unwrap().keys().next().unwrap().as_str())
            .collect();
        assert_eq!(kinds, expected);
    }
}

#[test]
fn markers_in_results_on_system_turns_and_on_the_whole_body_are_kept() {
    let inner = json!({"type": "tool_result", "tool_use_id": "t", "content": [marked(text("r"), Some("1h"))]});
    let body = json!({
        "max_tokens": 9, "tools": [tool("n")], "cache_control": {"type": "ephemeral"},
        "messages": [
            user(&json!("go")), assistant(&json!([call("t", "n")])), user(&json!([inner])),
            {"role": "system", "content": [marked(text("rule"), None)]}, assistant(&json!("ok")), user(&json!("end")),
        ],
    });
    let turns = converse(&body)["messages"].clone();
    assert_eq!(turns[2]["content"][1], hour());
    assert_eq!(
        turns[2]["content"][2],
        json!({"text": "<system>\nrule\n</system>"})
    );
    assert_eq!(turns[2]["content"][3], point());
    assert_eq!(turns[4]["content"], json!([{"text": "end"}, point()]));
}

#[test]
fn cache_points_are_such_as_the_model_takes() {
    let body = json!({"max_tokens": 9, "tools": [marked(tool("a"), Some("1h"))], "messages": [user(&json!([marked(text("x"), Some("1h"))]))]});
    for (model, in_tools, in_messages) in [
        (CLAUDE, true, Some(hour())),
        (
            "eu.anthropic.claude-3-7-sonnet-20250219-v1:0",
            true,
            Some(point()),
        ),
        (NOVA, false, Some(point())),
        (GPT_OSS, false, None),
    ] {
        let converse = converse_of(&body, model);
        assert_eq!(
            converse["toolConfig"]["tools"].as_array().unwrap().len() == 2,
            in_tools,
            "{model}"
        );
        assert_eq!(
            converse["messages"][0]["content"].get(1).cloned(),
            in_messages,
            "{model}"
        );
    }
}

#[test]
fn thinking_signature_and_redacted_thinking_are_replayed_in_order() {
    let content = json!([
        {"type": "thinking", "thinking": "first", "signature": "c2ln"},
        {"type": "redacted_thinking", "data": "EuoBCoYBGAIiQL7a"},
        text("said"),
        {"type": "thinking", "thinking": "", "signature": "c2lnMg=="},
        call("t", "n"),
    ]);
    let messages = json!([
        user(&json!("go")),
        assistant(&content),
        user(&json!([result("t")]))
    ]);
    assert_eq!(
        turns(&messages)[1]["content"],
        json!([
            {"reasoningContent": {"reasoningText": {"text": "first", "signature": "c2ln"}}},
            {"reasoningContent": {"redactedContent": "RXVvQkNvWUJHQUlpUUw3YQ=="}},
            {"text": "said"},
            {"reasoningContent": {"reasoningText": {"text": "", "signature": "c2lnMg=="}}},
            {"toolUse": {"toolUseId": "t", "name": "n", "input": {"a": 1}}},
        ])
    );
}

#[test]
fn thinking_without_signature_and_for_other_models_is_left_out() {
    let content = json!([{"type": "thinking", "thinking": "hm", "signature": ""}, text("said")]);
    assert_eq!(
        turns(&json!([assistant(&content)]))[0]["content"],
        json!([{"text": "said"}])
    );
    let content = json!([{"type": "thinking", "thinking": "hm", "signature": "c2ln"}, {"type": "redacted_thinking", "data": "x"}, text("said")]);
    let turns = turns_of(&json!([user(&json!("go")), assistant(&content)]), NOVA);
    assert_eq!(turns[1]["content"], json!([{"text": "said"}]));
}

#[test]
fn thinking_effort_and_betas_are_passed_on_to_claude_alone() {
    let body = json!({
        "max_tokens": 9, "messages": [user(&json!("go"))], "thinking": {"type": "adaptive"},
        "output_config": {"effort": "high"}, "context_management": {"edits": []},
    });
    let with = |model: &str, betas: &[&str]| -> Value {
        let done = translate(
            body.to_string().as_bytes(),
            betas.iter().copied(),
            ModelTraits::of(model),
        )
        .unwrap();
        let converse: Value = serde_json::from_slice(&done.body).unwrap();
        converse["additionalModelRequestFields"].clone()
    };
    let betas = [
        "claude-code-20250219, context-management-2025-06-27",
        "interleaved-thinking-2025-05-14",
    ];
    assert_eq!(
        with(OPUS, &betas),
        json!({
            "anthropic_beta": ["context-management-2025-06-27", "effort-2025-11-24", "interleaved-thinking-2025-05-14"],
            "thinking": {"type": "adaptive"}, "context_management": {"edits": []}, "output_config": {"effort": "high"},
        })
    );
    // A field travels with its beta, and an older model knows no effort.
    assert_eq!(with(CLAUDE, &[]), json!({"thinking": {"type": "adaptive"}}));
    assert_eq!(with(GPT_OSS, &betas), Value::Null);
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
fn blank_texts_go_and_so_do_turns_of_nothing_else() {
    assert_eq!(
        turns(&json!([
            user(&json!("one")),
            assistant(&json!([text("")])),
            user(&json!([text(" \n"), text("two")]))
        ])),
        json!([{"role": "user", "content": [{"text": "one"}, {"text": "two"}]}])
    );
    let converse = converse(
        &json!({"max_tokens": 9, "system": [text(""), text("x")], "messages": [user(&json!("a"))]}),
    );
    assert_eq!(converse["system"], json!([{"text": "x"}]));
    let converse =
        self::converse(&json!({"max_tokens": 9, "system": "", "messages": [user(&json!("a"))]}));
    assert_eq!(converse.get("system"), None);
    assert!(
        refused(&json!({"max_tokens": 9, "messages": [user(&json!(""))]}))
            .starts_with("messages: at least one")
    );
}

#[test]
fn turns_of_one_role_are_one_and_results_stay_in_order() {
    let messages = json!([
        user(&json!("w?")),
        assistant(&json!([call("a", "n")])),
        assistant(&json!([call("b", "n")])),
        user(&json!([result("b")])),
        user(&json!([result("a"), text("so?")])),
    ]);
    let turns = turns(&messages);
    assert_eq!(turns.as_array().unwrap().len(), 3);
    let blocks = turns[2]["content"].as_array().unwrap();
    assert_eq!(blocks[0]["toolResult"]["toolUseId"], "b");
    assert_eq!(blocks[1]["toolResult"]["toolUseId"], "a");
    assert_eq!(blocks[2], json!({"text": "so?"}));
}

#[test]
fn a_conversation_that_begins_with_the_models_turn_gets_a_user_where_it_must() {
    let messages = json!([assistant(&json!("hello")), user(&json!("go"))]);
    assert_eq!(turns(&messages)[0]["role"], "assistant");
    let turns = turns_of(&messages, NOVA);
    assert_eq!(
        (&turns[0]["role"], &turns[1]["role"]),
        (&json!("user"), &json!("assistant"))
    );
}

#[test]
fn system_turns_keep_their_place_but_for_results() {
    let system = |content: Value| json!({"role": "system", "content": content});
    let messages = json!([
        user(&json!("w?")),
        system(json!("early \"rule\"")),
        assistant(&json!([call("t", "n")])),
        system(json!([text("late"), text("")])),
        user(&json!([result("t"), text("so?")])),
        system(json!("last")),
    ]);
    let turns = turns(&messages);
    assert_eq!(
        turns[0]["content"],
        json!([{"text": "w?"}, {"text": "<system>\nearly \"rule\"\n</system>"}])
    );
    let blocks = turns[2]["content"].as_array().unwrap();
    assert!(
        blocks[0].get("toolResult").is_some(),
        "the call's answer comes first"
    );
    assert_eq!(
        blocks[1..],
        [
            json!({"text": "<system>\nlate\n</system>"}),
            json!({"text": "so?"}),
            json!({"text": "<system>\nlast\n</system>"})
        ]
    );
}

#[test]
fn tool_choices_are_said_or_passed_on() {
    let body = |choice: Value, tools: bool| {
        let mut body =
            json!({"max_tokens": 9, "tool_choice": choice, "messages": [user(&json!("go"))]});
        if tools {
            body["tools"] = json!([tool("n")]);
        }
        body
    };
    for (choice, said, passed_on) in [
        (json!({"type": "auto"}), Value::Null, Value::Null),
        (json!({"type": "any"}), json!({"any": {}}), Value::Null),
        (
            json!({"type": "tool", "name": "n"}),
            json!({"tool": {"name": "n"}}),
            Value::Null,
        ),
        (
            json!({"type": "none"}),
            Value::Null,
            json!({"type": "none"}),
        ),
        (
            json!({"type": "auto", "disable_parallel_tool_use": true}),
            Value::Null,
            json!({"type": "auto", "disable_parallel_tool_use": true}),
        ),
        (
            json!({"type": "any", "disable_parallel_tool_use": true}),
            json!({"any": {}}),
            Value::Null,
        ),
    ] {
        let converse = converse(&body(choice.clone(), true));
        assert_eq!(converse["toolConfig"]["toolChoice"], said, "{choice}");
        assert_eq!(
            converse["additionalModelRequestFields"]["tool_choice"], passed_on,
            "{choice}"
        );
        let converse = self::converse(&body(choice, false));
        assert!(
            converse.get("toolConfig").is_none()
                && converse.get("additionalModelRequestFields").is_none()
        );
    }
}

#[test]
fn tools_that_may_not_be_used_are_there_only_for_the_calls_that_were() {
    let mut body = json!({"max_tokens": 9, "tool_choice": {"type": "none"}, "tools": [tool("n")], "messages": [user(&json!("go"))]});
    assert!(converse_of(&body, NOVA).get("toolConfig").is_none());
    body["messages"] = json!([
        user(&json!("go")),
        assistant(&json!([call("t", "n")])),
        user(&json!([result("t")]))
    ]);
    assert_eq!(
        converse_of(&body, NOVA)["toolConfig"]["tools"][0]["toolSpec"]["name"],
        "n"
    );
}

#[test]
fn calls_in_a_conversation_without_tools_get_tools() {
    let converse = converse(&json!({
        "max_tokens": 9, "messages": [user(&json!("go")), assistant(&json!([call("t", "n")])), user(&json!([result("t")]))],
    }));
    assert_eq!(
        converse["toolConfig"],
        json!({"tools": [{"toolSpec": {"name": "n", "inputSchema": {"json": {"type": "object"}}}}]})
    );
}

#[test]
fn tools_of_anthropics_own_making_are_passed_on_or_named() {
    let body = |kind: &str| json!({"max_tokens": 9, "messages": [user(&json!("go"))], "tools": [{"type": kind, "name": "x"}, tool("n")]});
    let converse = converse(&body("bash_20250124"));
    assert_eq!(
        converse["additionalModelRequestFields"]["tools"],
        json!([{"type": "bash_20250124", "name": "x"}])
    );
    assert_eq!(converse["toolConfig"]["tools"].as_array().unwrap().len(), 1);
    for kind in [
        "web_search_20250305",
        "tool_search_tool_regex_20251119",
        "code_execution_20260120",
    ] {
        assert_eq!(
            refused(&body(kind)),
            format!(
                "tools.0: Input tag '{kind}' found using 'type' does not match any of the expected tags"
            )
        );
    }
}

#[test]
fn tools_lose_what_has_no_form() {
    let body = json!({"max_tokens": 9, "messages": [user(&json!("go"))], "tools": [
        {"name": "a", "description": "", "input_schema": {}, "defer_loading": true, "strict": true, "type": "custom"},
    ]});
    let spec = json!({"name": "a", "inputSchema": {"json": {}}, "strict": true});
    assert_eq!(
        converse(&body)["toolConfig"]["tools"],
        json!([{"toolSpec": spec}])
    );
}

#[test]
fn documents_have_names_that_converse_takes_each_once() {
    let turns = turns(&json!([user(
        &json!([pdf("a/b.pdf"), pdf("a b pdf"), pdf(""), {"type": "document", "context": "c", "citations": {"enabled": true}, "source": {"type": "text", "media_type": "text/plain", "data": "naïve"}}])
    )]));
    let names: Vec<&str> = turns[0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["document"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["a b pdf", "a b pdf (2)", "Document", "Document (2)"]
    );
    let last = &turns[0]["content"][3]["document"];
    assert_eq!(
        (&last["format"], &last["context"]),
        (&json!("txt"), &json!("c"))
    );
    assert_eq!(
        (&last["source"]["bytes"], &last["citations"]),
        (&json!("bmHDr3Zl"), &json!({"enabled": true}))
    );
}

#[test]
fn documents_of_pieces_and_search_results_have_their_forms() {
    let content = json!([
        {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}},
        {"type": "search_result", "source": "s", "title": "t", "content": [text("c")], "citations": {"enabled": true}},
    ]);
    let turns = turns(&json!([user(&content)]));
    assert_eq!(
        turns[0]["content"][0]["document"]["source"],
        json!({"content": [{"text": "a"}, {"text": "b"}]})
    );
    assert_eq!(
        turns[0]["content"][1],
        json!({"searchResult": {"source": "s", "title": "t", "content": [{"text": "c"}], "citations": {"enabled": true}}})
    );
}

#[test]
fn sources_by_url_or_file_are_unsupported() {
    for (kind, source, token) in [
        ("image", "url", "image_source_url"),
        ("image", "file", "image_source_file"),
        ("document", "url", "document_source_url"),
        ("document", "file", "document_source_file"),
    ] {
        let block = json!({"type": kind, "source": {"type": source, "url": "https://example.com/secret", "file_id": "f"}});
        for content in [
            json!([block]),
            json!([{"type": "tool_result", "tool_use_id": "t", "content": [block]}]),
        ] {
            let body = json!({"max_tokens": 9, "messages": [user(&content)]});
            assert!(
                matches!(translated(&body, CLAUDE), Err(TranslateError::Unsupported(field)) if field == token)
            );
        }
    }
    for field in UNSUPPORTED {
        let mut body = json!({"max_tokens": 9, "messages": [user(&json!("go"))]});
        body[field] = json!({"a": 1});
        assert!(
            matches!(translated(&body, CLAUDE), Err(TranslateError::Unsupported(name)) if name == field)
        );
        body[field] = Value::Null;
        assert!(translated(&body, CLAUDE).is_ok());
    }
}

#[test]
fn images_have_the_formats_of_the_messages_api() {
    let image = |media: &str| json!({"type": "image", "source": {"type": "base64", "media_type": media, "data": "aW1n"}});
    let turns = turns(&json!([user(&json!([image("image/jpeg")]))]));
    assert_eq!(
        turns[0]["content"][0],
        json!({"image": {"format": "jpeg", "source": {"bytes": "aW1n"}}})
    );
    let body = json!({"max_tokens": 9, "messages": [user(&json!([image("image/tiff")]))]});
    assert!(refused(&body).starts_with("messages.0.content.0.source.media_type: "));
}

#[test]
fn results_are_lists_with_a_status_where_the_model_knows_one() {
    let failed = json!({"type": "tool_result", "tool_use_id": "t", "is_error": true});
    let messages = json!([
        user(&json!("go")),
        assistant(&json!([call("t", "n")])),
        user(&json!([failed]))
    ]);
    for (model, expected) in [
        (
            CLAUDE,
            json!({"toolUseId": "t", "content": [], "status": "error"}),
        ),
        (
            NOVA,
            json!({"toolUseId": "t", "content": [], "status": "error"}),
        ),
        (GPT_OSS, json!({"toolUseId": "t", "content": []})),
    ] {
        assert_eq!(
            turns_of(&messages, model)[2]["content"][0]["toolResult"],
            expected,
            "{model}"
        );
    }
}

#[test]
fn what_the_plan_alone_does_is_left_out_of_the_models_turns_and_named_in_the_users() {
    let content = json!([
        {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}},
        {"type": "web_search_tool_result", "tool_use_id": "s", "content": []},
        {"type": "compaction", "content": "summary"},
        {"type": "text", "text": "said", "citations": [{"type": "web_search_result_location"}]},
    ]);
    assert_eq!(
        turns(&json!([user(&json!("go")), assistant(&content)]))[1]["content"],
        json!([{"text": "summary"}, {"text": "said"}])
    );
    let body = json!({"max_tokens": 9, "messages": [user(&json!([{"type": "container_upload", "file_id": "f"}]))]});
    assert_eq!(
        refused(&body),
        "messages.0.content.0: Input tag 'container_upload' found using 'type' does not match any of the expected tags"
    );
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
