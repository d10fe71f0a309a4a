//! The ways in which Claude Code can be told where to ask and with which key.

use spillway_e2e::upstream::{Kind, Rule, Script};

use crate::support::claude::Claude;
use crate::support::{Api, World};

#[tokio::test]
async fn in_the_environment_from_a_helper_or_in_the_url() {
    let world = World::new(Api::InvokeModel).await;
    world
        .fakes
        .plan
        .push(Rule::forever(Script::text("Served.")));
    let secret = &world.secret;
    let helper = format!("echo {}", secret.key);
    let helper = serde_json::json!({"apiKeyHelper": helper}).to_string();
    let ways = [
        Claude::new(&world),
        Claude::bare(&world)
            .env("ANTHROPIC_BASE_URL", &secret.base_url)
            .env("ANTHROPIC_API_KEY", &secret.key),
        Claude::bare(&world)
            .env("ANTHROPIC_BASE_URL", &secret.base_url)
            .args(&["--settings", &helper]),
        Claude::bare(&world)
            .env("ANTHROPIC_BASE_URL", &secret.url_with_key)
            .env("ANTHROPIC_AUTH_TOKEN", "the key is in the URL"),
    ];
    let count = ways.len();
    for claude in ways {
        assert_eq!(
            claude.ask("Say that you are served.").await.answer(),
            "Served."
        );
    }
    let rows = world.database.usage(count).await;
    assert!(rows.iter().all(|row| row.status == "ok"), "{rows:#?}");

    let sent = world.tap.sent();
    let credentials: Vec<(bool, bool)> = sent
        .iter()
        .filter(|sent| sent.method == "POST")
        .map(|sent| {
            let has = |name| sent.header(name).is_some();
            (has("authorization"), has("x-api-key"))
        })
        .collect();
    assert_eq!(
        credentials,
        [(true, false), (false, true), (true, true), (true, false)],
        "bearer, key, both, bearer"
    );
    for exchange in world.generated(Kind::Plan) {
        assert_eq!(exchange.path, "/v1/messages", "the key stays here");
        assert_eq!(exchange.header("authorization"), None);
    }
}

#[tokio::test]
async fn a_key_that_is_not_known_ends_the_session_at_once() {
    let world = World::new(Api::InvokeModel).await;
    let told = Claude::new(&world)
        .env("ANTHROPIC_AUTH_TOKEN", &spoilt(&world.secret.key))
        .ask("Say anything.")
        .await;
    assert_eq!(told.result()["is_error"], true, "{}", told.result());
    assert_eq!(told.retries(), 0, "{}", told.output.stdout);
    let posts = world.tap.sent();
    let posts = posts.iter().filter(|sent| sent.method == "POST").count();
    assert_eq!(posts, 1, "a client that retries would ask for minutes");
    assert_eq!(world.fakes.journal.list(None).len(), 0);
}

/// Another key of the same form: its checksum is right, and nobody has it.
fn spoilt(key: &str) -> String {
    assert!(key.starts_with("sk-spw-"), "{key}");
    spillway_core::security::key::AccessKeyToken::generate()
        .unwrap()
        .expose()
        .to_owned()
}
