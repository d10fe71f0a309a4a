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
use spillway_core::domain::models::ModelMapping;
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{FallbackReason, Provider, UsageStatus};
use spillway_core::security::credentials::BedrockSecret;
use tokio::sync::oneshot;
use url::Url;
use uuid::Uuid;

/// One authenticated and admitted messages request.
#[derive(Debug)]
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
    /// The Bedrock model id for `model`, by the first mapping that matches and names one, else the pool's default.
    pub fn bedrock_model_id(&self, model: &str) -> Option<&str> {
        self.models
            .iter()
            .find(|mapping| mapping.name.matches(model))
            .and_then(|mapping| mapping.bedrock_model_id.as_deref())
            .or(self.default_model.as_deref())
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
    /// Whether Bedrock was asked.
    pub is_fallback: bool,
    /// Why Bedrock was asked.
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
