//! The task that Claude Code is given, and what must have come of it whoever answered.

use std::path::PathBuf;

use serde_json::{Value, json};
use spillway_e2e::upstream::{Act, Agent, Exchange, Kind, Rule, Usage};

use super::claude::{Told, work};
use super::conversation::{Replayed, replayed};
use super::database::UsageRow;
use super::world::World;

/// What the user asks.
pub const PROMPT: &str = "Change alpha to beta in notes.txt and log what the file says then.";
/// What the user is told in the end.
pub const ANSWER: &str = "Done: notes.txt says beta now, see log.txt.";
/// How many messages the model sends.
pub const TURNS: usize = 5;

/// Makes the file that the task is about, and has both upstreams work on it.
pub fn give(world: &World) {
    std::fs::create_dir_all(work(world)).unwrap();
    std::fs::write(notes(world), "alpha \u{e9} \"one\"\n").unwrap();
    for upstream in [&world.fakes.plan, &world.fakes.bedrock] {
        upstream.push(Rule::forever(agent(world)));
    }
}

/// Loads a tool, reads the file, edits it, then looks and writes at once, then answers: with thinking before, between and after.
pub fn agent(world: &World) -> Agent {
    let think = |text: &str| Act::Think(text.to_owned());
    let call = |(name, input): (String, Value)| Act::Call { name, input };
    let [search, read, edit, look, log] = calls(world).map(call);
    Agent::new(vec![
        vec![think("There may be notebooks."), search],
        vec![
            think("First I look at the file."),
            Act::Say("I look at the file.".to_owned()),
            read,
        ],
        vec![
            think("One word is to be replaced: \u{201c}alpha\u{201d}."),
            Act::ThinkUnseen("Nobody may read this.".to_owned()),
            edit,
        ],
        vec![
            think("Two things at once."),
            look,
            think("And the log."),
            log,
        ],
        vec![think("That is all."), Act::Say(ANSWER.to_owned())],
    ])
}

fn calls(world: &World) -> [(String, Value); 5] {
    let notes = notes(world);
    [
        (
            "ToolSearch",
            json!({"query": "select:NotebookEdit", "max_results": 1}),
        ),
        ("Read", json!({"file_path": notes})),
        (
            "Edit",
            json!({"file_path": notes, "old_string": "alpha", "new_string": "beta", "replace_all": false}),
        ),
        (
            "Bash",
            json!({"command": "cat notes.txt", "description": "Show the file"}),
        ),
        (
            "Write",
            json!({"file_path": log(world), "content": "notes.txt: beta\n"}),
        ),
    ]
    .map(|(name, input)| (name.to_owned(), input))
}

fn notes(world: &World) -> PathBuf {
    work(world).join("notes.txt")
}

fn log(world: &World) -> PathBuf {
    work(world).join("log.txt")
}

/// The files are changed, the user was told so, and the client never had to try again.
pub fn assert_done(world: &World, told: &Told) {
    assert_eq!(told.answer(), ANSWER);
    assert_eq!(told.retries(), 0, "{}", told.output.stdout);
    assert_changed(world);
}

/// The files are changed.
pub fn assert_changed(world: &World) {
    let read = |path| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(notes(world)), "beta \u{e9} \"one\"\n");
    assert_eq!(read(log(world)), "notes.txt: beta\n");
}

/// A request of the last turn brings everything back: thoughts, calls with their arguments, results with their texts.
pub fn assert_whole(world: &World, last: &Exchange) {
    let Replayed {
        thoughts,
        calls: replayed_calls,
        results,
        cache_markers,
    } = replayed(last);
    assert_eq!(thoughts, 6, "{}", last.body);
    assert_eq!(replayed_calls, calls(world));
    let [search, read, edit, look, log] = &results[..] else {
        panic!("{results:?}")
    };
    assert!(search.contains("NotebookEdit"), "{search}");
    assert!(read.contains("alpha \u{e9} \"one\""), "{read}");
    assert!(edit.contains("has been updated"), "{edit}");
    assert_eq!(look, "beta \u{e9} \"one\"");
    assert!(log.contains("log.txt"), "{log}");
    assert!((2..=4).contains(&cache_markers), "{}", last.body);
}

/// Every row names the exchange that answered it, with that upstream's own numbers. Gives the exchanges in the rows' order.
pub fn assert_booked(world: &World, rows: &[UsageRow]) -> Vec<Exchange> {
    let exchanges = world.fakes.journal.list(None);
    rows.iter()
        .map(|row| {
            let id = row.upstream_request_id.as_deref();
            let exchange = exchanges
                .iter()
                .find(|exchange| Some(exchange.answer.request_id.as_str()) == id)
                .unwrap_or_else(|| panic!("nobody answered {row:?}"));
            let provider = match exchange.upstream {
                Kind::Plan => "plan",
                Kind::Bedrock => "bedrock",
            };
            assert_eq!(row.provider.as_deref(), Some(provider), "{row:?}");
            assert_eq!(row.is_fallback, row.fallback_reason.is_some(), "{row:?}");
            assert!(row.cost_micro_usd > 0, "{row:?}");
            assert_eq!(Some(tokens(row)), exchange.answer.usage, "{row:?}");
            exchange.clone()
        })
        .collect()
}

fn tokens(row: &UsageRow) -> Usage {
    let count = |tokens: i64| u64::try_from(tokens).unwrap();
    Usage {
        input_tokens: count(row.input_tokens),
        output_tokens: count(row.output_tokens),
        cache_read_input_tokens: count(row.cache_read_input_tokens),
        cache_creation_5m_input_tokens: count(row.cache_creation_5m_tokens),
        cache_creation_1h_input_tokens: count(row.cache_creation_1h_tokens),
    }
}

/// What came of the calls, one entry a row: who answered, and why it was not the Plan.
pub fn served(rows: &[UsageRow]) -> Vec<(&str, Option<&str>)> {
    rows.iter()
        .map(|row| {
            assert_eq!(
                (row.status.as_str(), row.http_status),
                ("ok", 200),
                "{row:?}"
            );
            assert!(!row.estimated, "{row:?}");
            let provider = row.provider.as_deref().unwrap();
            (provider, row.fallback_reason.as_deref())
        })
        .collect()
}
