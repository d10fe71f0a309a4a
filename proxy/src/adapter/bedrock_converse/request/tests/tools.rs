//! Tools, their calls and results.

use super::*;

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

fn bash() -> Value {
    json!({"type": "bash_20250124", "name": "bash"})
}

#[test]
fn a_choice_among_tools_of_anthropics_own_making_is_passed_on_with_them() {
    let named = json!({"type": "tool", "name": "bash"});
    let any = json!({"type": "any"});
    let one = json!({"type": "auto", "disable_parallel_tool_use": true});
    let none = json!({"type": "none"});
    // The conversation has used the tool, so that Converse must be told of one.
    let used = json!([
        user(&json!("go")),
        assistant(&json!([call("t", "bash")])),
        user(&json!([result("t")]))
    ]);
    for (tools, choice, passed_on) in [
        (json!([bash()]), &named, true),
        (json!([bash()]), &any, true),
        (json!([bash()]), &one, true),
        (json!([bash()]), &none, true),
        (json!([bash(), tool("n")]), &named, true),
        (json!([tool("n"), bash()]), &one, true),
        (json!([tool("n"), bash()]), &any, false),
        (
            json!([tool("n"), bash()]),
            &json!({"type": "tool", "name": "n"}),
            false,
        ),
    ] {
        for messages in [json!([user(&json!("go"))]), used.clone()] {
            let body = json!({"max_tokens": 9, "messages": messages, "tools": tools, "tool_choice": choice});
            let converse = converse(&body);
            let fields = &converse["additionalModelRequestFields"];
            assert_eq!(fields["tools"], json!([bash()]));
            let said = &converse["toolConfig"]["toolChoice"];
            if passed_on {
                assert_eq!(
                    (&fields["tool_choice"], said),
                    (choice, &Value::Null),
                    "{body}"
                );
            } else {
                assert!(
                    fields.get("tool_choice").is_none() && !said.is_null(),
                    "{body}"
                );
            }
        }
    }
}

#[test]
fn a_marker_on_a_tool_of_anthropics_own_making_is_a_cache_point_where_one_may_stand() {
    let body =
        |tools: Value| json!({"max_tokens": 9, "messages": [user(&json!("go"))], "tools": tools});
    let mut native = marked(bash(), Some("1h"));
    native["defer_loading"] = json!(true);
    let converse = converse(&body(json!([tool("n"), native])));
    assert_eq!(
        converse["additionalModelRequestFields"]["tools"],
        json!([bash()])
    );
    assert_eq!(converse["toolConfig"]["tools"][1], hour());
    let converse = self::converse(&body(json!([native])));
    assert!(!converse.to_string().contains("cache"), "{converse}");
}
