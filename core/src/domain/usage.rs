//! What one messages request used: the content of a `token_usages` row.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::money::MicroUsd;
use super::pricing::PriceSource;
use super::tokens::TokenUsage;

/// Defines a closed set of names as they stand in Postgres, JSON and metric labels.
macro_rules! names {
    ($(#[$doc:meta])* $type:ident { $($(#[$variant_doc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $type {
            $($(#[$variant_doc])* #[serde(rename = $name)] $variant,)+
        }

        impl $type {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The name in Postgres, JSON and metric labels.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

names! {
    /// Who served a request.
    Provider {
        /// The Anthropic API.
        Plan = "plan",
        /// AWS Bedrock.
        Bedrock = "bedrock",
    }
}

names! {
    /// How a request ended.
    UsageStatus {
        /// Answered whole.
        Ok = "ok",
        /// Refused by the upstream as the client's own fault.
        ClientError = "client_error",
        /// No upstream could answer, or one failed after content was shown.
        UpstreamError = "upstream_error",
        /// The client left before the end.
        ClientAborted = "client_aborted",
        /// The proxy was killed meanwhile.
        Interrupted = "interrupted",
        /// Refused by Spillway's own limits after admission began.
        Blocked = "blocked",
    }
}

names! {
    /// Why a request went to Bedrock.
    FallbackReason {
        /// The circuit of the Plan credential and model was open.
        CircuitOpen = "circuit_open",
        /// No connection to the Plan.
        Connect = "connect",
        /// The Plan sent no first byte in time, or stalled before content.
        Timeout = "timeout",
        /// The Plan answered 429.
        RateLimited = "rate_limited",
        /// The Plan answered 529, or said `overloaded_error` in a stream.
        Overloaded = "overloaded",
        /// The Plan answered another 5xx, or said so in a stream.
        ServerError = "server_error",
        /// The Plan's stream ended or broke before content.
        StreamBroken = "stream_broken",
        /// The Plan refused the credential or its account: 401, 402, 403, credit, spend limit.
        Account = "account",
        /// A 429 about a feature of the request.
        Feature = "feature",
        /// The caller has no Plan credential.
        NoPlanCredential = "no_plan_credential",
    }
}

/// One row of `token_usages`, priced. `request_id` and `created_at` together are its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The proxy's own id of the request, a `UUIDv7`.
    pub request_id: Uuid,
    /// Admission time in whole microseconds.
    pub created_at: DateTime<Utc>,
    /// The access key's row; stored as NULL when the row is gone by the time of the insert.
    pub access_key_id: Uuid,
    /// The user's row.
    pub user_id: Uuid,
    /// The public part of the key.
    pub key_id: String,
    /// Tenant namespace.
    pub namespace: String,
    /// The access key's name, so that history survives its deletion.
    pub key_name: String,
    /// The user's name, likewise.
    pub user_name: String,
    /// `<namespace>/<name>` of the pool.
    pub pool: String,
    /// The model as the client named it.
    pub model: String,
    /// The model id that the upstream was asked for.
    pub upstream_model: Option<String>,
    /// The upstream's own request id.
    pub upstream_request_id: Option<String>,
    /// Who answered or failed last.
    pub provider: Option<Provider>,
    /// Whether Bedrock was asked.
    pub is_fallback: bool,
    /// Why.
    pub fallback_reason: Option<FallbackReason>,
    /// How it ended.
    pub status: UsageStatus,
    /// The status code the client saw.
    pub http_status: u16,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// What the provider reported.
    pub tokens: TokenUsage,
    /// Price times tokens, abandoned attempts excluded.
    pub cost: MicroUsd,
    /// What an abandoned attempt reported.
    pub abandoned: Option<AbandonedUsage>,
    /// Where the price came from.
    pub price_source: PriceSource,
    /// Whether a part of `tokens` is a guess.
    pub estimated: bool,
    /// Receipt to end, in milliseconds.
    pub latency_ms: u64,
    /// Receipt to first content byte, in milliseconds.
    pub ttft_ms: Option<u64>,
    /// `x-claude-code-session-id`.
    pub session_id: Option<String>,
    /// `x-claude-code-agent-id`.
    pub agent_id: Option<String>,
}

/// Usage of an attempt that was given up for another upstream, which is billed all the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AbandonedUsage {
    /// Who was asked.
    pub provider: Provider,
    /// Input tokens of every class.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What they cost.
    pub cost: MicroUsd,
}
