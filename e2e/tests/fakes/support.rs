//! What the tests of the Plan share.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use spillway_e2e::upstream::{FakeUpstreams, PLAN_API_KEY};

/// How long anything may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// A client that talks to this machine only.
pub(crate) fn client() -> Client {
    // Already installed where another test of this process came first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Client::builder().no_proxy().build().unwrap()
}

/// A request for a message.
pub(crate) fn body(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-5",
        "max_tokens": 100,
        "stream": stream,
        "messages": [{"role": "user", "content": "good morning"}],
        "a_field_nobody_knows": 1,
    })
}

/// A POST of it with the Plan's key.
pub(crate) fn post(fakes: &FakeUpstreams, body: &Value) -> RequestBuilder {
    client()
        .post(format!("{}/v1/messages?beta=true", fakes.plan_url))
        .header("x-api-key", PLAN_API_KEY)
        .header("anthropic-version", "2023-06-01")
        .header("content-type", "application/json")
        .body(body.to_string())
}

pub(crate) async fn send(fakes: &FakeUpstreams, stream: bool) -> Response {
    post(fakes, &body(stream)).send().await.unwrap()
}

/// Names and data of all events.
pub(crate) fn events(sse: &str) -> Vec<(String, Value)> {
    sse.split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event
                .strip_prefix("event: ")
                .unwrap()
                .split_once("\ndata: ")
                .unwrap();
            (name.to_owned(), serde_json::from_str(data).unwrap())
        })
        .collect()
}

/// Names of all events.
pub(crate) fn names(sse: &str) -> Vec<String> {
    events(sse).into_iter().map(|(name, _)| name).collect()
}

pub(crate) async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}
