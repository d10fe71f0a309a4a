//! What README and examples/quickstart.yaml promise, with the file as it is.

use std::sync::Arc;

use serde_json::Value;
use spillway_e2e::upstream::{Exchange, Kind, Mode};

use crate::support::commands::root;
use crate::support::database::UsageRow;
use crate::support::objects::{condition, decoded};
use crate::support::tenant::key;
use crate::support::{PLATFORM, Tenant, World};

pub async fn run(world: Arc<World>) {
    // The file's namespace, with upstreams that the operator's environment names.
    let tenant = Tenant::new(&world, "team-a").await;
    let plan_key = &tenant.credentials.plan_key;
    world
        .apply(&format!(
            r"
apiVersion: v1
kind: Namespace
metadata: {{name: team-a, labels: {{spillway.dev/pool: engineering}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: anthropic, namespace: {PLATFORM}}}
stringData: {{ANTHROPIC_API_KEY: '{plan_key}'}}
"
        ))
        .await;
    let file = root().join("examples/quickstart.yaml");
    world
        .kubectl(&["apply", "--filename", file.to_str().unwrap()])
        .await;

    world.ready("ProxyPool", PLATFORM, "engineering").await;
    for (kind, name) in [
        ("BedrockCredential", "team-aws"),
        ("ProxyUser", "alice"),
        ("AccessKey", "alice-laptop"),
    ] {
        let object = world.ready(kind, "team-a", name).await;
        assert!(
            condition(&object, "Accepted").is_some(),
            "{kind} has conditions: {object:#}"
        );
    }
    the_secret_is_ready_to_mount(&world).await;

    let key = key(&world, "team-a", "alice-laptop").await;
    let from_plan = world.served(&key, "hello", false).await;
    tenant.fakes.plan(Mode::down()).await;
    let from_bedrock = world.served(&key, "hello", false).await;
    tenant.fakes.plan(Mode::Up).await;
    assert_eq!(from_plan.text(), from_bedrock.text());

    let rows = tenant.usage(2).await;
    assert_eq!(rows.len(), 2, "one row for each request: {rows:?}");
    let plan = &tenant.fakes.generated(Kind::Plan).await[0];
    let bedrock = &tenant.fakes.generated(Kind::Bedrock).await[0];
    equals_the_upstreams_numbers(&rows[0], plan, "plan");
    equals_the_upstreams_numbers(&rows[1], bedrock, "bedrock");
    assert!(!rows[0].is_fallback && rows[1].is_fallback);

    let cost: i64 = rows.iter().map(|row| row.cost_micro_usd).sum();
    for (kind, name) in [("AccessKey", "alice-laptop"), ("ProxyUser", "alice")] {
        let object = world
            .wait(kind, "team-a", name, "shows both requests", |object| {
                object["status"]["usage"]["requests"] == 2
            })
            .await;
        shows(&object["status"]["usage"], &rows, cost);
    }
    let table = world.kubectl(&["get", "accesskeys", "-n", "team-a"]).await;
    let shown = format!("{:.4}", micro_usd(cost))
        .trim_end_matches('0')
        .to_owned();
    assert!(
        table.contains(&shown),
        "the table shows the cost {shown}:\n{table}"
    );
}

async fn the_secret_is_ready_to_mount(world: &World) {
    let secret = world.get("Secret", "team-a", "alice-laptop").await;
    let entry = |key: &str| decoded(&secret["data"][key]).unwrap_or_else(|| panic!("no {key}"));
    let (token, base) = (entry("ACCESS_KEY"), entry("ANTHROPIC_BASE_URL"));
    assert!(
        token.starts_with("sk-spw-") && token.len() == 67,
        "the key's form"
    );
    assert_eq!(
        base, "http://spillway-engineering.spillway.svc",
        "no key in the plain URL"
    );
    assert_eq!(entry("ANTHROPIC_AUTH_TOKEN"), token);
    assert_eq!(entry("ACCESS_KEY_URL"), format!("{base}/ak/{token}"));
    assert_eq!(secret["data"].as_object().unwrap().len(), 4);
}

fn equals_the_upstreams_numbers(row: &UsageRow, exchange: &Exchange, provider: &str) {
    let usage = exchange
        .answer
        .usage
        .expect("the upstream reported numbers");
    assert_eq!(row.provider.as_deref(), Some(provider));
    assert_eq!(
        (row.input_tokens, row.output_tokens),
        (
            usage.input_tokens.cast_signed(),
            usage.output_tokens.cast_signed()
        )
    );
    assert_eq!(
        row.upstream_request_id.as_deref(),
        Some(exchange.answer.request_id.as_str())
    );
    assert_eq!(
        (row.status.as_str(), row.http_status, row.estimated),
        ("ok", 200, false)
    );
    assert_eq!(
        (row.key_name.as_str(), row.user_name.as_str()),
        ("alice-laptop", "alice")
    );
    assert!(row.cost_micro_usd > 0);
}

fn shows(usage: &Value, rows: &[UsageRow], cost: i64) {
    assert_eq!(usage["fallbackRequests"], 1, "{usage}");
    assert_eq!(
        usage["inputTokens"],
        rows.iter().map(|row| row.input_tokens).sum::<i64>(),
        "{usage}"
    );
    assert_eq!(
        usage["outputTokens"],
        rows.iter().map(|row| row.output_tokens).sum::<i64>(),
        "{usage}"
    );
    let shown: f64 = usage["costUSD"].as_str().unwrap().parse().unwrap();
    assert!(
        (shown - micro_usd(cost)).abs() < 1e-9,
        "{usage}: the rows cost {cost} micro-USD"
    );
}

fn micro_usd(cost: i64) -> f64 {
    f64::from(i32::try_from(cost).expect("little money")) / 1e6
}
