//! A model at work on a task, in every format, and what is done to whoever does not replay it as it was.

use aws_sdk_bedrockruntime::error::ProvideErrorMetadata;
use serde_json::{Value, json};
use spillway_e2e::upstream::{Act, Agent, Config, FakeUpstreams, Rule, Script};

use crate::bedrock::{MODEL, blob, client as bedrock_client};
use crate::support::{client, json_of, post};

async fn strict() -> FakeUpstreams {
    let config = Config {
        foreign_signatures: false,
        ..Config::default()
    };
    let fakes = FakeUpstreams::start_with(config).await.unwrap();
    let agent = || {
        Agent::new(vec![
            vec![
                Act::Think("I look.".to_owned()),
                Act::Call {
                    name: "look".to_owned(),
                    input: json!({"at": "sky"}),
                },
            ],
            vec![
                Act::ThinkUnseen("It is blue.".to_owned()),
                Act::Say("Blue.".to_owned()),
            ],
        ])
    };
    fakes.plan.push(Rule::forever(agent()));
    fakes.bedrock.push(Rule::forever(agent()));
    fakes
}

fn request(messages: &Value) -> Value {
    json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 2048,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": messages,
    })
}

fn question() -> Value {
    json!({"role": "user", "content": [{"type": "text", "text": "What colour?", "cache_control": {"type": "ephemeral"}}]})
}

/// The conversation after the first answer and the result of its call.
fn answered(answer: &Value) -> Value {
    let id = &answer["content"][1]["id"];
    json!([
        question(),
        {"role": "assistant", "content": answer["content"]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": "blue"}]},
    ])
}

async fn plan(fakes: &FakeUpstreams, messages: &Value) -> (u16, Value) {
    let response = post(fakes, &request(messages)).send().await.unwrap();
    (response.status().as_u16(), json_of(response).await)
}

/// Content, or the message of the refusal.
async fn invoke(fakes: &FakeUpstreams, messages: &Value) -> Result<Value, String> {
    let mut body = request(messages);
    body.as_object_mut().unwrap().remove("model");
    body["anthropic_version"] = json!("bedrock-2023-05-31");
    let sent = bedrock_client(fakes)
        .invoke_model()
        .model_id(MODEL)
        .body(blob(&body));
    match sent.send().await {
        Ok(output) => {
            let message: Value = serde_json::from_slice(output.body().as_ref()).unwrap();
            Ok(message["content"].clone())
        }
        Err(error) => Err(error.into_service_error().message().unwrap().to_owned()),
    }
}

async fn converse(fakes: &FakeUpstreams, answer: &Value, at: usize) -> (u16, Value) {
    let [thinking, call] = [0, 1].map(|at| &answer["content"][at]);
    let text = json!({"text": thinking["thinking"], "signature": thinking["signature"]});
    let mut said = vec![json!({
        "toolUse": {"toolUseId": call["id"], "name": call["name"], "input": call["input"]},
    })];
    said.insert(at, json!({"reasoningContent": {"reasoningText": text}}));
    let result = json!({"toolResult": {"toolUseId": call["id"], "content": [{"text": "blue"}]}});
    let body = json!({
        "messages": [
            {"role": "user", "content": [{"text": "What colour?"}, {"cachePoint": {"type": "default"}}]},
            {"role": "assistant", "content": said},
            {"role": "user", "content": [result]},
        ],
        "additionalModelRequestFields": {"thinking": {"type": "enabled", "budget_tokens": 1024}},
        "toolConfig": {"tools": [{"toolSpec": {"name": "look", "inputSchema": {"json": {}}}}]},
    });
    let response = client()
        .post(format!("{}/model/{MODEL}/converse", fakes.bedrock_url))
        .bearer_auth(spillway_e2e::upstream::BEDROCK_API_KEY)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    (response.status().as_u16(), json_of(response).await)
}

#[tokio::test]
async fn a_task_that_began_on_plan_ends_on_any_upstream() {
    let fakes = strict().await;
    let (status, first) = plan(&fakes, &json!([question()])).await;
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["stop_reason"], "tool_use");
    assert_eq!(first["content"][0]["thinking"], "I look.");
    assert_eq!(first["content"][1]["input"], json!({"at": "sky"}));
    assert!(first["usage"]["cache_creation_input_tokens"].as_u64() > Some(0));

    let messages = answered(&first);
    let (status, last) = plan(&fakes, &messages).await;
    assert_eq!(
        (status, &last["content"][1]["text"]),
        (200, &json!("Blue."))
    );
    assert!(last["usage"]["cache_read_input_tokens"].as_u64() > Some(0));
    assert_eq!(invoke(&fakes, &messages).await, Ok(last["content"].clone()));
    let (status, output) = converse(&fakes, &first, 0).await;
    assert_eq!(status, 200, "{output}");
    let said = &output["output"]["message"]["content"];
    assert_eq!(said[1], json!({"text": "Blue."}));
    assert!(output["usage"]["cacheReadInputTokens"].as_u64() > Some(0));
    // Unless it was asked to think it does not.
    let mut plain = request(&json!([question()]));
    plain.as_object_mut().unwrap().remove("thinking");
    let plain = json_of(post(&fakes, &plain).send().await.unwrap()).await;
    assert_eq!(plain["content"][0]["type"], "tool_use");
}

