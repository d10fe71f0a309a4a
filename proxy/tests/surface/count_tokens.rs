//! `/v1/messages/count_tokens`.

use reqwest::Response;
use serde_json::{Value, json};
use spillway_e2e::upstream::{Failure, Operation, PLAN_API_KEY, Rule, When, digest, sha256_hex};

use crate::support::{MODEL, Proxy, World, client, message, send};

const COUNTED: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";

fn body() -> Value {
    json!({"model": MODEL, "system": "Be brief.", "messages": [{"role": "user", "content": "How many?"}]})
}

async fn count(proxy: &Proxy, key: &str, body: String) -> Response {
    client()
        .post(format!(
            "{}/v1/messages/count_tokens?beta=true",
            proxy.url()
        ))
        .header("authorization", format!("Bearer {key}"))
        .header("anthropic-beta", "token-counting-2024-11-01")
        .header("content-type", "application/json")
        .body(body)
        .send()
        .await
        .unwrap()
}

fn counting(failure: Failure) -> Rule {
    Rule::forever(failure).when(When {
        operation: Some(Operation::CountTokens),
        ..When::default()
    })
}

fn estimated(response: &Response) -> bool {
    response
        .headers()
        .get("x-spillway-estimated")
        .is_some_and(|value| value == "true")
}

async fn tokens(response: Response) -> u64 {
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    let body: Value = response.json().await.unwrap();
    assert_eq!(body.as_object().unwrap().len(), 1, "{body}");
    body["input_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn the_plan_counts_what_it_gets_byte_for_byte_and_no_row_is_written() {
    let world = World::create().await;
    let proxy = world.start().await;
    let sent =
        r#" {"model":"claude-x" , "unheard_of":1e2,"messages":[{"role":"user","content":"a"}]}"#;
    let response = count(&proxy, world.key.expose(), sent.to_owned()).await;
    let request_id = response.headers()["request-id"].clone();
    assert!(tokens(response).await > 0);

    let seen = world.fakes.plan.requests();
    let [seen] = &seen[..] else {
        panic!("{seen:?}")
    };
    assert_eq!(
        (seen.path.as_str(), seen.query.as_deref()),
        ("/v1/messages/count_tokens", Some("beta=true"))
    );
    assert_eq!(seen.body_sha256, sha256_hex(sent.as_bytes()));
    assert_eq!(seen.answer.request_id, request_id.to_str().unwrap());
    assert_eq!(
        seen.header("anthropic-beta"),
        Some("token-counting-2024-11-01")
    );
    assert_eq!(
        seen.header("x-api-key"),
        Some(digest(PLAN_API_KEY.as_bytes()).as_str())
    );
    assert_eq!(seen.header("authorization"), None);
    assert!(world.rows_after_a_message(&proxy, 0).await.is_empty());
    let (_, metrics) = proxy.admin("/metrics").await.unwrap();
    assert!(
        metrics.contains(
            r#"spillway_requests_total{code="200",provider="plan",route="count_tokens"} 1"#
        ),
        "{metrics}"
    );
}

#[tokio::test]
async fn bedrock_counts_where_the_plan_fails_and_no_circuit_hears_of_it() {
    let world = World::create().await;
    let proxy = world.start().await;
    for failure in [
        Failure::status(500),
        Failure::status(529),
        Failure::status(429),
        Failure::status(401),
    ] {
        for _ in 0..3 {
            world.fakes.plan.clear_rules();
            world.fakes.plan.push(counting(failure.clone()));
            let response = count(&proxy, world.key.expose(), body().to_string()).await;
            assert!(!estimated(&response));
            assert!(tokens(response).await > 0);
        }
    }
    let seen = world.fakes.bedrock.requests();
    assert_eq!(seen.len(), 12);
    for request in &seen {
        assert_eq!(
            (
                request.operation,
                request.model.as_deref(),
                request.answer.status
            ),
            (Operation::CountTokens, Some(COUNTED), Some(200))
        );
    }
    // A circuit that had heard of it would send this to Bedrock.
    world.fakes.plan.clear_rules();
    let rows = world.rows_after_a_message(&proxy, 0).await;
    assert!(rows.is_empty());
    assert_eq!(
        world.fakes.plan.requests().last().unwrap().operation,
        Operation::Messages
    );
}

#[tokio::test]
async fn an_open_circuit_sends_it_straight_to_bedrock() {
    let world = World::create().await;
    let proxy = world.start().await;
    world.fakes.plan.down().await;
    for _ in 0..3 {
        let response = send(&proxy, world.key.expose(), &message("a", false)).await;
        assert_eq!(response.status(), 200);
    }
    world.fakes.plan.up().await;
    let asked = world.fakes.plan.request_count();
    let response = count(&proxy, world.key.expose(), body().to_string()).await;
    assert!(tokens(response).await > 0);
    assert_eq!(world.fakes.plan.request_count(), asked);
    let last = world.fakes.bedrock.requests().pop().unwrap();
    assert_eq!(last.operation, Operation::CountTokens);
    // Another model's circuit is closed.
    let mut other = body();
    other["model"] = "claude-haiku-4-5".into();
    tokens(count(&proxy, world.key.expose(), other.to_string()).await).await;
    assert_eq!(world.fakes.plan.request_count(), asked + 1);
}

#[tokio::test]
async fn a_guess_says_so_where_bedrock_does_not_count() {
    let world = World::create().await;
    let proxy = world.start().await;
    world.fakes.plan.down().await;
    world.fakes.bedrock.push(counting(
        Failure::status(400).message("The provided model doesn't support counting tokens."),
    ));
    let response = count(&proxy, world.key.expose(), body().to_string()).await;
    assert!(estimated(&response));
    let plain = tokens(response).await;
    let mut with_tools = body();
    with_tools["tools"] =
        json!([{"name": "a", "description": "b".repeat(400), "input_schema": {"type": "object"}}]);
    let response = count(&proxy, world.key.expose(), with_tools.to_string()).await;
    assert!(estimated(&response));
    assert!(tokens(response).await > plain + 400);

    // Server tools are not known to Bedrock at all.
    world.fakes.bedrock.clear_rules();
    with_tools["tools"] = json!([{"type": "web_search_20250305", "name": "web_search"}]);
    let response = count(&proxy, world.key.expose(), with_tools.to_string()).await;
    assert!(estimated(&response));
}

#[tokio::test]
async fn thinking_budgets_and_empty_tools_are_countable() {
    let world = World::create().await;
    let proxy = world.start().await;
    world.fakes.plan.down().await;
    let mut body = body();
    body["thinking"] = json!({"type": "enabled", "budget_tokens": 30_000});
    body["tools"] = json!([]);
    let response = count(&proxy, world.key.expose(), body.to_string()).await;
    assert!(!estimated(&response));
    assert!(tokens(response).await > 0);
}

#[tokio::test]
async fn what_is_wrong_with_the_request_is_said_by_whoever_finds_it() {
    let world = World::create().await;
    let proxy = world.start().await;
    let failure = Failure::status(400).message("messages: at least one message is required");
    world.fakes.plan.push(counting(failure));
    let response = count(&proxy, world.key.expose(), body().to_string()).await;
    assert_eq!(response.status(), 400);
    assert_eq!(world.fakes.bedrock.request_count(), 0);

    world.fakes.plan.down().await;
    let words = "prompt is too long: 201000 tokens > 200000 maximum";
    world
        .fakes
        .bedrock
        .push(counting(Failure::status(400).message(words)));
    let response = count(&proxy, world.key.expose(), body().to_string()).await;
    assert_eq!(response.status(), 400);
    let error: Value = response.json().await.unwrap();
    assert_eq!(
        (&error["error"]["type"], &error["error"]["message"]),
        (&"invalid_request_error".into(), &words.into())
    );

    for body in ["{", "{}", r#"{"model":3}"#, r#"{"model":"claude-x"}"#] {
        let response = count(&proxy, world.key.expose(), body.to_owned()).await;
        assert_eq!(response.status(), 400, "{body}");
    }
}

#[tokio::test]
async fn without_bedrock_the_plans_failure_is_the_answer() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| pool.fallback_enabled = Some(false))
        .await;
    let proxy = world.start().await;
    world
        .fakes
        .plan
        .push(counting(Failure::status(529).retry_after(7)));
    let response = count(&proxy, world.key.expose(), body().to_string()).await;
    assert_eq!(response.status(), 529);
    assert_eq!(response.headers()["retry-after"], "7");
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["type"], "overloaded_error");
}

