//! `ProxyPool`: a group of proxies, the upstreams behind them and who may use them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{LocalRef, SecretKeyRef};
use crate::duration::DurationString;
use crate::schema;

/// What a pool is to be. Whatever is left out falls to the environment of the proxies, then to the built-in value.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "spillway.dev",
    version = "v1alpha1",
    kind = "ProxyPool",
    namespaced,
    shortname = "pp",
    category = "spillway",
    status = "ProxyPoolStatus",
    derive = "PartialEq",
    doc = "A group of proxies that answer Claude requests from the Anthropic API (the Plan) and, where that fails, from AWS Bedrock. It lives in a namespace that the operator is told to run pools in.",
    validation = Rule::new("self.metadata.name.matches('^[a-z0-9]([-a-z0-9]{0,48}[a-z0-9])?$')")
        .message("metadata.name must have at most 50 lower-case letters, digits and '-': the names of its Deployment and Service derive from it"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Ready", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].status"#, description = "Whether the pool serves as its specification says"),
    printcolumn(name = "Reason", type_ = "string", json_path = r#".status.conditions[?(@.type=="Ready")].reason"#, description = "Why it is ready or not"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".status.replicas", description = "Proxies that run"),
    printcolumn(name = "Available", type_ = "integer", json_path = ".status.readyReplicas", description = "Proxies that take requests"),
    printcolumn(name = "Circuit", type_ = "string", json_path = ".status.circuits[0].state", description = "Open while requests leave a failing Plan alone, HalfOpen when one may try it again, empty when all is well"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url", description = "Where clients in the cluster reach it"),
    printcolumn(name = "Message", type_ = "string", priority = 1, json_path = r#".status.conditions[?(@.type=="Ready")].message"#, description = "What to do, if it is not ready"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ProxyPoolSpec {
    /// Which namespaces' users may name this pool in their poolRef.
    #[serde(default)]
    pub allowed_namespaces: AllowedNamespaces,
    /// How many proxies run. Two or more survive the loss of a node.
    #[serde(default = "default_replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// The proxies' container image. Left out: the image that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// Requests and limits of each proxy. Left out: the operator's own choice of requests, without limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::container_resources")]
    pub resources: Option<ResourceRequirements>,
    /// How the proxies are exposed within the cluster.
    #[serde(default)]
    pub service: Service,
    /// The Anthropic API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// What answers where the Plan fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// When a failing Plan is left alone for a while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_breaker: Option<CircuitBreaker>,
    /// How model names are served from Bedrock, and what they cost. The first entry whose name matches counts, an exact name before a glob.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub models: Vec<Model>,
    /// How often usage goes into the status of users and keys: 10s, 30s, 5m.
    #[serde(default = "default_usage_report_interval")]
    pub usage_report_interval: DurationString,
}

fn default_replicas() -> i32 {
    2
}

fn default_usage_report_interval() -> DurationString {
    DurationString("30s".to_owned())
}

/// Which namespaces a pool serves, in the manner of a Gateway's listeners.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.from == 'Selector' ? has(self.selector) : !has(self.selector)")
    .message("selector goes with from: Selector: set both, or neither"))]
pub struct AllowedNamespaces {
    /// `Same`: the pool's own namespace. `All`: every namespace. `Selector`: those whose labels match selector.
    #[serde(default)]
    pub from: From,
    /// Labels of the namespaces that may use the pool; only with `from: Selector`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub selector: Option<LabelSelector>,
}

/// Where a pool's users may live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum From {
    /// The pool's own namespace.
    #[default]
    Same,
    /// Every namespace.
    All,
    /// Namespaces whose labels match.
    Selector,
}

/// The Service in front of the proxies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Service {
    /// `ClusterIP`, `NodePort` or `LoadBalancer`.
    #[serde(rename = "type", default)]
    pub type_: ServiceType,
    /// Port of the Service.
    #[serde(default = "default_service_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Annotations for the Service, such as those that a cloud's load balancer reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
}

fn default_service_port() -> i32 {
    80
}

impl Default for Service {
    fn default() -> Self {
        Self {
            type_: ServiceType::default(),
            port: default_service_port(),
            annotations: BTreeMap::new(),
        }
    }
}

/// The kinds of Service that a pool may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ServiceType {
    /// Reachable within the cluster.
    #[default]
    ClusterIP,
    /// Also on a port of every node.
    NodePort,
    /// Also through the cloud's load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// The name that the core API uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// The Anthropic API and the key that requests are made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Plan {
    /// Where the Anthropic API is. Left out: PROXY_PLAN_API_URL, then https://api.anthropic.com. Its host must be among the allowed upstreams.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::endpoint_url")]
    pub api_url: Option<String>,
    /// The Anthropic Console API key of the pool. Left out: PROXY_PLAN_API_KEY. OAuth tokens of claude.ai (sk-ant-oat…) are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key_secret_ref: Option<SecretKeyRef>,
}

