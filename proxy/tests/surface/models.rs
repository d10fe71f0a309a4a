//! `/v1/models`.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use spillway_core::domain::models::{BedrockApi, ModelMapping, ModelPattern};
use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::{Failure, Operation, PLAN_API_KEY, Reply, Rule, When, digest};

use crate::support::{Proxy, World, client};

fn mapping(name: &str) -> ModelMapping {
    ModelMapping {
        name: ModelPattern::new(name).unwrap(),
        bedrock_model_id: None,
        bedrock_api: BedrockApi::Auto,
        price: None,
    }
}

fn listing(reply: impl Into<Reply>) -> Rule {
    Rule::forever(reply).when(When {
        operation: Some(Operation::Models),
        ..When::default()
    })
}

async fn get(proxy: &Proxy, key: &AccessKeyToken, path: &str) -> (u16, Value) {
    let response = client()
        .get(format!("{}{path}", proxy.url()))
        .header("x-api-key", key.expose())
        .send()
        .await
        .unwrap();
    assert!(response.headers().contains_key("request-id"), "{path}");
    (response.status().as_u16(), response.json().await.unwrap())
}

fn ids(page: &Value) -> Vec<&str> {
    let models = page["data"].as_array().unwrap();
    models
        .iter()
        .map(|model| model["id"].as_str().unwrap())
        .collect()
}

/// What the fake Plan lists.
const PLANS: [&str; 3] = [
    "claude-opus-4-5-20251101",
    "claude-haiku-4-5-20251001",
    "claude-sonnet-4-5-20250929",
];

#[tokio::test]
async fn with_nothing_to_add_or_hide_the_plans_answer_passes() {
    let world = World::create().await;
    let proxy = world.start().await;
    let odd = r#"{"data": [ ],  "has_more":false,"unheard_of":1}"#;
    world.fakes.plan.push(listing(Failure {
        body: Some(odd.to_owned()),
        ..Failure::status(200)
    }));
    for path in [
        "/v1/models?limit=1000&beta=true",
        "/v1/models/claude%2Dx?beta=true",
    ] {
        let response = client()
            .get(format!("{}{path}", proxy.url()))
            .bearer_auth(world.key.expose())
            .send()
            .await
            .unwrap();
        assert_eq!(response.text().await.unwrap(), odd);
        let seen = world.fakes.plan.requests().pop().unwrap();
        let query = seen.query.as_deref().unwrap_or_default();
        assert_eq!(format!("{}?{query}", seen.path), path);
        assert_eq!(
            seen.header("x-api-key"),
            Some(digest(PLAN_API_KEY.as_bytes()).as_str())
        );
        assert_eq!(seen.header("authorization"), None);
    }
    world.fakes.plan.clear_rules();
    world.fakes.plan.push(listing(Failure::status(529)));
    let (status, error) = get(&proxy, &world.key, "/v1/models").await;
    assert_eq!(
        (status, &error["error"]["type"]),
        (529, &"overloaded_error".into())
    );
    assert!(world.rows_after_a_message(&proxy, 0).await.is_empty());
}

#[tokio::test]
async fn the_pools_models_join_the_plans_and_pages_are_cut_from_both() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| {
            pool.models = vec![mapping("claude-*"), mapping("nova-lite"), mapping(PLANS[0])];
        })
        .await;
    let proxy = world.start().await;
    let (status, page) = get(&proxy, &world.key, "/v1/models?limit=1000").await;
    assert_eq!(status, 200);
    let all = [&PLANS[..], &["nova-lite"]].concat();
    assert_eq!(ids(&page), all);
    assert_eq!(
        page["data"][0],
        json!({"type": "model", "id": PLANS[0], "display_name": "Claude Opus 4.5", "created_at": "2025-11-24T00:00:00Z"})
    );
    assert_eq!(page["data"][3]["display_name"], "nova-lite");
    let path = format!("/v1/models?limit=2&after_id={}", PLANS[0]);
    let (_, page) = get(&proxy, &world.key, &path).await;
    assert_eq!(ids(&page), all[1..3]);
    assert_eq!(
        (&page["has_more"], &page["first_id"], &page["last_id"]),
        (&true.into(), &all[1].into(), &all[2].into())
    );
    let (status, error) = get(&proxy, &world.key, "/v1/models?limit=0").await;
    assert_eq!(
        (status, &error["error"]["type"]),
        (400, &"invalid_request_error".into())
    );
}

