//! Requests at a steady rate, each with a name of its own.

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

/// How a request ended, as its client saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ending {
    /// An answer to its end.
    Whole,
    /// A stream that says why it has no other end.
    ErrorEvent,
    /// Its client left a stream after the first bytes.
    Left,
    /// Refused because both upstreams throttle.
    Throttled(u16),
    /// Refused otherwise.
    Refused(u16),
    /// A stream that ended without an end.
    Incomplete,
    /// An answer that broke off.
    CutOff(String),
    /// Nothing.
    Unanswered(String),
}

impl Ending {
    /// Whether one of the faults explains it.
    pub(super) fn is_explained(&self) -> bool {
        matches!(
            self,
            Self::Whole | Self::ErrorEvent | Self::Left | Self::Throttled(_)
        )
    }

    /// Whether the proxy must have admitted the request, and so have written a row.
    pub(super) fn is_admitted(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::Unanswered(_))
    }
}

/// A request by its name.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) name: String,
    pub(super) ending: Ending,
}

/// Sends requests.
#[derive(Clone)]
pub(super) struct Sender {
    client: Client<HttpConnector, Full<Bytes>>,
    url: Arc<str>,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Sender {
    pub(super) fn new(url: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            url: url.into(),
            sent: Arc::default(),
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

    /// All requests so far that have ended.
    pub(super) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().clone()
    }

    async fn send(&self, number: u64) {
        let name = format!("soak-{number}");
        let ending = timeout(LIMIT, self.exchange(&name, number))
            .await
            .unwrap_or_else(|_| Ending::Unanswered("no end in time".to_owned()));
        self.sent.lock().push(Sent { name, ending });
    }

    /// Three of four are streams; of these one in twenty is left by its client after the first bytes.
    async fn exchange(&self, name: &str, number: u64) -> Ending {
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
            return Ending::Unanswered("no request".to_owned());
        };
        let response = match self.client.request(request).await {
            Ok(response) => response,
            Err(error) => return Ending::Unanswered(error.to_string()),
        };
        let status = response.status().as_u16();
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.extend_from_slice(frame.data_ref().map_or(&[], |data| &data[..])),
                Err(error) => return Ending::CutOff(error.to_string()),
            }
            if status == 200 && is_stream && number % 20 == 1 {
                return Ending::Left;
            }
        }
        let text = String::from_utf8_lossy(&text);
        match (status, is_stream) {
            (200, true) if text.contains("event: error") => Ending::ErrorEvent,
            (200, true) if !text.contains("event: message_stop") => Ending::Incomplete,
            (200, _) => Ending::Whole,
            (429 | 529, _) => Ending::Throttled(status),
            _ => Ending::Refused(status),
        }
    }
}
