//! Whom requests are signed as.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_smithy_runtime_api::client::identity::Identity;
use secrecy::{ExposeSecret as _, SecretString};
use spillway_core::security::credentials::BedrockSecret;
use tokio::sync::{Mutex, OnceCell};

/// What the SDK calls the source of these credentials in its errors.
const CREDENTIALS_SOURCE: &str = "spillway";
/// The pod's own credentials are fetched anew so long before they end,
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// and after this long when they do not say when they end.
const RENEW_AFTER: Duration = Duration::from_mins(15);

/// How a request proves where it is from.
pub(super) enum Proof {
    /// It is signed.
    Signature(Identity),
    /// It carries a Bedrock API key.
    Bearer(SecretString),
}

/// The pod has no credentials.
#[derive(Debug, thiserror::Error)]
#[error("the pod's own AWS credentials cannot be had")]
pub(super) struct NoIdentity(#[source] Box<dyn std::error::Error + Send + Sync>);

/// Finds identities, and keeps the pod's own.
#[derive(Default)]
pub(super) struct Identities {
    /// The pod's environment, looked at when first asked for.
    pod: OnceCell<SdkConfig>,
    current: Mutex<Option<Current>>,
}

struct Current {
    credentials: Credentials,
    renew_at: SystemTime,
}

impl Identities {
    /// What a request with this secret is sent with.
    pub(super) async fn proof(&self, secret: &BedrockSecret) -> Result<Proof, NoIdentity> {
        Ok(match secret {
            BedrockSecret::AccessKeys {
                access_key_id,
                secret_access_key,
                session_token,
            } => {
                let token = session_token
                    .as_ref()
                    .map(|token| token.expose_secret().to_owned());
                let credentials = Credentials::new(
                    access_key_id.clone(),
                    secret_access_key.expose_secret(),
                    token,
                    None,
                    CREDENTIALS_SOURCE,
                );
                Proof::Signature(credentials.into())
            }
            BedrockSecret::ApiKey(key) => Proof::Bearer(key.clone()),
            BedrockSecret::PodIdentity => Proof::Signature(self.pods_own().await?.into()),
        })
    }

    /// The pod's credentials. Who finds them ended fetches new ones while others wait.
    async fn pods_own(&self) -> Result<Credentials, NoIdentity> {
        let mut current = self.current.lock().await;
        let now = SystemTime::now();
        if let Some(known) = current.as_ref().filter(|known| now < known.renew_at) {
            return Ok(known.credentials.clone());
        }
        let pod = self
            .pod
            .get_or_init(|| aws_config::load_defaults(BehaviorVersion::latest()))
            .await;
        let provider = pod
            .credentials_provider()
            .ok_or_else(|| NoIdentity("the environment names no source of credentials".into()))?;
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|error| NoIdentity(error.into()))?;
        let renew_at = credentials
            .expiry()
            .and_then(|end| end.checked_sub(RENEW_BEFORE))
            .unwrap_or(now + RENEW_AFTER);
        *current = Some(Current {
            credentials: credentials.clone(),
            renew_at,
        });
        Ok(credentials)
    }
}