#[tokio::test]
async fn thinking_that_was_altered_moved_or_lost_its_signature_is_refused_by_all() {
    let fakes = strict().await;
    let (_, first) = plan(&fakes, &json!([question()])).await;
    let changed = |change: fn(&mut Value)| {
        let mut answer = first.clone();
        change(&mut answer["content"][0]);
        answer
    };
    for answer in [
        changed(|block| block["thinking"] = json!("I do not look.")),
        changed(|block| block["signature"] = json!("c2ln")),
    ] {
        let messages = answered(&answer);
        let (status, error) = plan(&fakes, &messages).await;
        let message = "messages.1.content.0: Invalid `signature` in `thinking` block";
        assert_eq!((status, &error["error"]["message"]), (400, &json!(message)));
        assert_eq!(invoke(&fakes, &messages).await, Err(message.to_owned()));
        let (status, error) = converse(&fakes, &answer, 0).await;
        assert_eq!((status, &error["message"]), (400, &json!(message)));
    }
    let (status, error) = converse(&fakes, &first, 1).await;
    assert_eq!(status, 400, "moved behind the call: {error}");
    let mut moved = answered(&first);
    moved[1]["content"].as_array_mut().unwrap().reverse();
    assert_eq!(plan(&fakes, &moved).await.0, 400);
    assert!(invoke(&fakes, &moved).await.is_err());
    let unsigned = changed(|block| {
        block.as_object_mut().unwrap().remove("signature");
    });
    let (status, error) = plan(&fakes, &answered(&unsigned)).await;
    let message = "messages.1.content.0.thinking.signature: Field required";
    assert_eq!((status, &error["error"]["message"]), (400, &json!(message)));
}

#[tokio::test]
async fn a_tool_that_is_not_offered_is_a_mistake_and_a_request_without_tools_gets_an_echo() {
    let fakes = strict().await;
    let mut body = request(&json!([question()]));
    body["tools"][0]["name"] = json!("listen");
    let response = post(&fakes, &body).send().await.unwrap();
    assert_eq!(response.status(), 500);
    let message = json_of(response).await["error"]["message"].clone();
    assert_eq!(
        message,
        "the agent calls `look`, which the request does not offer"
    );
    body.as_object_mut().unwrap().remove("tools");
    let echo = json_of(post(&fakes, &body).send().await.unwrap()).await;
    assert_eq!(echo["content"][0]["text"], "Echo: What colour?");
}

#[test]
fn an_agent_is_a_rule_of_the_control_api() {
    let rule = json!({
        "when": {"rounds": 1},
        "times": null,
        "reply": {"agent": {
            "turns": [[{"think": "hm"}, {"think_unseen": "hm"}, {"say": "hi"}, {"call": {"name": "look", "input": {}}}]],
            "script": {"ping_every": 2},
        }},
    });
    let rule: Rule = serde_json::from_value(rule).unwrap();
    let agent = Agent::new(vec![vec![
        Act::Think("hm".to_owned()),
        Act::ThinkUnseen("hm".to_owned()),
        Act::Say("hi".to_owned()),
        Act::Call {
            name: "look".to_owned(),
            input: json!({}),
        },
    ]])
    .paced(Script {
        ping_every: Some(2),
        ..Script::default()
    });
    let expected = Rule::forever(agent).when(spillway_e2e::upstream::When {
        rounds: Some(1),
        ..Default::default()
    });
    assert_eq!(json!(rule), json!(expected));
}
