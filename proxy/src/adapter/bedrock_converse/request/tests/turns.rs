//! Turns: whose they are and what is left of them.

use super::*;

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
fn a_system_turn_that_changes_the_tools_is_unsupported() {
    for kind in ["tool_addition", "tool_removal"] {
        let turn = json!({"role": "system", "content": [text("a"), {"type": kind, "tool": {"name": "n"}}]});
        let body = json!({"max_tokens": 9, "messages": [user(&json!("go")), turn]});
        assert!(
            matches!(translated(&body, CLAUDE), Err(TranslateError::Unsupported(name)) if name == kind)
        );
    }
}
