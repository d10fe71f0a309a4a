//! The Bedrock runtime for clients that speak its format: bodies pass as they are, signed anew.

mod count;
mod fault;
mod headers;
mod identity;
mod operation;
mod sign;
mod usage;

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use aws_sdk_bedrockruntime::config::endpoint::{DefaultResolver, Params, ResolveEndpoint as _};
use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::uri::Uri;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret as _;
use url::Url;

pub use self::count::{NotCountable, count_body, counted};
pub use self::fault::Fault;
pub(crate) use self::fault::{code_of, failure_of, message_of, shown_body, shown_instead};
use self::identity::{Proof, proof};
pub use self::operation::Operation;
pub(crate) use self::usage::on_answer;
pub use self::usage::on_frame;
use super::AdapterError;
use super::headers::strip_answer;
use super::http_client::HttpClients;
use super::http1::{AnswerBody, HttpClient};
use crate::call::BedrockCredential;

/// What a model id is encoded with in a path: all but RFC 3986's unreserved characters, as AWS's own clients do.
const LABEL: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Sends requests of Bedrock's format.
pub struct BedrockRelay {
    client: HttpClient,
    /// The environment's, for credentials that name none of their own.
    endpoint: Option<Url>,
    regions: DefaultResolver,
}

/// What is sent.
pub struct RelayRequest<'a> {
    /// What is asked for.
    pub operation: Operation,
    /// Model id, inference profile id or ARN, not encoded.
    pub model_id: &'a str,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// The client's body.
    pub body: Bytes,
}

impl fmt::Debug for RelayRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Headers may hold a key, and the body is nobody's business.
        f.debug_struct("RelayRequest")
            .field("operation", &self.operation)
            .field("model_id", &self.model_id)
            .finish_non_exhaustive()
    }
}

impl BedrockRelay {
    /// A relay over the shared clients. `endpoint` is the environment's (`AWS_ENDPOINT_URL_BEDROCK_RUNTIME`).
    pub fn new(clients: &HttpClients, endpoint: Option<Url>) -> Self {
        Self {
            client: clients.http.clone(),
            endpoint,
            regions: DefaultResolver::new(),
        }
    }

    /// Sends a request with the credential's own signature. The answer, an error included, is Bedrock's, without what ends at
    /// this hop.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        request: RelayRequest<'_>,
        credential: &Arc<BedrockCredential>,
    ) -> Result<Response<AnswerBody>, AdapterError> {
        let uri = self.uri(&request, credential).await?;
        let mut sent = Request::new(request.body.clone());
        *sent.method_mut() = Method::POST;
        *sent.headers_mut() = headers::for_bedrock(request.headers);
        if let Some(host) = uri.authority() {
            sent.headers_mut().insert(HOST, header(host.as_str())?);
        }
        *sent.uri_mut() = uri;
        match proof(&credential.secret).await {
            Ok(Proof::Signature(identity)) => {
                sign::sign_v4(&mut sent, &identity, &credential.region, SystemTime::now())
                    .map_err(build)?;
            }
            Ok(Proof::Bearer(key)) => {
                let mut bearer = header(&format!("Bearer {}", key.expose_secret()))?;
                bearer.set_sensitive(true);
                sent.headers_mut().insert(AUTHORIZATION, bearer);
            }
            Err(error) => return Err(build(error)),
        }
        let mut response = self.client.send(sent).await.map_err(|error| {
            if error.is_connect() {
                AdapterError::Connect(error.into())
            } else {
                AdapterError::NoAnswer(error.into())
            }
        })?;
        strip_answer(response.headers_mut());
        Ok(response)
    }

    async fn uri(
        &self,
        request: &RelayRequest<'_>,
        credential: &BedrockCredential,
    ) -> Result<Uri, AdapterError> {
        let base = match credential.endpoint_url.as_ref().or(self.endpoint.as_ref()) {
            Some(url) => url.as_str().to_owned(),
            None => self.regional(&credential.region).await?,
        };
        let model = utf8_percent_encode(request.model_id, LABEL);
        let operation = request.operation.path();
        format!("{}/model/{model}/{operation}", base.trim_end_matches('/'))
            .parse()
            .map_err(build)
    }

    /// The region's own endpoint, by the SDK's rules for partitions.
    async fn regional(&self, region: &str) -> Result<String, AdapterError> {
        let params = Params::builder().region(region).build().map_err(build)?;
        let endpoint = self.regions.resolve_endpoint(&params).await;
        Ok(endpoint.map_err(AdapterError::Build)?.url().to_owned())
    }
}

fn header(text: &str) -> Result<HeaderValue, AdapterError> {
    HeaderValue::from_str(text).map_err(build)
}

fn build(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AdapterError {
    AdapterError::Build(error.into())
}
