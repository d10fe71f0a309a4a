//! `BedrockCredential`: how Spillway signs in to AWS Bedrock.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{LocalRef, SecretKeyRef};
use crate::schema;

/// Where Bedrock is and how to sign in.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "BedrockCredential",
    namespaced,
    shortname = "bc",
    category = "spillway",
    status = "BedrockCredentialStatus",
    derive = "PartialEq",
    doc = "A way to sign in to AWS Bedrock. Keys, users and pools of the same namespace name it; the key's counts before the user's before the pool's.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the credential can be used"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Why it can be used or not"
    ),
    printcolumn(name = "Region", type_ = "string", json_path = ".spec.region"),
    printcolumn(
        name = "Used By",
        type_ = "integer",
        json_path = ".status.usedBy",
        description = "Pools, users and keys that name it"
    ),
    printcolumn(
        name = "Encrypted With",
        type_ = "string",
        priority = 1,
        json_path = ".status.encryptedWith",
        description = "The key that encrypts it at rest"
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
pub struct BedrockCredentialSpec {
    /// AWS region whose Bedrock is called.
    #[schemars(schema_with = "schema::aws_region")]
    pub region: String,
    /// How to sign in: exactly one way.
    pub auth: BedrockAuth,
    /// Another endpoint for Bedrock's runtime, such as a VPC endpoint. Left out: the region's own. Its host must be among the allowed upstreams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::endpoint_url")]
    pub endpoint_url: Option<String>,
}

/// One way to sign in.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.secretRef), has(self.apiKeySecretRef), has(self.podIdentity)].filter(set, set).size() == 1")
    .message("set exactly one of secretRef, apiKeySecretRef and podIdentity"))]
pub struct BedrockAuth {
    /// A Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, if temporary, AWS_SESSION_TOKEN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,
    /// A Secret with a Bedrock API key, sent as bearer token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
    /// The identity of the proxy pods (IRSA or EKS Pod Identity); only in the namespace of a pool, for it is the platform's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_identity: Option<PodIdentity>,
}

/// The proxy pods' own AWS identity. It has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct PodIdentity {}

/// What the operator last saw of the credential.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct BedrockCredentialStatus {
    /// The metadata.generation that this status was judged from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The KMS or local key that encrypts the stored credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub encrypted_with: Option<String>,
    /// The resourceVersion of the Secret that the stored credential was read from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub secret_version: Option<String>,
    /// How many pools, users and keys name the credential.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_by: Option<i32>,
    /// Ready and what it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
