//! Thinking, and what goes on to Claude beside it.

use super::*;

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
