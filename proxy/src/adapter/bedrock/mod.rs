//! What the adapters of Bedrock's two APIs share.

pub(crate) mod betas;
mod clients;
mod errors;
mod log;
pub(crate) mod models;
mod pod;
mod raw;
mod reply;
mod translate;

use std::sync::Arc;

use spillway_core::domain::models::BedrockApi;
use url::Url;

use self::clients::BedrockClients;
pub(crate) use self::clients::static_credentials;
pub use self::errors::anthropic_words;
pub(crate) use self::errors::{names_an_account, to_anthropic};
pub(crate) use self::log::{for_log, tells_of_a_credential};
use self::models::ModelTraits;
pub(crate) use self::pod::PodCredentials;
pub(crate) use self::raw::RawExchange;
pub(crate) use self::reply::{EVENT_STREAM, JSON, failure, success, text_of, whole};
pub use self::translate::TranslateError;
pub(crate) use self::translate::{may_change_tools, refuse_tool_changes};
use super::HttpClients;
use super::bedrock_converse::BedrockConverseAdapter;
use super::bedrock_invoke::BedrockInvokeAdapter;
use crate::call::BedrockCredential;

/// The largest body that Bedrock takes, in bytes.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-anthropic-claude-messages-request-response.html>.
pub const MAX_BODY: usize = 20_000_000;

/// Whom and what to ask on Bedrock, and through which of its APIs.
#[derive(Debug, Clone)]
pub struct BedrockTarget {
    /// The credential.
    pub credential: Arc<BedrockCredential>,
    /// Model id, inference profile id or ARN.
    pub model_id: String,
    /// The API.
    pub api: Api,
}

impl BedrockTarget {
    /// Whether the model is Claude, as far as its id tells.
    pub fn is_claude(&self) -> bool {
        is_claude(&self.model_id)
    }
}

/// Whether a model id, inference profile id or ARN is Claude's, as far as it tells.
pub fn is_claude(model_id: &str) -> bool {
    ModelTraits::of(model_id).is_anthropic()
}

/// An API of Bedrock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// The Messages API's own body.
    InvokeModel,
    /// One form for all models.
    Converse,
}

impl Api {
    /// The API for a model that a pool maps to so: its native one for Claude, unless the pool says otherwise.
    pub fn of(model_id: &str, configured: BedrockApi) -> Self {
        match configured {
            BedrockApi::InvokeModel => Self::InvokeModel,
            BedrockApi::Auto if ModelTraits::of(model_id).is_anthropic() => Self::InvokeModel,
            BedrockApi::Auto | BedrockApi::Converse => Self::Converse,
        }
    }
}

/// The adapters, which share their clients.
pub struct Bedrock {
    /// For [`Api::InvokeModel`].
    pub invoke: BedrockInvokeAdapter,
    /// For [`Api::Converse`].
    pub converse: BedrockConverseAdapter,
}

impl Bedrock {
    /// Adapters over the shared connections. `endpoint` is the environment's (`AWS_ENDPOINT_URL_BEDROCK_RUNTIME`), for credentials
    /// that name none of their own.
    pub fn new(clients: &HttpClients, endpoint: Option<Url>) -> Self {
        let clients = Arc::new(BedrockClients::new(clients.aws.clone(), endpoint));
        Self {
            invoke: BedrockInvokeAdapter::new(Arc::clone(&clients)),
            converse: BedrockConverseAdapter::new(clients),
        }
    }
}

/// The AWS clients, for the adapters.
pub(crate) use self::clients::BedrockClients as Clients;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claude_speaks_its_own_api_unless_told_and_others_converse() {
        const CLAUDE: &str = "eu.anthropic.claude-opus-4-8";
        const NOVA: &str = "amazon.nova-lite-v1:0";
        for (id, configured, api) in [
            (CLAUDE, BedrockApi::Auto, Api::InvokeModel),
            (CLAUDE, BedrockApi::Converse, Api::Converse),
            (CLAUDE, BedrockApi::InvokeModel, Api::InvokeModel),
            (NOVA, BedrockApi::Auto, Api::Converse),
            (NOVA, BedrockApi::Converse, Api::Converse),
            (NOVA, BedrockApi::InvokeModel, Api::InvokeModel),
        ] {
            assert_eq!(Api::of(id, configured), api, "{id} {configured:?}");
        }
    }
}
