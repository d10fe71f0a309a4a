//! `AccessKey`: a key to a pool and the Secret that holds it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{LocalRef, SecretKeyRef, UsageStatus};
use crate::schema;

/// Whose key it is, where it is kept and what it may do.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "AccessKey",
    namespaced,
    shortname = "ak",
    category = "spillway",
    status = "AccessKeyStatus",
    derive = "PartialEq",
    doc = "A key with which a ProxyUser's clients reach Claude. The key itself is in a Secret and nowhere else.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the key is served"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it is served or not"
    ),
    printcolumn(name = "User", type_ = "string", json_path = ".spec.userRef.name"),
    printcolumn(
        name = "Key ID",
        type_ = "string",
        json_path = ".status.keyId",
        description = "The public part of the key"
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
        name = "Secret",
        type_ = "string",
        priority = 1,
        json_path = ".status.secretName",
        description = "The Secret that holds the key"
    ),
    printcolumn(
        name = "Requests",
        type_ = "integer",
        priority = 1,
        json_path = ".status.usage.requests"
    ),
    printcolumn(
        name = "Expires",
        type_ = "string",
        priority = 1,
        json_path = ".spec.expiresAt"
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
#[x_kube(
    validation = Rule::new("has(self.secretName) != has(self.existingSecretRef)")
        .message("set exactly one of secretName (Spillway makes the key) and existingSecretRef (you bring one)"),
    validation = Rule::new("has(self.secretName) == has(oldSelf.secretName) && (!has(self.secretName) || self.secretName == oldSelf.secretName)")
        .message("secretName is immutable, for the Secret of the former name would be left behind with a living key: make a new AccessKey and delete this one")
        .field_path(".secretName"),
)]
pub struct AccessKeySpec {
    /// The ProxyUser whose key this is. It cannot be changed: usage belongs to it.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("userRef is immutable, for usage and history belong to the user: make a new AccessKey for the other user"))]
    pub user_ref: LocalRef,
    /// Name of the Secret that the operator writes the key to and owns: ACCESS_KEY, ANTHROPIC_BASE_URL, ANTHROPIC_AUTH_TOKEN and ACCESS_KEY_URL. A Secret of that name that is not this key's is left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::object_name")]
    pub secret_name: Option<String>,
    /// A Secret of your own that holds the key: 32 to 256 characters of A-Z a-z 0-9 - . _ ~. The operator only reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub existing_secret_ref: Option<SecretKeyRef>,
    /// When the key stops working (RFC 3339). Left out: never.
    // Text, for an object that a stricter type cannot read would stop the watch of every object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::expiry")]
    pub expires_at: Option<String>,
    /// True refuses the key, within a second, until it is false again.
    #[serde(default)]
    pub disabled: bool,
    /// Model names and globs (`claude-sonnet-*`) that the key may ask for, within what the user may. Left out: all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::model_globs")]
    pub allowed_models: Vec<String>,
    /// The BedrockCredential for this key's requests, used instead of the user's and the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bedrock_credential_ref: Option<LocalRef>,
}

/// Whether a version of a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum VersionState {
    /// The version that the Secret holds.
    Current,
    /// A former version that works until expiresAt.
    Retiring,
    /// A version that no longer works.
    Expired,
}

/// One version of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AccessKeyVersion {
    /// The public part of the key.
    #[schemars(length(max = 64))]
    pub key_id: String,
    /// When the operator first saw the version.
    pub created_at: Time,
    /// When the version stops or stopped working.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,
    /// Whether it works.
    pub state: VersionState,
}

/// What the operator last saw of the key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct AccessKeyStatus {
    /// The metadata.generation that this status was judged from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The public part of the key, as logs and the dashboard show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub key_id: Option<String>,
    /// The key's versions, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub versions: Vec<AccessKeyVersion>,
    /// The Secret that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub secret_name: Option<String>,
    /// What the key was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<UsageStatus>,
    /// Ready and what it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
