//! The official SDKs finish their task, streamed and not, with the same messages whoever answered.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use spillway_e2e::upstream::{Act, Agent, Exchange, Failure, Kind, Operation, Rule, When};

use crate::support::conversation::replayed;
use crate::support::script::{self, Run, Sdk};
use crate::support::task::{assert_booked, served};
use crate::support::{Api, World};

const MODEL: &str = "claude-sonnet-4-6";
pub const TURNS: usize = 3;
/// Streamed and not.
pub const RUNS: usize = 2;
const ANSWER: &str = "It says \u{201c}beta\u{201d} now.";

/// Two calls at once, then one between thoughts, then the answer.
fn agent() -> Agent {
    let think = |text: &str| Act::Think(text.to_owned());
    let call = |name: &str, input: Value| Act::Call {
        name: name.to_owned(),
        input,
    };
    Agent::new(vec![
        vec![
            think("I look twice, to be sure."),
            Act::Say("I look.".to_owned()),
            call("read_file", json!({})),
            call("read_file", json!({})),
        ],
        vec![
            think("One word."),
            Act::ThinkUnseen("Nobody may read this.".to_owned()),
            call("write_file", json!({"text": "beta \u{e9}\n"})),
        ],
        vec![think("That is all."), Act::Say(ANSWER.to_owned())],
    ])
}

pub async fn world(api: Api) -> World {
    let world = World::new(api).await;
    for upstream in [&world.fakes.plan, &world.fakes.bedrock] {
        upstream.push(Rule::forever(agent()));
    }
    world
}

pub async fn work(world: &World, sdk: Sdk, way: &str, model: &str) -> Vec<Run> {
    let base = world.secret.base_url.clone();
    let variables = BTreeMap::from([
        ("BASE", base),
        ("KEY", world.secret.key.clone()),
        ("WAY", way.to_owned()),
        ("MODEL", model.to_owned()),
    ]);
    let runs: Vec<Run> = script::json(world, sdk, "sdk", &variables).await;
    let how: Vec<_> = runs.iter().map(|run| run.how.as_str()).collect();
    assert_eq!(how, ["whole", "streamed"]);
    for run in &runs {
        assert_eq!(run.file, "beta \u{e9}\n", "{run:#?}");
        assert_eq!(run.answers.len(), TURNS, "{run:#?}");
        assert_messages(run);
    }
    runs
}

/// The SDK gave what the agent said, block by block.
fn assert_messages(run: &Run) {
    let kinds: Vec<Vec<&str>> = run
        .answers
        .iter()
        .map(|answer| {
            let blocks = answer["content"].as_array().unwrap().iter();
            blocks
                .map(|block| block["type"].as_str().unwrap())
                .collect()
        })
        .collect();
    assert_eq!(
        kinds,
        [
            vec!["thinking", "text", "tool_use", "tool_use"],
            vec!["thinking", "redacted_thinking", "tool_use"],
            vec!["thinking", "text"],
        ]
    );
    let [first, second, last] = &run.answers[..] else {
        panic!("{run:#?}")
    };
    assert_eq!(first["content"][0]["thinking"], "I look twice, to be sure.");
    assert_eq!(first["content"][3]["input"], json!({}));
    assert_eq!(
        second["content"][2]["input"],
        json!({"text": "beta \u{e9}\n"})
    );
    assert_eq!(last["content"][1]["text"], ANSWER);
    for (answer, reason) in [
        (first, "tool_use"),
        (second, "tool_use"),
        (last, "end_turn"),
    ] {
        assert_eq!(answer["stop_reason"], reason, "{run:#?}");
        assert_eq!(answer["role"], "assistant", "{run:#?}");
        assert!(
            answer["id"].as_str().unwrap().starts_with("msg_"),
            "{answer}"
        );
    }
}

/// What the SDK counted is what was booked, call by call.
pub fn assert_counted(runs: &[Run], exchanges: &[Exchange]) {
    let answers = runs.iter().flat_map(|run| &run.answers);
    for (answer, exchange) in answers.zip(exchanges) {
        let (told, reported) = (&answer["usage"], exchange.answer.usage.unwrap());
        assert_eq!(told["input_tokens"], reported.input_tokens, "{answer}");
        assert_eq!(told["output_tokens"], reported.output_tokens, "{answer}");
        assert_eq!(
            told["cache_read_input_tokens"],
            reported.cache_read_input_tokens
        );
        assert_eq!(
            told["cache_creation_input_tokens"],
            reported.cache_creation_input_tokens()
        );
        assert!(reported.cache_read_input_tokens + reported.cache_creation_1h_input_tokens > 0);
    }
}