#[tokio::test]
async fn the_pools_models_alone_are_listed_while_the_plan_is_away() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| pool.models = vec![mapping("claude-a"), mapping("claude-b")])
        .await;
    let proxy = world.start().await;
    for reply in [Reply::Hang, Reply::Reset, Reply::from(Failure::status(503))] {
        world.fakes.plan.clear_rules();
        world.fakes.plan.push(listing(reply));
        let began = Instant::now();
        let (status, page) = get(&proxy, &world.key, "/v1/models").await;
        assert_eq!((status, ids(&page)), (200, vec!["claude-a", "claude-b"]));
        assert!(
            began.elapsed() < Duration::from_secs(3),
            "Claude Code waits for three seconds"
        );
        let (status, model) = get(&proxy, &world.key, "/v1/models/claude-b").await;
        assert_eq!((status, &model["id"]), (200, &"claude-b".into()));
    }
}

#[tokio::test]
async fn keys_see_the_models_that_they_may_use() {
    let world = World::create().await;
    let narrow = AccessKeyToken::generate().unwrap();
    world
        .tenant
        .write_key("narrow", &narrow, |key| {
            key.allowed_models = vec!["claude-haiku-*".to_owned()];
        })
        .await;
    let proxy = world.start().await;
    let (_, page) = get(&proxy, &narrow, "/v1/models").await;
    assert_eq!(ids(&page), [PLANS[1]]);
    let path = |id: &str| format!("/v1/models/{id}");
    let (status, model) = get(&proxy, &narrow, &path(PLANS[1])).await;
    assert_eq!((status, &model["id"]), (200, &PLANS[1].into()));
    let asked = world.fakes.plan.request_count();
    let (status, error) = get(&proxy, &narrow, &path(PLANS[0])).await;
    assert_eq!(
        (status, &error["error"]["type"]),
        (404, &"not_found_error".into())
    );
    assert_eq!(world.fakes.plan.request_count(), asked);
    // What lists nothing of its own has nothing to say while the Plan is away.
    world.fakes.plan.push(listing(Failure::status(529)));
    assert_eq!(get(&proxy, &narrow, "/v1/models").await.0, 529);
}

#[tokio::test]
async fn one_model_is_the_plans_the_pools_or_unknown() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| pool.models = vec![mapping("nova-lite"), mapping(PLANS[0])])
        .await;
    let proxy = world.start().await;
    for (id, status, name) in [
        (PLANS[0], 200, "Claude Opus 4.5"),
        (PLANS[2], 200, "Claude Sonnet 4.5"),
        ("nova-lite", 200, "nova-lite"),
        ("claude-none", 404, ""),
    ] {
        let (got, model) = get(&proxy, &world.key, &format!("/v1/models/{id}")).await;
        assert_eq!(got, status, "{id}");
        if status == 200 {
            assert_eq!(
                (&model["id"], &model["display_name"]),
                (&id.into(), &name.into())
            );
        } else {
            assert_eq!(model["error"]["type"], "not_found_error");
        }
    }
    let asked = world.fakes.plan.request_count();
    for id in ["%2e%2e", "..%2Fmessages", "a%2Fb", "%00"] {
        let (status, _) = get(&proxy, &world.key, &format!("/v1/models/{id}")).await;
        assert_eq!(status, 404, "{id}");
    }
    assert_eq!(world.fakes.plan.request_count(), asked);
}
