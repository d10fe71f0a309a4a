//! Lets the AWS SDK use the shared connections, so that the rules for upstreams hold for it too.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use http_body_util::BodyExt as _;

use super::http1::HttpClient as Http1Client;

/// An HTTP client for the AWS SDK. Time-outs of the SDK's configuration do not reach it: connecting is timed by the connector,
/// answering by the router.
#[derive(Debug, Clone)]
pub(super) struct AwsHttpClient(SharedHttpConnector);

impl AwsHttpClient {
    pub(super) fn new(client: Http1Client) -> Self {
        Self(SharedHttpConnector::new(AwsHttpConnector(client)))
    }
}

impl HttpClient for AwsHttpClient {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        self.0.clone()
    }
}

struct AwsHttpConnector(Http1Client);

impl std::fmt::Debug for AwsHttpConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AwsHttpConnector")
    }
}

impl HttpConnector for AwsHttpConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (head, body) = request.into_parts();
            // The SDK's own bodies are in memory, as one piece.
            let body = body.collect().await.map_err(ConnectorError::user)?;
            let request = http::Request::from_parts(head, body.to_bytes());
            let response = client.send(request).await.map_err(|error| {
                if error.is_connect() {
                    ConnectorError::io(error.into())
                } else {
                    ConnectorError::other(error.into(), None)
                }
            })?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}