async fn on_plan(sdk: Sdk) {
    let world = world(Api::InvokeModel).await;
    let ways = ["x-api-key", "bearer", "path"];
    let mut runs = Vec::new();
    for way in ways {
        runs.extend(work(&world, sdk, way, MODEL).await);
    }
    let calls = ways.len() * RUNS * TURNS;
    let rows = world.database.usage(calls).await;
    assert_eq!(served(&rows), vec![("plan", None); calls]);
    assert_counted(&runs, &assert_booked(&world, &rows));
    let streamed = rows.iter().filter(|row| row.stream).count();
    assert_eq!(streamed, calls / 2);

    let sent = world.tap.sent();
    let posts = sent.iter().filter(|sent| sent.method == "POST");
    let asked = world.generated(Kind::Plan);
    let bodies: Vec<_> = asked.iter().map(|exchange| &exchange.body_sha256).collect();
    let sent: Vec<_> = posts.map(|sent| sent.body_sha256()).collect();
    assert_eq!(bodies, sent.iter().collect::<Vec<_>>(), "byte for byte");
}

/// Plan fails in the second turn of each task: the answer comes from Bedrock, the next one from Plan again.
async fn moving(sdk: Sdk, api: Api, operations: [Operation; 2]) {
    let world = world(api).await;
    world.fakes.plan.clear_rules();
    // The first failure is the first task's, the second the second's.
    for reply in [Failure::status(529), Failure::status(500)] {
        world.fakes.plan.push(Rule::once(reply).when(When {
            rounds: Some(1),
            ..When::default()
        }));
    }
    world.fakes.plan.push(Rule::forever(agent()));
    let runs = work(&world, sdk, "x-api-key", MODEL).await;

    let rows = world.database.usage(RUNS * TURNS).await;
    let plan = ("plan", None);
    assert_eq!(
        served(&rows),
        [
            plan,
            ("bedrock", Some("overloaded")),
            plan,
            plan,
            ("bedrock", Some("server_error")),
            plan,
        ]
    );
    assert_counted(&runs, &assert_booked(&world, &rows));
    let instead = world.generated(Kind::Bedrock);
    let asked: Vec<_> = instead.iter().map(|exchange| exchange.operation).collect();
    assert_eq!(asked, operations);
    for exchange in &instead {
        let conversation = replayed(exchange);
        assert_eq!(conversation.thoughts, 1, "{}", exchange.body);
        assert_eq!(conversation.results, ["alpha \u{e9}\n", "alpha \u{e9}\n"]);
        assert_eq!(conversation.cache_markers, 3, "{}", exchange.body);
    }
    let last = replayed(world.generated(Kind::Plan).last().unwrap());
    assert_eq!((last.thoughts, last.calls.len()), (3, 3));
}

#[tokio::test]
async fn python_on_plan_with_the_key_in_every_place() {
    on_plan(Sdk::Python).await;
}

#[tokio::test]
async fn typescript_on_plan_with_the_key_in_every_place() {
    on_plan(Sdk::TypeScript).await;
}

#[tokio::test]
async fn python_to_invoke_model_and_back() {
    let operations = [Operation::Invoke, Operation::InvokeStream];
    moving(Sdk::Python, Api::InvokeModel, operations).await;
}

#[tokio::test]
async fn typescript_to_invoke_model_and_back() {
    let operations = [Operation::Invoke, Operation::InvokeStream];
    moving(Sdk::TypeScript, Api::InvokeModel, operations).await;
}

#[tokio::test]
async fn python_to_converse_and_back() {
    let operations = [Operation::Converse, Operation::ConverseStream];
    moving(Sdk::Python, Api::Converse, operations).await;
}

#[tokio::test]
async fn typescript_to_converse_and_back() {
    let operations = [Operation::Converse, Operation::ConverseStream];
    moving(Sdk::TypeScript, Api::Converse, operations).await;
}
