//! The pod's own AWS identity, as its environment gives it: found out once, for SDK and relay alike.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use tokio::sync::{Mutex, OnceCell};

/// Credentials are fetched anew so long before they end,
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// and after this long when they do not say when they end.
const RENEW_AFTER: Duration = Duration::from_mins(15);

/// The environment, looked at when first asked for.
static ENVIRONMENT: OnceCell<SdkConfig> = OnceCell::const_new();
static CURRENT: Mutex<Option<Current>> = Mutex::const_new(None);

struct Current {
    credentials: Credentials,
    renew_at: SystemTime,
}

/// What the environment says.
pub(crate) async fn environment() -> &'static SdkConfig {
    ENVIRONMENT
        // On the heap: it takes 11 KB, and all that wait for it would carry them.
        .get_or_init(|| Box::pin(aws_config::load_defaults(BehaviorVersion::latest())))
        .await
}

/// The pod's credentials, kept until shortly before they end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PodCredentials;

impl PodCredentials {
    /// Who finds them ended fetches new ones while others wait.
    async fn get() -> Result<Credentials, CredentialsError> {
        let mut current = CURRENT.lock().await;
        let now = SystemTime::now();
        if let Some(known) = current.as_ref().filter(|known| now < known.renew_at) {
            return Ok(known.credentials.clone());
        }
        let provider = environment().await.credentials_provider().ok_or_else(|| {
            CredentialsError::not_loaded("the environment names no source of credentials")
        })?;
        let credentials = provider.provide_credentials().await?;
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

impl ProvideCredentials for PodCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(Self::get())
    }
}
