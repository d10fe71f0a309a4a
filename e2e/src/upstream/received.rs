//! A request as it arrived, and what the fakes need to know of its body.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{behaviour::Operation, usage};

/// A request with its body read.
pub(crate) struct Received {
    pub(crate) method: Method,
    /// As sent, percent-encoding included.
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) operation: Operation,
    pub(crate) model: Option<String>,
    pub(crate) prompt: Prompt,
}

impl Received {
    pub(crate) fn new(
        mut parts: Parts,
        body: &[u8],
        route: impl FnOnce(&Method, &str) -> Route,
    ) -> Self {
        // HTTP/2 has no host header; signatures are over one all the same.
        if let Some(authority) = parts.uri.authority()
            && !parts.headers.contains_key(header::HOST)
            && let Ok(host) = authority.as_str().parse()
        {
            parts.headers.insert(header::HOST, host);
        }
        // Values and body are slices of the connection's buffers: a journal that kept them would keep those.
        for value in parts.headers.values_mut() {
            if let Ok(copy) = HeaderValue::from_bytes(value.as_bytes()) {
                *value = copy;
            }
        }
        let body = Bytes::copy_from_slice(body);
        let route = route(&parts.method, parts.uri.path());
        let prompt = if route.operation.generates() || route.operation == Operation::CountTokens {
            Prompt::parse(&body)
        } else {
            Prompt::default()
        };
        Self {
            path: parts.uri.path().to_owned(),
            query: parts.uri.query().map(str::to_owned),
            method: parts.method,
            headers: parts.headers,
            body,
            operation: route.operation,
            model: route.model.or_else(|| prompt.model.clone()),
            prompt,
        }
    }

    /// A header's value where it is text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether a stream was asked for.
    pub(crate) fn wants_stream(&self) -> bool {
        match self.operation {
            Operation::InvokeStream | Operation::ConverseStream => true,
            Operation::Messages => self.prompt.stream,
            _ => false,
        }
    }

    /// Whether the client takes gzip.
    pub(crate) fn accepts_gzip(&self) -> bool {
        self.header("accept-encoding")
            .is_some_and(|value| value.contains("gzip"))
    }
}

/// What method and path say.
pub(crate) struct Route {
    pub(crate) operation: Operation,
    pub(crate) model: Option<String>,
}

impl Route {
    pub(crate) fn new(operation: Operation) -> Self {
        Self {
            operation,
            model: None,
        }
    }
}

/// What the body says, in any of the three request formats.
#[derive(Default)]
pub(crate) struct Prompt {
    pub(crate) model: Option<String>,
    pub(crate) stream: bool,
    pub(crate) input_tokens: u64,
    pub(crate) last_user_text: String,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    model: Option<Value>,
    stream: Option<Value>,
    #[serde(borrow)]
    messages: Option<&'a RawValue>,
    #[serde(borrow)]
    system: Option<&'a RawValue>,
    #[serde(borrow)]
    tools: Option<&'a RawValue>,
    #[serde(borrow, rename = "toolConfig")]
    tool_config: Option<&'a RawValue>,
}

impl Prompt {
    pub(crate) fn parse(body: &[u8]) -> Self {
        let Ok(envelope) = serde_json::from_slice::<Envelope>(body) else {
            return Self::default();
        };
        let bytes = [
            envelope.messages,
            envelope.system,
            envelope.tools,
            envelope.tool_config,
        ]
        .into_iter()
        .flatten()
        .map(|part| part.get().len())
        .sum();
        Self {
            model: envelope
                .model
                .as_ref()
                .and_then(Value::as_str)
                .map(str::to_owned),
            stream: envelope.stream == Some(Value::Bool(true)),
            input_tokens: usage::input_tokens(bytes),
            last_user_text: envelope.messages.map(last_user_text).unwrap_or_default(),
        }
    }
}

/// The last text of the last user turn; Claude Code puts its reminders before it.
fn last_user_text(messages: &RawValue) -> String {
    let Ok(Value::Array(messages)) = serde_json::from_str(messages.get()) else {
        return String::new();
    };
    let content = messages
        .iter()
        .rev()
        .find(|message| message["role"] == "user")
        .map(|message| &message["content"]);
    match content {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => blocks
            .iter()
            .rev()
            .find_map(|block| block["text"].as_str())
            .unwrap_or_default()
            .to_owned(),
        _ => String::new(),
    }
}
