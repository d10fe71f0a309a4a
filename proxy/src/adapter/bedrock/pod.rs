//! The pod's own AWS identity, as its environment gives it: found out once, for SDK and relay alike.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use tokio::sync::{Mutex, OnceCell};

use crate::adapter::chain;

/// Credentials are fetched anew so long before they end,
const RENEW_BEFORE: Duration = Duration::from_mins(5);
/// and after this long when they do not say when they end.
const RENEW_AFTER: Duration = Duration::from_mins(15);
/// How long a failure to fetch them is believed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// The environment, looked at when first asked for.
static ENVIRONMENT: OnceCell<SdkConfig> = OnceCell::const_new();
static CURRENT: Mutex<Option<Current>> = Mutex::const_new(None);

struct Current {
    found: Result<Credentials, String>,
    renew_at: SystemTime,
}

impl Current {
    /// What is found, in the place of what was known: credentials that have not ended are better than none.
    fn after(before: Option<Self>, found: Result<Credentials, String>, now: SystemTime) -> Self {
        match (found, before.map(|before| before.found)) {
            (Err(error), Some(Ok(known))) if known.expiry().is_none_or(|end| now < end) => {
                tracing::warn!(error, "the pod's credentials could not be renewed yet");
                Self {
                    found: Ok(known),
                    renew_at: now + TRY_AGAIN_AFTER,
                }
            }
            (Ok(credentials), _) => Self {
                renew_at: credentials
                    .expiry()
                    .and_then(|end| end.checked_sub(RENEW_BEFORE))
                    .unwrap_or(now + RENEW_AFTER),
                found: Ok(credentials),
            },
            (Err(error), _) => Self {
                found: Err(error),
                renew_at: now + TRY_AGAIN_AFTER,
            },
        }
    }

    fn get(&self) -> Result<Credentials, CredentialsError> {
        self.found.clone().map_err(CredentialsError::provider_error)
    }
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
    /// Who finds them ended fetches new ones while others wait, and does not find out again what these learn.
    async fn get() -> Result<Credentials, CredentialsError> {
        let mut current = CURRENT.lock().await;
        let now = SystemTime::now();
        if let Some(known) = current.as_ref().filter(|known| now < known.renew_at) {
            return known.get();
        }
        let provider = environment().await.credentials_provider().ok_or_else(|| {
            CredentialsError::not_loaded("the environment names no source of credentials")
        })?;
        let found = provider.provide_credentials().await;
        let found = found.map_err(|error| chain(&error));
        let now = SystemTime::now();
        let found = Current::after(current.take(), found, now);
        current.insert(found).get()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_that_have_not_ended_are_used_while_new_ones_cannot_be_had() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_hours(1000);
        let until = |end| Credentials::new("id", "secret", None, Some(end), "test");
        let known = Current::after(None, Ok(until(now + RENEW_BEFORE * 2)), now);
        assert_eq!(known.renew_at, now + RENEW_BEFORE);

        let failed = Err("away".to_owned());
        let later = known.renew_at;
        let kept = Current::after(Some(known), failed.clone(), later);
        assert!(kept.get().is_ok());
        assert_eq!(kept.renew_at, later + TRY_AGAIN_AFTER);

        let ended = Current::after(Some(kept), failed, now + RENEW_BEFORE * 2);
        assert!(ended.get().is_err());
        let found = Current::after(Some(ended), Ok(until(now + RENEW_BEFORE * 9)), now);
        assert!(found.get().is_ok());
    }
}
