//! Requests at a steady rate, each with a name of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;

/// No answer of a fake takes nearly so long.
const LIMIT: Duration = Duration::from_mins(1);

/// How requests ended, by what the client saw.
pub(super) type Endings = BTreeMap<String, u64>;

/// Sends requests.
#[derive(Clone)]
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Arc<str>,
    sent: Arc<Mutex<Vec<String>>>,
    endings: Arc<Mutex<Endings>>,
}

impl Sender {
    pub(super) fn new(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: url.into(),
            sent: Arc::default(),
            endings: Arc::default(),
        }
    }

    /// Sends `rate` requests a second for `duration` and waits for their answers.
    pub(super) async fn run(&self, rate: u32, duration: Duration) {
        let mut ticks = interval(Duration::from_secs(1) / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let requests = TaskTracker::new();
        let count = u64::from(rate) * duration.as_secs();
        for number in 0..count {
            ticks.tick().await;
            let sender = self.clone();
            requests.spawn(async move { sender.send(number).await });
        }
        requests.close();
        requests.wait().await;
    }

    /// The names of all requests that the proxy answered with a head, or should have.
    pub(super) fn sent(&self) -> Vec<String> {
        self.sent.lock().clone()
    }

    pub(super) fn endings(&self) -> Endings {
        self.endings.lock().clone()
    }

    async fn send(&self, number: u64) {
        let name = format!("soak-{number}");
        self.sent.lock().push(name.clone());
        let ending = timeout(LIMIT, self.exchange(&name, number))
            .await
            .unwrap_or_else(|_| "no answer".to_owned());
        *self.endings.lock().entry(ending).or_default() += 1;
    }

    /// Three of four are streams; of these one in twenty is left by its client after the first bytes.
    async fn exchange(&self, name: &str, number: u64) -> String {
        let is_stream = !number.is_multiple_of(4);
        let body = json!({
            "model": "claude-sonnet-4-5-20250929", "max_tokens": 256, "stream": is_stream,
            "messages": [{"role": "user", "content": format!("{name} {}", "lorem ipsum ".repeat(usize::try_from(number % 400).unwrap_or_default()))}],
        });
        let request = Request::builder()
            .method(Method::POST)
            .uri(&*self.url)
            .header("content-type", "application/json")
            .header("anthropic-version", "2023-06-01")
            .header("x-claude-code-session-id", name)
            .body(Full::new(Bytes::from(body.to_string())));
        let Ok(request) = request else {
            return "no request".to_owned();
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return format!("no answer: {error}"),
        };
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                Err(error) => return format!("{status}, cut off: {error}"),
            }
            if is_stream && number % 20 == 1 {
                return format!("{status}, left by its client");
            }
        }
        let text = String::from_utf8_lossy(&text);
        let ending = match (status, is_stream) {
            (200, true) if text.contains("event: error") => "ended with an error event",
            (200, true) if text.contains("event: message_stop") => "whole",
            (200, true) => "incomplete",
            (200, false) => "whole",
            _ => "refused",
        };
        format!("{status}, {ending}")
    }
}
