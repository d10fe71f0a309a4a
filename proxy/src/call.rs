//! What travels between the parts of the data plane: an admitted call on its way in, its outcome on the way out.
//!
//! `http` and `directory` build a [`Call`], `metering` builds its [`Ticket`], `routing` turns both into a response.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::HeaderMap;
use secrecy::SecretString;
use spillway_core::domain::models::{BedrockApi, ModelMapping};
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use spillway_core::security::credentials::BedrockSecret;
use tokio::sync::oneshot;
use url::Url;
use uuid::Uuid;

/// The largest answer that is not streamed, in bytes. 128,000 output tokens are about a tenth of it.
pub const MAX_ANSWER: usize = 32 * 1024 * 1024;
/// The largest error of an upstream's.
pub const MAX_ERROR: usize = 1024 * 1024;

/// One authenticated and admitted messages request.
pub struct Call {
    /// Who asks, and by which pool's rules.
    pub admission: Arc<Admission>,
    /// What routing needs to know of the body and headers.
    pub head: RequestHead,
    /// The decoded body, byte for byte as the client sent it.
    pub body: Bytes,
    /// The headers as they were received.
    pub headers: HeaderMap,
    /// The query without its `?`, as it was received.
    pub query: Option<String>,
    /// When the request's head had been read.
    pub received_at: Instant,
}

/// Without headers, query and body: they hold the access key and what the client says.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("request_id", &self.admission.request_id)
            .field("model", &self.head.model)
            .finish_non_exhaustive()
    }
}

/// The parts of a messages request that routing and metering look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// `model` of the body.
    pub model: String,
    /// `stream` of the body; absent is `false`.
    pub stream: bool,
    /// `max_tokens` of the body.
    pub max_tokens: Option<u64>,
    /// `x-claude-code-session-id`.
    pub session_id: Option<String>,
    /// `x-claude-code-agent-id`.
    pub agent_id: Option<String>,
}

/// The result of authentication and admission.
#[derive(Debug)]
pub struct Admission {
    /// The proxy's own id of this request, a `UUIDv7`.
    pub request_id: Uuid,
    /// Admission time in whole microseconds, by the clock corrected to the database's.
    pub created_at: DateTime<Utc>,
    /// The key's holder.
    pub caller: Arc<Caller>,
    /// The pool's configuration at admission; a later change does not reach this call.
    pub pool: Arc<PoolView>,
}

/// A living access key with the credentials it resolves to (key, else user, else pool), as the directory keeps it in memory.
#[derive(Debug)]
pub struct Caller {
    /// The public part of the key that was used.
    pub key_id: String,
    /// The access key's row.
    pub access_key_id: Uuid,
    /// The user's row.
    pub user_id: Uuid,
    /// The namespace of key and user.
    pub namespace: String,
    /// The access key's resource name.
    pub key_name: String,
    /// The user's resource name.
    pub user_name: String,
    /// The Plan credential, unless neither user nor pool has one.
    pub plan: Option<Arc<PlanCredential>>,
    /// The Bedrock credential, unless none resolves or the pool has its fallback off.
    pub bedrock: Option<Arc<BedrockCredential>>,
}

/// What a pool says about serving a call.
#[derive(Debug)]
pub struct PoolView {
    /// The pool's row.
    pub id: Uuid,
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
    /// Model mappings in the pool's order: the first whose name or glob matches wins.
    pub models: Vec<ModelMapping>,
    /// The Bedrock model id for every model without a mapping.
    pub default_model: Option<String>,
    /// Where the pool's own Plan key is sent, if it has one.
    pub plan_url: Option<Url>,
    /// When circuits open and for how long.
    pub circuit: CircuitSettings,
}