#[tokio::test]
async fn with_nobody_to_ask_it_is_not_supported() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| {
            pool.fallback_enabled = Some(false);
            pool.plan_key_id = None;
        })
        .await;
    let proxy = world.start().await;
    let response = count(&proxy, world.key.expose(), body().to_string()).await;
    assert_eq!(response.status(), 501);
    assert_eq!(response.headers()["x-should-retry"], "false");
    let error: Value = response.json().await.unwrap();
    assert_eq!(error["error"]["type"], "not_supported");
}

#[tokio::test]
async fn keys_and_allowed_models_hold_here_too() {
    let world = World::create().await;
    let proxy = world.start().await;
    let narrow = spillway_core::security::key::AccessKeyToken::generate().unwrap();
    world
        .tenant
        .write_key("narrow", &narrow, |key| {
            key.allowed_models = vec!["claude-haiku-*".to_owned()];
        })
        .await;
    crate::support::until_status(&proxy, narrow.expose(), 400).await;
    let response = count(&proxy, narrow.expose(), body().to_string()).await;
    assert_eq!(response.status(), 400);
    let error: Value = response.json().await.unwrap();
    assert!(error["error"]["message"].as_str().unwrap().contains(MODEL));
    let asked = world.fakes.journal.count(None);
    let response = count(&proxy, "sk-spw-nonsense", body().to_string()).await;
    assert_eq!(response.status(), 401);
    assert_eq!(world.fakes.journal.count(None), asked);
}
