//! A conversation that moves: from the Plan to Bedrock and back, turn by turn, and no upstream refuses what another one said.
//! The fakes refuse what the real ones do: unsigned thinking, blank texts, ids, calls without answers, cache markers.

use serde_json::{Value, json};
use spillway_core::domain::models::BedrockApi;
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use spillway_e2e::upstream::{Block, Failure, Reply, Script};

use crate::stack::{BEDROCK_MODEL, MODEL, Setup, Stack, message};

const NOVA: &str = "eu.amazon.nova-pro-v1:0";
const LONG_NAME: &str =
    "mcp__a_server_with_a_rather_long_name__and_a_tool_whose_name_goes_on_and_on_for_ever";

fn thinking(thinking: &str, signature: &str) -> Block {
    Block::Thinking {
        thinking: thinking.into(),
        signature: signature.into(),
    }
}

fn call(id: &str, name: &str) -> Block {
    Block::ToolUse {
        id: id.into(),
        name: name.into(),
        input: json!({"path": "/tmp/ä", "lines": [1, 2.50]}),
    }
}

fn text(text: &str) -> Block {
    Block::Text { text: text.into() }
}

/// Who answers a turn, and why not the Plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Plan,
    /// The Plan is overloaded.
    Fallback,
    /// The Plan refuses to go on where another model began.
    Refusal,
}

/// What the upstreams say, one turn after the other.
type Turn = (By, Vec<Block>);

fn turns(is_claude: bool) -> Vec<Turn> {
    let first = (
        By::Plan,
        vec![
            thinking("first", "c2lnbmVkLTE="),
            text("I look."),
            call("toolu_01A", "read"),
        ],
    );
    let last = [
        (
            By::Plan,
            vec![
                thinking("", "c2lnbmVkLTM="),
                call("toolu_01B", "read"),
                call("toolu_01C", LONG_NAME),
            ],
        ),
        (By::Fallback, vec![text("Nearly.")]),
        (By::Plan, vec![text("Done.")]),
    ];
    let middle = if is_claude {
        vec![(
            By::Fallback,
            vec![
                thinking("on the other side", "c2lnbmVkLTI="),
                Block::RedactedThinking {
                    data: "EuoBCoYBGAIiQL7a".into(),
                },
                text("I look further."),
                call("tooluse_2", LONG_NAME),
            ],
        )]
    } else {
        // Another model signs nothing, its ids and texts are of its own kind, and its calls are its own to go on with.
        let unsigned = thinking("not to be seen", "");
        let odd_call = call("functions.read:1", LONG_NAME);
        vec![
            (
                By::Fallback,
                vec![unsigned, text(""), text("\n\n"), odd_call],
            ),
            (By::Refusal, vec![call("functions.read:2", "read")]),
            (By::Refusal, vec![text("I have it.")]),
        ]
    };
    std::iter::once(first).chain(middle).chain(last).collect()
}

/// The tools, the system prompt and the markers of a client that caches as much as it may.
fn request(messages: &[Value], stream: bool) -> Value {
    let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
    let marker = json!({"type": "ephemeral", "ttl": "1h"});
    let mut messages = messages.to_vec();
    if let Some(last) = messages
        .last_mut()
        .and_then(|turn| turn["content"].as_array_mut()?.last_mut())
    {
        last["cache_control"] = json!({"type": "ephemeral"});
    }
    json!({
        "model": MODEL, "max_tokens": 4096, "stream": stream, "thinking": {"type": "enabled", "budget_tokens": 1024},
        "system": [{"type": "text", "text": "You are a client.", "cache_control": marker}],
        "tools": [
            {"name": "read", "description": "Reads.", "input_schema": schema},
            {"name": LONG_NAME, "input_schema": schema, "cache_control": marker},
        ],
        "messages": messages,
    })
}

/// The user's next turn: answers to all calls, with whatever comes between.
fn answers(said: &Value) -> Value {
    let mut content: Vec<Value> = said["content"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|block| block["type"] == "tool_use")
        .map(|call| json!({"type": "tool_result", "tool_use_id": call["id"], "content": [{"type": "text", "text": "found"}]}))
        .collect();
    content.push(json!({"type": "text", "text": "Go on."}));
    json!({"role": "user", "content": content})
}

fn tool_name(block: &Block) -> Option<String> {
    match block {
        Block::ToolUse { name, .. } => Some(name.clone()),
        _ => None,
    }
}

/// What Converse calls the tool of the long name, as the request that is about to come will say: the fake's answer names it.
async fn wire_name(stack: &Stack, api: BedrockApi, is_claude: bool) -> String {
    if api == BedrockApi::InvokeModel || (api == BedrockApi::Auto && is_claude) {
        return LONG_NAME.to_owned();
    }
    let messages = [json!({"role": "user", "content": [{"type": "text", "text": "probe"}]})];
    stack.fakes.plan.next(Failure::status(529));
    stack
        .send_body(&request(&messages, false))
        .await
        .text()
        .await
        .unwrap();
    let seen = stack.fakes.bedrock.requests().pop().unwrap();
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let name = &body["toolConfig"]["tools"][1]["toolSpec"]["name"];
    name.as_str().unwrap().to_owned()
}