impl PoolView {
    /// The Bedrock model id for `model` and its API, by the first mapping that matches and names one, else the pool's default.
    pub fn bedrock_model(&self, model: &str) -> Option<(&str, BedrockApi)> {
        let mapped = self
            .models
            .iter()
            .filter(|mapping| mapping.name.matches(model))
            .find_map(|mapping| Some((mapping.bedrock_model_id.as_deref()?, mapping.bedrock_api)));
        mapped.or_else(|| Some((self.default_model.as_deref()?, BedrockApi::Auto)))
    }
}

/// `circuitBreaker` of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CircuitSettings {
    /// Failures within the window before a circuit may open.
    pub failure_threshold: u32,
    /// Percentage of the window's attempts that must have failed as well.
    pub failure_rate: u8,
    /// How far back failures and attempts count.
    pub failure_window: Duration,
    /// The longest an open circuit waits before it probes.
    pub reset_timeout: Duration,
}

/// An Anthropic API key and the only place it may be sent to.
pub struct PlanCredential {
    /// The key's row, or the pool's for a key from the environment: what circuits are told apart by.
    pub id: Uuid,
    /// Origin and optional path prefix, without `/v1/messages`.
    pub api_url: Url,
    /// The API key.
    pub key: SecretString,
}

impl fmt::Debug for PlanCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanCredential")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// An AWS credential and the only place it may be sent to. The directory keeps the same `Arc` while its row is unchanged,
/// since clients are cached by it.
pub struct BedrockCredential {
    /// The credential's row.
    pub id: Uuid,
    /// The AWS region.
    pub region: String,
    /// Another endpoint than the region's own, from the same resource as the secret.
    pub endpoint_url: Option<Url>,
    /// How requests are signed.
    pub secret: BedrockSecret,
}

impl fmt::Debug for BedrockCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BedrockCredential")
            .field("id", &self.id)
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

/// How a call ended: everything its usage row says that was not known at admission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: UsageStatus,
    /// The status code the client saw; 499 when it left before there was one.
    pub http_status: u16,
    /// Who answered, or failed last; `None` when nobody was asked.
    pub provider: Option<Provider>,
    /// The model id that the upstream was asked for, where it differs from the client's.
    pub upstream_model: Option<String>,
    /// The upstream's own request id.
    pub upstream_request_id: Option<String>,
    /// Whether Bedrock was asked in the Plan's place, or first because the circuit is open. Not so where its own format is spoken.
    pub is_fallback: bool,
    /// Why it was.
    pub fallback_reason: Option<FallbackReason>,
    /// What `provider` reported.
    pub tokens: TokenUsage,
    /// Whether any part of `tokens` is a guess.
    pub estimated: bool,
    /// What an attempt reported that was given up for another.
    pub abandoned: Option<Abandoned>,
    /// From receipt to the first content byte that left for the client.
    pub ttft: Option<Duration>,
    /// From receipt to the first request sent upstream: the proxy's own work.
    pub overhead: Duration,
    /// From receipt to the end.
    pub latency: Duration,
}

/// Usage of an attempt whose answer never reached the client, but which the upstream bills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abandoned {
    /// Who was asked.
    pub provider: Provider,
    /// For which model id, where it differs from the client's.
    pub upstream_model: Option<String>,
    /// What it reported.
    pub tokens: TokenUsage,
}

/// Hands an outcome to the spool.
type CloseRecord = Box<dyn FnOnce(Outcome) -> Closing + Send + Sync>;

/// The open record of one call. Closed once: by [`Ticket::finish`], or on drop as `client_aborted` without usage.
pub struct Ticket {
    close: Option<CloseRecord>,
    received_at: Instant,
}

impl Ticket {
    /// A ticket whose close record is handed over by `close`, which must neither block nor need a later poll to take effect.
    pub fn new(
        received_at: Instant,
        close: impl FnOnce(Outcome) -> Closing + Send + Sync + 'static,
    ) -> Self {
        Self {
            close: Some(Box::new(close)),
            received_at,
        }
    }

