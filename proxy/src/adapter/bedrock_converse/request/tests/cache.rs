//! Cache points.

use super::*;

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
