//! A request as it arrived, and what the fakes need to know of its body.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::{agent::CacheLifetime, behaviour::Operation, conversation, usage};

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

    /// How long its cache markers ask for, where it has any: the longest counts.
    pub(crate) fn cache_lifetime(&self) -> Option<CacheLifetime> {
        // Quotes inside of a prompt are escaped, so these are members of the body.
        let has = |text: &str| memchr::memmem::find(&self.body, text.as_bytes()).is_some();
        let marked = has("\"cache_control\":") || has("\"cachePoint\":");
        let hour = has("\"ttl\":\"1h\"") || has("\"ttl\": \"1h\"");
        marked.then_some(if hour {
            CacheLifetime::Hour
        } else {
            CacheLifetime::FiveMinutes
        })
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
    /// How many turns brought results of tools back.
    pub(crate) rounds: usize,
    /// Names of the tools that it offers.
    pub(crate) tools: Vec<String>,
    /// Whether it asks for thinking.
    pub(crate) thinks: bool,
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
    thinking: Option<Value>,
    #[serde(rename = "additionalModelRequestFields")]
    more: Option<Value>,
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
        let messages: Vec<Value> = envelope
            .messages
            .and_then(|messages| serde_json::from_str(messages.get()).ok())
            .unwrap_or_default();
        let thinking = envelope
            .thinking
            .as_ref()
            .or_else(|| envelope.more.as_ref()?.get("thinking"));
        Self {
            rounds: conversation::rounds(&messages),
            tools: tool_names(envelope.tools.or(envelope.tool_config)),
            thinks: thinking.is_some_and(|thinking| thinking["type"] != "disabled"),
            model: envelope
                .model
                .as_ref()
                .and_then(Value::as_str)
                .map(str::to_owned),
            stream: envelope.stream == Some(Value::Bool(true)),
            input_tokens: usage::input_tokens(bytes),
            last_user_text: last_user_text(&messages),
        }
    }
}

/// The last text of the last user turn; Claude Code puts its reminders before it.
fn last_user_text(messages: &[Value]) -> String {
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

/// Names of `tools`, or of Converse's `toolConfig`.
fn tool_names(tools: Option<&RawValue>) -> Vec<String> {
    let tools: Value = tools
        .and_then(|tools| serde_json::from_str(tools.get()).ok())
        .unwrap_or_default();
    let names = |list: &Value, name: fn(&Value) -> &Value| -> Vec<String> {
        let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
        list.iter()
            .filter_map(|tool| Some(name(tool).as_str()?.to_owned()))
            .collect()
    };
    if tools.is_array() {
        names(&tools, |tool| &tool["name"])
    } else {
        names(&tools["tools"], |tool| &tool["toolSpec"]["name"])
    }
}
