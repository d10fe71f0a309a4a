//! `ProxyUser`: a person or a service that owns keys.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{LocalRef, SecretKeyRef, UsageStatus};
use crate::schema;

/// Who the user is and what they may do.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "ProxyUser",
    namespaced,
    shortname = "pu",
    category = "spillway",
    status = "ProxyUserStatus",
    derive = "PartialEq",
    doc = "A person or a service that uses Claude through a pool. Its AccessKeys name it in their userRef.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the user's keys are served"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why they are served or not"
    ),
    printcolumn(name = "Email", type_ = "string", json_path = ".spec.email"),
    printcolumn(
        name = "Pool",
        type_ = "string",
        json_path = ".spec.poolRef.name",
        description = "The pool that serves the user; empty: the operator's default pool"
    ),
    printcolumn(
        name = "Keys",
        type_ = "integer",
        json_path = ".status.keys",
        description = "Living keys"
    ),
    printcolumn(
        name = "Cost",
        type_ = "string",
        json_path = ".status.usage.costUSD",
        description = "US dollars"
    ),
    printcolumn(
        name = "Last Used",
        type_ = "date",
        json_path = ".status.usage.lastUsedAt"
    ),
    printcolumn(
        name = "Requests",
        type_ = "integer",
        priority = 1,
        json_path = ".status.usage.requests"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        priority = 1,
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "What to do, if it is not ready"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ProxyUserSpec {
    /// The user's email address, for statements and the dashboard. No mail is sent.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = Rule::new("self.matches('^[^@ ]+@[^@ ]+$')")
        .message("must be an email address such as alice@example.com"))]
    pub email: String,
    /// The user's name as people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub display_name: Option<String>,
    /// The pool that serves the user's keys. Left out: the operator's default pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool_ref: Option<PoolRef>,
    /// True refuses all of the user's keys, within a second, until it is false again.
    #[serde(default)]
    pub suspended: bool,
    /// Model names and globs (`claude-sonnet-*`) that the user may ask for. Left out: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::model_globs")]
    pub allowed_models: Vec<String>,
    /// The user's own Plan key, used instead of the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<UserPlan>,
    /// The BedrockCredential for the user's requests, used instead of the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bedrock_credential_ref: Option<LocalRef>,
}

/// Names a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct PoolRef {
    /// Name of the ProxyPool.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Namespace of the ProxyPool, which must allow this one. Left out: the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespace_name")]
    pub namespace: Option<String>,
}

/// The user's own access to the Anthropic API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct UserPlan {
    /// The user's Anthropic Console API key. OAuth tokens of claude.ai (sk-ant-oat…) are refused.
    pub api_key_secret_ref: SecretKeyRef,
}

/// What the operator last saw of the user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ProxyUserStatus {
    /// The metadata.generation that this status was judged from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many living AccessKeys name this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<i32>,
    /// What the user's keys used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageStatus>,
    /// Ready and what it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
