//! A tenant's own upstreams, steered by their control API.

use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spillway_e2e::upstream::{Exchange, Kind, Mode, Operation, Rule};

/// How long the fakes wait for what a test waits for.
const LIMIT_MS: u32 = 30_000;

/// The fake upstreams of one tenant.
#[derive(Clone)]
pub struct Fakes {
    http: reqwest::Client,
    base: String,
}

impl Fakes {
    /// Those at `host`, an address.
    pub fn at(http: reqwest::Client, host: &str) -> Self {
        // Bedrock's port: it answers control calls while the Plan refuses connections.
        Self {
            http,
            base: format!("http://{host}:8082/__control"),
        }
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> T {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let response = request.send().await.expect("the fake upstreams answer");
        let status = response.status();
        let text = response.text().await.expect("their answer arrives");
        assert!(status.is_success(), "{path}: {status}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Makes the Plan work or not.
    pub async fn plan(&self, mode: Mode) {
        let _: Value = self
            .call(Method::PUT, "/plan/mode", Some(json!(mode)))
            .await;
    }

    /// Makes Bedrock work or not.
    pub async fn bedrock(&self, mode: Mode) {
        let _: Value = self
            .call(Method::PUT, "/bedrock/mode", Some(json!(mode)))
            .await;
    }

    /// Has the Plan answer by a rule.
    pub async fn push(&self, rule: Rule) {
        let _: Value = self
            .call(Method::POST, "/plan/rules", Some(json!(rule)))
            .await;
    }

    /// Has the Plan answer by no rule any more.
    pub async fn clear_rules(&self) {
        let _: Value = self.call(Method::DELETE, "/plan/rules", None).await;
    }

    /// What one upstream was asked to generate, and what it answered.
    pub async fn generated(&self, upstream: Kind) -> Vec<Exchange> {
        let name = match upstream {
            Kind::Plan => "plan",
            Kind::Bedrock => "bedrock",
        };
        let exchanges: Vec<Exchange> = self
            .call(Method::GET, &format!("/requests?upstream={name}"), None)
            .await;
        let generates = |operation: Operation| operation.generates();
        exchanges
            .into_iter()
            .filter(|exchange| generates(exchange.operation))
            .collect()
    }

    /// Waits until so many answers wait at a gate.
    pub async fn wait_held(&self, gate: &str, held: usize) {
        let _: Value = self
            .call(
                Method::GET,
                &format!("/gates/{gate}?held={held}&timeout_ms={LIMIT_MS}"),
                None,
            )
            .await;
    }

    /// Lets the answers at a gate go on.
    pub async fn release(&self, gate: &str) {
        let _: Value = self
            .call(Method::POST, &format!("/gates/{gate}/release"), None)
            .await;
    }
}