    /// Hands the outcome over at once; the returned future resolves when it is durable and may be dropped.
    pub fn finish(mut self, outcome: Outcome) -> Closing {
        self.close
            .take()
            .map_or_else(Closing::done, |close| close(outcome))
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(close) = self.close.take() {
            let elapsed = self.received_at.elapsed();
            drop(close(Outcome {
                status: UsageStatus::ClientAborted,
                http_status: CLIENT_CLOSED_REQUEST,
                provider: None,
                upstream_model: None,
                upstream_request_id: None,
                is_fallback: false,
                fallback_reason: None,
                tokens: TokenUsage::default(),
                estimated: false,
                abandoned: None,
                ttft: None,
                overhead: elapsed,
                latency: elapsed,
            }));
        }
    }
}

/// What usage rows carry as status code of a call whose client left before it had one (nginx's convention).
pub const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Resolves when a close record is durable.
#[derive(Debug)]
pub struct Closing(Option<oneshot::Receiver<()>>);

impl Closing {
    /// Nothing to wait for.
    pub fn done() -> Self {
        Self(None)
    }

    /// Resolves when `acknowledged` is answered, or its sender is gone.
    pub fn after(acknowledged: oneshot::Receiver<()>) -> Self {
        Self(Some(acknowledged))
    }
}

impl Future for Closing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            None => Poll::Ready(()),
            Some(acknowledged) => Pin::new(acknowledged).poll(cx).map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use spillway_core::domain::models::ModelPattern;

    use super::*;

    fn pool(models: &[(&str, Option<&str>, BedrockApi)], default_model: Option<&str>) -> PoolView {
        PoolView {
            id: Uuid::nil(),
            namespace: "n".into(),
            name: "p".into(),
            models: models
                .iter()
                .map(|(name, id, api)| ModelMapping {
                    name: ModelPattern::new(name).unwrap(),
                    bedrock_model_id: id.map(str::to_owned),
                    bedrock_api: *api,
                    price: None,
                })
                .collect(),
            default_model: default_model.map(str::to_owned),
            plan_url: None,
            circuit: CircuitSettings {
                failure_threshold: 3,
                failure_rate: 50,
                failure_window: Duration::from_mins(1),
                reset_timeout: Duration::from_mins(1),
            },
        }
    }

    #[test]
    fn a_call_shows_neither_key_nor_content() {
        let mut call = crate::metering::record::tests::call();
        call.headers
            .insert("x-api-key", "sk-spw-a".parse().unwrap());
        call.query = Some("key=sk-spw-b".to_owned());
        call.body = "what the client says".into();
        let shown = format!("{call:?}");
        assert!(
            !shown.contains("sk-spw") && !shown.contains("says"),
            "{shown}"
        );
        assert!(shown.contains(&call.admission.request_id.to_string()));
    }

    #[test]
    fn the_first_mapping_that_names_an_id_wins_and_the_default_takes_the_rest() {
        let pool = pool(
            &[
                ("claude-haiku-4-5", Some("haiku"), BedrockApi::Auto),
                ("claude-haiku-*", Some("haikus"), BedrockApi::InvokeModel),
                ("claude-priced", None, BedrockApi::Converse),
                ("claude-priced-*", None, BedrockApi::Auto),
                ("claude-priced-too*", Some("priced"), BedrockApi::Converse),
            ],
            Some("default"),
        );
        for (model, expected) in [
            ("claude-haiku-4-5", ("haiku", BedrockApi::Auto)),
            ("claude-haiku-4-6", ("haikus", BedrockApi::InvokeModel)),
            ("claude-priced", ("default", BedrockApi::Auto)),
            ("claude-priced-too", ("priced", BedrockApi::Converse)),
            ("claude-opus-5", ("default", BedrockApi::Auto)),
        ] {
            assert_eq!(pool.bedrock_model(model), Some(expected), "{model}");
        }
        assert_eq!(self::pool(&[], None).bedrock_model("claude-opus-5"), None);
    }
}