async fn assert_moves(api: BedrockApi, model: &'static str, stream: bool) {
    let is_claude = model != NOVA;
    let mut stack = Stack::start(Setup {
        bedrock_model: model,
        bedrock_api: api,
        ..Setup::default()
    })
    .await;
    let wire = wire_name(&stack, api, is_claude).await;
    if wire != LONG_NAME {
        stack.outcome().await;
    }
    let mut messages =
        vec![json!({"role": "user", "content": [{"type": "text", "text": "Look."}]})];
    for (at, (by, content)) in turns(is_claude).into_iter().enumerate() {
        let expected: Vec<String> = content.iter().filter_map(tool_name).collect();
        if by == By::Plan {
            stack.fakes.plan.next(Reply::from(Script::content(content)));
        } else {
            let mut content = content;
            for block in &mut content {
                if let Block::ToolUse { name, .. } = block
                    && name == LONG_NAME
                {
                    name.clone_from(&wire);
                }
            }
            if by == By::Fallback {
                stack.fakes.plan.next(Failure::status(529));
            }
            stack
                .fakes
                .bedrock
                .next(Reply::from(Script::content(content)));
        }
        let response = stack.send_body(&request(&messages, stream)).await;
        let status = response.status();
        let answer = response.text().await.unwrap();
        assert_eq!(status, 200, "turn {at} of {api:?} {model}: {answer}");
        let outcome = stack.outcome().await;
        let (provider, reason) = match by {
            By::Plan => (Provider::Plan, None),
            By::Fallback => (Provider::Bedrock, Some(FallbackReason::Overloaded)),
            By::Refusal => (Provider::Bedrock, Some(FallbackReason::Feature)),
        };
        assert_eq!(
            (outcome.status, outcome.provider, outcome.fallback_reason),
            (UsageStatus::Ok, Some(provider), reason),
            "turn {at} of {api:?} {model}"
        );
        let said = message(&answer, stream);
        let calls: Vec<&str> = said["content"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|block| block["name"].as_str())
            .collect();
        assert_eq!(calls, expected, "the client sees its own names");
        messages.push(json!({"role": "assistant", "content": said["content"]}));
        messages.push(answers(&said));
        messages.push(json!({"role": "user", "content": "And quickly."}));
    }
}

#[tokio::test]
async fn between_the_plan_and_invoke_model() {
    for stream in [false, true] {
        assert_moves(BedrockApi::Auto, BEDROCK_MODEL, stream).await;
    }
}

#[tokio::test]
async fn between_the_plan_and_converse() {
    for stream in [false, true] {
        assert_moves(BedrockApi::Converse, BEDROCK_MODEL, stream).await;
    }
}

#[tokio::test]
async fn between_the_plan_and_another_model() {
    for stream in [false, true] {
        assert_moves(BedrockApi::Auto, NOVA, stream).await;
    }
}

#[tokio::test]
async fn what_converse_is_told_of_the_plans_turns_is_all_that_was_said() {
    let mut stack = Stack::start(Setup {
        bedrock_api: BedrockApi::Converse,
        ..Setup::default()
    })
    .await;
    let (_, first) = turns(true).swap_remove(0);
    let messages = [
        json!({"role": "user", "content": "Look."}),
        json!({"role": "assistant", "content": first}),
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_01A", "content": "found", "is_error": true}]}),
    ];
    stack.fakes.plan.next(Failure::status(529));
    assert_eq!(
        stack.send_body(&request(&messages, false)).await.status(),
        200
    );
    stack.outcome().await;
    let seen = stack.fakes.bedrock.requests().pop().unwrap();
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    let hour = json!({"cachePoint": {"type": "default", "ttl": "1h"}});
    assert_eq!(
        body["messages"][1]["content"],
        json!([
            {"reasoningContent": {"reasoningText": {"text": "first", "signature": "c2lnbmVkLTE="}}},
            {"text": "I look."},
            {"toolUse": {"toolUseId": "toolu_01A", "name": "read", "input": {"path": "/tmp/ä", "lines": [1, 2.5]}}},
        ])
    );
    assert_eq!(
        body["messages"][2]["content"],
        json!([
            {"toolResult": {"toolUseId": "toolu_01A", "content": [{"text": "found"}], "status": "error"}},
            {"cachePoint": {"type": "default"}},
        ])
    );
    assert_eq!(
        (&body["system"][1], &body["toolConfig"]["tools"][2]),
        (&hour, &hour)
    );
    assert_eq!(
        body["additionalModelRequestFields"]["thinking"]["budget_tokens"],
        1024
    );
}
