//! A client that asks for messages and says how the answer ended.

use serde_json::{Value, json};

use super::tenant::{Key, MODEL};
use super::world::World;

/// An answer, as far as it came.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// The upstream's own id, or the proxy's where it refused.
    pub request_id: String,
    pub retry_after: Option<String>,
    pub should_retry: Option<String>,
    pub body: String,
    /// Whether the body broke off.
    pub is_cut: bool,
}

impl Answer {
    /// The text of the message, streamed or not.
    pub fn text(&self) -> String {
        if let Ok(message) = serde_json::from_str::<Value>(&self.body) {
            return message["content"][0]["text"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
        }
        let events = self
            .body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "));
        let events = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
        events
            .filter_map(|event| event["delta"]["text"].as_str().map(str::to_owned))
            .collect()
    }

    /// Whether the whole message arrived.
    pub fn is_complete(&self) -> bool {
        let is_stream_over = self.body.contains("event: message_stop");
        self.status == 200
            && !self.is_cut
            && (is_stream_over || serde_json::from_str::<Value>(&self.body).is_ok())
    }

    /// `error.type` of a refusal.
    pub fn error_type(&self) -> String {
        self.error("type")
    }

    /// `error.message` of a refusal.
    pub fn error_message(&self) -> String {
        self.error("message")
    }

    fn error(&self, field: &str) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_default();
        body["error"][field].as_str().unwrap_or_default().to_owned()
    }
}

/// The body of a messages request.
pub fn body(text: &str, stream: bool) -> Value {
    json!({ "model": MODEL, "max_tokens": 64, "stream": stream, "messages": [{ "role": "user", "content": text }] })
}

impl World {
    /// Sends a message with `x-api-key`. An error: no answer at all.
    pub async fn try_ask(
        &self,
        base: &str,
        token: &str,
        text: &str,
        stream: bool,
    ) -> Result<Answer, reqwest::Error> {
        let request = self
            .http
            .post(format!("{base}/v1/messages"))
            .header("x-api-key", token);
        self.send(
            request
                .header("content-type", "application/json")
                .header("anthropic-version", "2023-06-01")
                .body(body(text, stream).to_string()),
        )
        .await
    }

    /// Sends a request and reads the answer as far as it comes.
    pub async fn send(&self, request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
        let mut response = request.send().await?;
        let header = |name: &str| {
            response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned)
        };
        let mut answer = Answer {
            status: response.status().as_u16(),
            request_id: header("request-id").unwrap_or_default(),
            retry_after: header("retry-after"),
            should_retry: header("x-should-retry"),
            body: String::new(),
            is_cut: false,
        };
        loop {
            match response.chunk().await {
                Ok(Some(bytes)) => answer.body.push_str(&String::from_utf8_lossy(&bytes)),
                Ok(None) => return Ok(answer),
                Err(_) => {
                    answer.is_cut = true;
                    return Ok(answer);
                }
            }
        }
    }

    /// Sends a message through the Service; panics without an answer.
    pub async fn ask(&self, key: &Key, text: &str, stream: bool) -> Answer {
        self.try_ask(&key.base, &key.token, text, stream)
            .await
            .expect("the pool answers")
    }

    /// As [`ask`](Self::ask), and the whole message has to arrive.
    pub async fn served(&self, key: &Key, text: &str, stream: bool) -> Answer {
        let answer = self.ask(key, text, stream).await;
        assert!(answer.is_complete(), "{answer:?}");
        assert_eq!(answer.text(), format!("Echo: {text}"));
        answer
    }
}
