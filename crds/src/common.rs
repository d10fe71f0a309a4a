//! What several kinds share: references and usage.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Names an object in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct LocalRef {
    /// Name of the object, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// Names one entry of a Secret in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct SecretKeyRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key within the Secret's data.
    #[schemars(schema_with = "schema::secret_data_key")]
    pub key: String,
}

/// The time that usage numbers cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum UsageWindow {
    /// Everything since the resource was made.
    Total,
}

/// What was used, as the upstreams reported it. Follows the requests by the pool's usageReportInterval.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct UsageStatus {
    /// The time that the numbers cover.
    pub window: UsageWindow,
    /// Message requests, failed ones included.
    pub requests: i64,
    /// Input tokens, those read from and written to the prompt cache included.
    pub input_tokens: i64,
    /// Output tokens.
    pub output_tokens: i64,
    /// Cost in US dollars.
    #[serde(rename = "costUSD")]
    #[schemars(length(max = 32))]
    pub cost_usd: String,
    /// Requests that Bedrock answered because the Plan failed.
    pub fallback_requests: i64,
    /// When the last request came in, rounded to five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used_at: Option<Time>,
}
