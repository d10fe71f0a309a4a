//! Clients that were told that the gateway is Bedrock: their calls go to Bedrock as they are, signed anew.

use spillway_e2e::upstream::{Exchange, Kind, Operation};

use crate::sdk::{RUNS, TURNS, assert_counted, work, world};
use crate::support::claude::{Claude, Told};
use crate::support::script::Sdk;
use crate::support::tap::Sent;
use crate::support::task::{self, PROMPT, assert_booked, assert_done, assert_whole, give, served};
use crate::support::{Api, World};

/// Claude Code as the documentation tells to set it up for a gateway, but for the key.
fn claude(world: &World) -> Claude {
    Claude::bare(world)
        .env("CLAUDE_CODE_USE_BEDROCK", "1")
        .env("CLAUDE_CODE_SKIP_BEDROCK_AUTH", "1")
        .env("AWS_REGION", "us-east-1")
}

#[tokio::test]
async fn claude_code_with_the_key_in_the_url() {
    let world = World::new(Api::InvokeModel).await;
    give(&world);
    let base = format!("{}/bedrock", world.secret.url_with_key);
    let told = claude(&world)
        .env("ANTHROPIC_BEDROCK_BASE_URL", &base)
        .ask(PROMPT)
        .await;
    assert_finished(&world, &told).await;
}

#[tokio::test]
async fn claude_code_with_the_key_as_bearer() {
    let world = World::new(Api::InvokeModel).await;
    give(&world);
    let base = format!("{}/bedrock", world.secret.base_url);
    let told = claude(&world)
        .env("ANTHROPIC_BEDROCK_BASE_URL", &base)
        .env("ANTHROPIC_AUTH_TOKEN", &world.secret.auth_token)
        .ask(PROMPT)
        .await;
    assert_finished(&world, &told).await;
}

async fn assert_finished(world: &World, told: &Told) {
    assert_done(world, told);
    assert_eq!(
        world.generated(Kind::Plan).len(),
        0,
        "Bedrock's format is for Bedrock"
    );
    let asked = world.generated(Kind::Bedrock);
    assert_eq!(asked.len(), task::TURNS);
    assert_whole(world, asked.last().unwrap());
    let sent = world.tap.sent();
    let sent: Vec<&Sent> = sent.iter().filter(|sent| sent.method == "POST").collect();
    assert_eq!(sent.len(), task::TURNS, "nothing but the four calls");
    for (sent, got) in sent.iter().zip(&asked) {
        assert_eq!(got.operation, Operation::InvokeStream);
        assert_relayed(sent, got);
    }

    let rows = world.database.usage(task::TURNS).await;
    assert_eq!(served(&rows), [("bedrock", None); task::TURNS]);
    assert_booked(world, &rows);
    for row in &rows {
        assert!(row.stream, "{row:?}");
        assert_eq!(row.session_id.as_deref(), Some(told.session()));
    }
}

/// The body is the client's, byte for byte; the signature is the pool's, over nothing that the client sent as a header.
fn assert_relayed(sent: &Sent, got: &Exchange) {
    assert_eq!(got.body_sha256, sent.body_sha256());
    assert!(
        sent.target.ends_with(&got.path),
        "{} {}",
        sent.target,
        got.path
    );
    let own = ["accept", "accept-encoding", "content-type", "host"];
    for name in &got.signed_headers {
        let is_own = own.contains(&name.as_str()) || name.starts_with("x-amz-");
        assert!(is_own, "{name} is signed");
    }
    assert!(!got.path.contains("sk-spw-"), "{}", got.path);
}

async fn sdk(sdk: Sdk) {
    let world = world(Api::InvokeModel).await;
    let ways = ["bedrock bearer", "bedrock path"];
    let mut runs = Vec::new();
    for way in ways {
        runs.extend(work(&world, sdk, way, "us.anthropic.claude-sonnet-4-6").await);
    }
    assert_eq!(
        world.generated(Kind::Plan).len(),
        0,
        "Bedrock's format is for Bedrock"
    );
    let calls = ways.len() * RUNS * TURNS;
    let rows = world.database.usage(calls).await;
    assert_eq!(served(&rows), vec![("bedrock", None); calls]);
    assert_counted(&runs, &assert_booked(&world, &rows));
    let streamed = rows.iter().filter(|row| row.stream).count();
    assert_eq!(streamed, calls / 2);

    let sent = world.tap.sent();
    let posts = sent.iter().filter(|sent| sent.method == "POST");
    for (sent, got) in posts.zip(&world.generated(Kind::Bedrock)) {
        assert_relayed(sent, got);
    }
}

#[tokio::test]
async fn python_with_the_key_as_bearer_and_in_the_url() {
    sdk(Sdk::Python).await;
}

#[tokio::test]
async fn typescript_with_the_key_as_bearer_and_in_the_url() {
    sdk(Sdk::TypeScript).await;
}
