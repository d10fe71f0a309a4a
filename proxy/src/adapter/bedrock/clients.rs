//! AWS clients, one per credential.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::config::retry::RetryConfig;
use aws_sdk_bedrockruntime::config::timeout::TimeoutConfig;
use aws_sdk_bedrockruntime::config::{Config, Region, StalledStreamProtectionConfig, Token};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use spillway_core::security::credentials::BedrockSecret;
use url::Url;
use uuid::Uuid;

use super::pod::{self, PodCredentials};
use crate::call::BedrockCredential;

/// What the SDK calls the source of these credentials in its errors.
const CREDENTIALS_SOURCE: &str = "spillway";

/// Credentials that somebody entered.
pub(crate) fn static_credentials(
    access_key_id: &str,
    secret_access_key: &SecretString,
    session_token: Option<&SecretString>,
) -> Credentials {
    Credentials::new(
        access_key_id,
        secret_access_key.expose_secret(),
        session_token.map(|token| token.expose_secret().to_owned()),
        None,
        CREDENTIALS_SOURCE,
    )
}

/// Makes and keeps clients, which share their connections. One is used as long as the `Arc` of its credential lives, and gone
/// when the next one is made after that.
pub(crate) struct BedrockClients {
    http: SharedHttpClient,
    endpoint: Option<Url>,
    clients: Mutex<HashMap<Uuid, (Weak<BedrockCredential>, Client)>>,
}

impl BedrockClients {
    pub(super) fn new(http: SharedHttpClient, endpoint: Option<Url>) -> Self {
        Self {
            http,
            endpoint,
            clients: Mutex::default(),
        }
    }

    /// The client of a credential.
    pub(crate) async fn get(&self, credential: &Arc<BedrockCredential>) -> Client {
        if let Some((made_for, client)) = self.clients.lock().get(&credential.id)
            && std::ptr::eq(made_for.as_ptr(), Arc::as_ptr(credential))
        {
            return client.clone();
        }
        let client = Client::from_conf(self.config(credential).await);
        let mut clients = self.clients.lock();
        clients.retain(|_, (made_for, _)| made_for.strong_count() > 0);
        clients.insert(credential.id, (Arc::downgrade(credential), client.clone()));
        client
    }

    async fn config(&self, credential: &BedrockCredential) -> Config {
        let builder = match &credential.secret {
            BedrockSecret::AccessKeys {
                access_key_id,
                secret_access_key,
                session_token,
            } => Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .credentials_provider(static_credentials(
                    access_key_id,
                    secret_access_key,
                    session_token.as_ref(),
                )),
            BedrockSecret::ApiKey(key) => Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .bearer_token(Token::new(key.expose_secret(), None)),
            BedrockSecret::PodIdentity => {
                aws_sdk_bedrockruntime::config::Builder::from(pod::environment().await)
                    .credentials_provider(PodCredentials)
            }
        };
        let mut builder = builder
            .region(Region::new(credential.region.clone()))
            .http_client(self.http.clone())
            // Failing over is the router's; a second attempt here would be a second bill.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        if let Some(endpoint) = credential.endpoint_url.as_ref().or(self.endpoint.as_ref()) {
            builder = builder.endpoint_url(endpoint.as_str());
        }
        builder.build()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credential(secret: BedrockSecret) -> Arc<BedrockCredential> {
        Arc::new(BedrockCredential {
            id: Uuid::from_u128(1),
            region: "eu-west-1".into(),
            endpoint_url: None,
            secret,
        })
    }

    fn clients() -> BedrockClients {
        let http = aws_smithy_runtime_api::client::http::http_client_fn(|_, _| {
            unreachable!("nothing is sent")
        });
        BedrockClients::new(http, None)
    }

    #[tokio::test]
    async fn a_client_is_used_as_long_as_its_credential_lives() {
        let clients = clients();
        let first = credential(BedrockSecret::ApiKey("a".into()));
        clients.get(&first).await;
        clients.get(&first).await;
        let changed = credential(BedrockSecret::ApiKey("b".into()));
        clients.get(&changed).await;
        drop(first);
        assert!(std::ptr::eq(
            clients.clients.lock()[&changed.id].0.as_ptr(),
            Arc::as_ptr(&changed)
        ));
        drop(changed);
        let other = Arc::new(BedrockCredential {
            id: Uuid::from_u128(2),
            region: "eu-west-1".into(),
            endpoint_url: None,
            secret: BedrockSecret::ApiKey("c".into()),
        });
        clients.get(&other).await;
        assert_eq!(
            clients.clients.lock().len(),
            1,
            "clients of credentials that are gone go too"
        );
    }
}