/// What answers where the Plan fails.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Fallback {
    /// Whether a failing Plan is answered from Bedrock. False returns the Plan's own answer.
    #[serde(default = "default_fallback_enabled")]
    pub enabled: bool,
    /// AWS Bedrock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bedrock: Option<Bedrock>,
}

fn default_fallback_enabled() -> bool {
    true
}

/// AWS Bedrock as the pool uses it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Bedrock {
    /// Region for credentials of the environment. Left out: PROXY_BEDROCK_REGION. A BedrockCredential brings its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::aws_region")]
    pub region: Option<String>,
    /// Bedrock model or inference profile for names that models does not map. Left out: PROXY_BEDROCK_DEFAULT_MODEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub default_model: Option<String>,
    /// The BedrockCredential that serves whoever brings none of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_ref: Option<LocalRef>,
}

/// When a failing Plan is left alone, per Plan credential and model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct CircuitBreaker {
    /// Failures within failureWindow that open the circuit. Left out: PROXY_CIRCUIT_FAILURE_THRESHOLD, then 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub failure_threshold: Option<i32>,
    /// Percentage of attempts that must have failed as well. Left out: 50.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_rate: Option<i32>,
    /// How long a failure counts. Left out: PROXY_CIRCUIT_FAILURE_WINDOW, then 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_window: Option<DurationString>,
    /// How long the circuit stays open before one request tries the Plan again. Left out: PROXY_CIRCUIT_RESET_TIMEOUT, then 30m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset_timeout: Option<DurationString>,
}

/// How one model name, or all that a glob matches, is served from Bedrock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct Model {
    /// The name that clients send, or a glob such as `claude-sonnet-*`.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// Bedrock model id, inference profile id or ARN.
    #[schemars(length(min = 1, max = 2048))]
    pub bedrock_model_id: String,
    /// Bedrock operation. `Auto`: InvokeModel for Anthropic's models, Converse for all others.
    #[serde(default)]
    pub bedrock_api: BedrockApi,
    /// What the model costs. Left out: Spillway's own dated price table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<ModelPrice>,
}

/// Which of Bedrock's APIs a model is called by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum BedrockApi {
    /// By the model's maker.
    #[default]
    Auto,
    /// The model's native body.
    InvokeModel,
    /// Bedrock's uniform body.
    Converse,
}

/// US dollars per million tokens of each class.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ModelPrice {
    /// Input tokens that no cache took part in.
    #[schemars(schema_with = "schema::usd")]
    pub input: String,
    /// Output tokens.
    #[schemars(schema_with = "schema::usd")]
    pub output: String,
    /// Input tokens read from the prompt cache. Left out: a tenth of input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::usd")]
    pub cache_read: Option<String>,
    /// Input tokens written to the five-minute cache. Left out: 1.25 times input.
    #[serde(
        default,
        rename = "cacheWrite5m",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::usd")]
    pub cache_write_5m: Option<String>,
    /// Input tokens written to the one-hour cache. Left out: twice input.
    #[serde(
        default,
        rename = "cacheWrite1h",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::usd")]
    pub cache_write_1h: Option<String>,
}

/// What the operator last saw of the pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct ProxyPoolStatus {
    /// The metadata.generation that this status was judged from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Proxies that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
    /// Proxies that take requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Label selector of the proxies, for the scale subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub selector: Option<String>,
    /// Where clients in the cluster reach the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Where the Plan fails and is left alone for a while; empty when all is well. Set the annotation spillway.dev/reset-circuit to a new value to try it at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub circuits: Vec<CircuitStatus>,
    /// Ready and what it is made of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// A circuit that is not closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(inline)]
pub struct CircuitStatus {
    /// The Secret entry with the Plan key, as namespace/name/key, or `environment` for PROXY_PLAN_API_KEY.
    #[schemars(length(max = 640))]
    pub credential: String,
    /// The model that fails. Left out: the key is refused as such, for every model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub model: Option<String>,
    /// Open: requests go to Bedrock. HalfOpen: the next one tries the Plan.
    pub state: CircuitState,
    /// What failed, in one word, such as Overloaded, RateLimited or Account.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// When it opened.
    pub opened_at: Time,
    /// When the Plan is tried again.
    pub retry_at: Time,
}

/// What a circuit does with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum CircuitState {
    /// It sends them to Bedrock.
    Open,
    /// It lets one try the Plan.
    HalfOpen,
}
