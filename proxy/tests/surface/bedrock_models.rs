//! Which model a call in Bedrock's format is for, and the inference profiles that Claude Code looks for.

use serde_json::Value;
use spillway_core::domain::models::{BedrockApi, ModelMapping, ModelPattern};
use spillway_core::security::key::AccessKeyToken;

use crate::bedrock_format::{ENCODED, MODEL, call};
use crate::support::{Proxy, World, client};

const OPUS: &str = "eu.anthropic.claude-opus-4-5-20251101-v1:0";

fn mapping(name: &str, id: &str) -> ModelMapping {
    ModelMapping {
        name: ModelPattern::new(name).unwrap(),
        bedrock_model_id: Some(id.to_owned()),
        bedrock_api: BedrockApi::Auto,
        price: None,
    }
}

async fn get(proxy: &Proxy, key: &AccessKeyToken, path: &str) -> (u16, Value) {
    let url = format!("{}/ak/{}/bedrock{path}", proxy.url(), key.expose());
    let response = client().get(url).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn names_of_the_pool_are_mapped_and_ids_of_bedrock_are_not() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| {
            pool.models = vec![mapping("claude-*", OPUS), mapping("*", "anthropic.never")];
        })
        .await;
    let proxy = world.start().await;
    for (asked, sent) in [("claude-opus-4-5", OPUS), (ENCODED, MODEL)] {
        let response = call(&proxy, world.key.expose(), asked, "invoke").send();
        assert_eq!(response.await.unwrap().status(), 200, "{asked}");
        let seen = world.fakes.bedrock.requests().pop().unwrap();
        assert_eq!(seen.model.as_deref(), Some(sent));
    }
    let rows = world.rows(2).await;
    assert_eq!(
        (rows[0].model.as_str(), rows[0].upstream_model.as_deref()),
        ("claude-opus-4-5", Some(OPUS))
    );
}

#[tokio::test]
async fn a_key_may_use_a_model_by_any_of_its_names() {
    let world = World::create().await;
    let mut keys = Vec::new();
    for allowed in [
        MODEL,
        "us.anthropic.*",
        "claude-sonnet-4-5",
        "claude-sonnet-*",
        "claude-opus-*",
    ] {
        let key = AccessKeyToken::generate().unwrap();
        world
            .tenant
            .write_key(&format!("key-{}", keys.len()), &key, |row| {
                row.allowed_models = vec![allowed.to_owned()];
            })
            .await;
        keys.push((allowed, key));
    }
    let proxy = world.start().await;
    for (allowed, key) in &keys {
        let response = call(&proxy, key.expose(), ENCODED, "invoke")
            .send()
            .await
            .unwrap();
        let expected = if allowed.contains("opus") { 400 } else { 200 };
        assert_eq!(response.status(), expected, "{allowed}");
    }
}

#[tokio::test]
async fn the_pools_inference_profiles_are_listed_and_described() {
    let mut world = World::create().await;
    world
        .tenant
        .change_pool(|pool| pool.models = vec![mapping("claude-opus-*", OPUS)])
        .await;
    let proxy = world.start().await;
    let (status, list) = get(
        &proxy,
        &world.key,
        "/inference-profiles?type=SYSTEM_DEFINED",
    )
    .await;
    assert_eq!(status, 200);
    let ids: Vec<_> = list["inferenceProfileSummaries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|profile| profile["inferenceProfileId"].as_str().unwrap())
        .collect();
    assert_eq!(ids, [OPUS, MODEL]);
    let (_, none) = get(&proxy, &world.key, "/inference-profiles?type=APPLICATION").await;
    assert_eq!(none["inferenceProfileSummaries"], Value::Array(Vec::new()));

    let (status, profile) = get(
        &proxy,
        &world.key,
        &format!("/inference-profiles/{ENCODED}"),
    )
    .await;
    assert_eq!(status, 200);
    assert_eq!(
        profile["models"][0]["modelArn"],
        "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0"
    );
    let (status, error) = get(&proxy, &world.key, "/inference-profiles/abc123").await;
    assert_eq!(status, 404);
    assert!(error["message"].is_string());
    assert_eq!(world.fakes.journal.count(None), 0);
}
