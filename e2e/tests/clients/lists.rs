//! What clients ask beside messages: how long a prompt is, and which models there are.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use spillway_e2e::upstream::{Kind, Operation, Rule, Script};

use crate::support::claude::Claude;
use crate::support::script::{self, Sdk};
use crate::support::{Api, World};

/// The pool maps it by its exact name.
const MODEL: &str = "claude-sonnet-4-6";
/// What the Plan lists.
const PLANS: [&str; 3] = [
    "claude-opus-4-5-20251101",
    "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5-20250929",
];

#[derive(Debug, Deserialize)]
struct Lists {
    tokens: u64,
    models: Vec<String>,
    model: String,
}

async fn lists(world: &World, sdk: Sdk) -> Lists {
    let variables = BTreeMap::from([
        ("BASE", world.secret.base_url.clone()),
        ("KEY", world.secret.key.clone()),
        ("MODEL", MODEL.to_owned()),
    ]);
    script::json(world, sdk, "lists", &variables).await
}

#[tokio::test]
async fn both_sdks_count_tokens_and_page_through_the_models_with_and_without_plan() {
    let world = World::new(Api::InvokeModel).await;
    for sdk in [Sdk::Python, Sdk::TypeScript] {
        world.fakes.plan.up().await;
        let with = lists(&world, sdk).await;
        for id in PLANS.iter().chain([&MODEL]) {
            assert!(with.models.iter().any(|model| model == id), "{with:?}");
        }
        assert_eq!(with.model, MODEL);
        world.fakes.plan.down().await;
        let without = lists(&world, sdk).await;
        assert_eq!(without.models, [MODEL]);
        assert_eq!(without.model, MODEL);
        // Both upstreams count the same way: a token for four bytes.
        assert!(with.tokens > 0);
        assert!(
            without.tokens.abs_diff(with.tokens) <= with.tokens / 4,
            "{with:?} {without:?}"
        );
    }
    let counted = world.fakes.journal.list(None);
    let counted = counted
        .iter()
        .filter(|seen| seen.operation == Operation::CountTokens);
    assert!(counted.clone().any(|seen| seen.upstream == Kind::Plan));
    assert!(counted.clone().any(|seen| seen.upstream == Kind::Bedrock));
    assert_eq!(world.database.usage(0).await, [], "none of it is booked");
}

#[tokio::test]
async fn claude_code_discovers_the_models() {
    let world = World::new(Api::InvokeModel).await;
    world
        .fakes
        .plan
        .push(Rule::forever(Script::text("Served.")));
    let told = Claude::new(&world)
        .env("CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY", "1")
        .args(&["--model", MODEL])
        .ask("Say that you are served.")
        .await;
    assert_eq!(told.answer(), "Served.");
    let sent = world.tap.sent();
    let asked = sent.iter().find(|sent| sent.method == "GET").unwrap();
    assert_eq!(asked.target, "/v1/models?limit=1000");
    // It keeps what it found, for its list of models.
    let home = world.dir.path().join("home/.claude");
    assert!(
        is_kept(&home, PLANS[0]) && is_kept(&home, MODEL),
        "{home:?}"
    );
}

/// Whether any file in a folder holds these words.
fn is_kept(dir: &Path, words: &str) -> bool {
    let entries = std::fs::read_dir(dir).unwrap().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        if path.is_dir() {
            is_kept(&path, words)
        } else {
            std::fs::read_to_string(&path).is_ok_and(|text| text.contains(words))
        }
    })
}
