//! Claude Code finishes its task, on each upstream alone.

use spillway_e2e::upstream::{Exchange, Kind, Operation, PLAN_API_KEY, digest};

use crate::support::claude::Claude;
use crate::support::tap::Sent;
use crate::support::task::{PROMPT, TURNS, assert_booked, assert_done, assert_whole, give, served};
use crate::support::{Api, World};

#[tokio::test]
async fn on_plan_which_gets_every_byte_and_header_that_the_client_sent() {
    let world = World::new(Api::InvokeModel).await;
    give(&world);
    let told = Claude::new(&world).ask(PROMPT).await;
    assert_done(&world, &told);

    let asked = world.generated(Kind::Plan);
    assert_eq!(asked.len(), TURNS);
    assert_whole(&world, asked.last().unwrap());
    let sent: Vec<Sent> = world.tap.sent();
    let sent: Vec<&Sent> = sent.iter().filter(|sent| sent.method == "POST").collect();
    assert_eq!(sent.len(), TURNS, "nothing but the four messages");
    for (sent, got) in sent.iter().zip(&asked) {
        assert_passed_on(sent, got);
    }
    assert_eq!(world.generated(Kind::Bedrock).len(), 0);

    let rows = world.database.usage(TURNS).await;
    assert_eq!(served(&rows), [("plan", None); TURNS]);
    assert_booked(&world, &rows);
    for row in &rows {
        assert!(row.stream, "{row:?}");
        assert_eq!(row.session_id.as_deref(), Some(told.session()));
    }
    assert!(rows[0].cache_creation_5m_tokens + rows[0].cache_creation_1h_tokens > 0);
    assert!(rows[1].cache_read_input_tokens > 0, "{:?}", rows[1]);
}

/// Body, query and end-to-end headers are those of the client; the key is the pool's.
fn assert_passed_on(sent: &Sent, got: &Exchange) {
    assert_eq!(got.body_sha256, sent.body_sha256());
    let target = format!("{}?{}", got.path, got.query.as_deref().unwrap_or_default());
    assert_eq!(target, sent.target);
    let key = digest(PLAN_API_KEY.as_bytes());
    assert_eq!(got.header("x-api-key"), Some(key.as_str()));
    assert_eq!(got.header("authorization"), None);
    // Hop by hop, or the proxy's own to choose.
    let own = [
        "accept-encoding",
        "authorization",
        "connection",
        "content-length",
        "host",
        "x-api-key",
    ];
    let of = |headers: &[(String, String)]| {
        let mut headers: Vec<_> = headers.to_vec();
        headers.retain(|(name, _)| !own.contains(&name.as_str()));
        headers.sort();
        headers
    };
    assert_eq!(of(&got.headers), of(&sent.headers));
}

#[tokio::test]
async fn on_bedrock_invoke_model_while_plan_is_down() {
    on_bedrock(Api::InvokeModel, Operation::InvokeStream).await;
}

#[tokio::test]
async fn on_bedrock_converse_while_plan_is_down() {
    on_bedrock(Api::Converse, Operation::ConverseStream).await;
}

async fn on_bedrock(api: Api, operation: Operation) {
    let world = World::new(api).await;
    give(&world);
    world.fakes.plan.down().await;
    let told = Claude::new(&world).ask(PROMPT).await;
    assert_done(&world, &told);

    let asked = world.generated(Kind::Bedrock);
    assert_eq!(asked.len(), TURNS);
    for exchange in &asked {
        assert_eq!(exchange.operation, operation);
        assert_eq!(exchange.answer.status, Some(200), "{exchange:?}");
    }
    assert_whole(&world, asked.last().unwrap());
    // Three failures open the circuit; from then on Plan is left alone.
    assert_eq!(world.generated(Kind::Plan).len(), 3);

    let rows = world.database.usage(TURNS).await;
    let failed = ("bedrock", Some("server_error"));
    let spared = ("bedrock", Some("circuit_open"));
    assert_eq!(served(&rows), [failed, failed, failed, spared, spared]);
    assert_booked(&world, &rows);
    assert!(rows[1].cache_read_input_tokens > 0, "{:?}", rows[1]);
}
