//! Upstream credentials in memory: decrypted once, and again only when their row changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryFutureExt as _, stream};
use secrecy::SecretString;
use spillway_core::domain::pool::{BedrockKeyEntry, PlanKeyEntry, PoolSnapshot};
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::security::credentials::{BedrockSecret, PlanSecret};
use spillway_core::security::envelope::{Envelope, EnvelopeError};
use tokio::time::{Instant, timeout_at};
use url::Url;
use uuid::Uuid;

use crate::call::{BedrockCredential, PlanCredential};

/// Where a Plan key may be sent, and under which id its circuits are kept.
type PlanPlace = (Uuid, Url);
/// A credential in the region that calls are signed for.
type BedrockPlace = (Uuid, String);

/// How long AWS KMS may take for all the credentials of a load together. What is not opened by then is tried again later: keys
/// and configuration must not wait for it.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many credentials are opened at a time.
const CONCURRENT: usize = 32;

/// Rows with what they held, by id.
type Read<E, S> = HashMap<Uuid, (E, S)>;

/// Opens sealed credentials and keeps them.
#[derive(Debug)]
pub(super) struct Vault {
    envelope: Envelope,
    allowed: AllowedUpstreams,
    plan_keys: Read<PlanKeyEntry, SecretString>,
    bedrock_keys: Read<BedrockKeyEntry, BedrockSecret>,
    plan: HashMap<PlanPlace, Arc<PlanCredential>>,
    bedrock: HashMap<BedrockPlace, Arc<BedrockCredential>>,
}

/// What opening a snapshot's credentials came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Opened {
    /// Credentials that could not be decrypted.
    pub(super) unreadable: usize,
    /// Whether another try may read more (AWS KMS did not answer).
    pub(super) try_again: bool,
}

impl Vault {
    pub(super) fn new(envelope: Envelope, allowed: AllowedUpstreams) -> Self {
        Self {
            envelope,
            allowed,
            plan_keys: HashMap::new(),
            bedrock_keys: HashMap::new(),
            plan: HashMap::new(),
            bedrock: HashMap::new(),
        }
    }

    /// Opens what is new or changed in `snapshot` and forgets what is gone from it. Takes [`PATIENCE`] at most; a future that
    /// is dropped has changed nothing.
    pub(super) async fn open(&mut self, snapshot: &PoolSnapshot) -> Opened {
        let envelope = &self.envelope;
        let until = Instant::now() + PATIENCE;
        let ((plan_keys, of_plan), (bedrock_keys, of_bedrock)) = tokio::join!(
            read(
                "plan_keys",
                &snapshot.plan_keys,
                &self.plan_keys,
                |entry| entry.id,
                |entry| PlanSecret::open(envelope, entry.id, &entry.sealed).map_ok(|key| key.0),
                until,
            ),
            read(
                "bedrock_keys",
                &snapshot.bedrock_keys,
                &self.bedrock_keys,
                |entry| entry.id,
                |entry| BedrockSecret::open(envelope, entry.id, &entry.sealed),
                until,
            ),
        );
        // What the environment gives is kept under the pool's id.
        let pool = snapshot.pool.id;
        self.plan
            .retain(|(id, _), _| *id == pool || is_same(*id, &self.plan_keys, &plan_keys));
        self.bedrock
            .retain(|(id, _), _| *id == pool || is_same(*id, &self.bedrock_keys, &bedrock_keys));
        self.plan_keys = plan_keys;
        self.bedrock_keys = bedrock_keys;
        Opened {
            unreadable: of_plan.unreadable + of_bedrock.unreadable,
            try_again: of_plan.try_again || of_bedrock.try_again,
        }
    }

    /// The Plan key of row `id` for `api_url`; `None` when it is unreadable or the URL is not allowed.
    pub(super) fn plan(&mut self, id: Uuid, api_url: &Url) -> Option<Arc<PlanCredential>> {
        let key = self.plan_keys.get(&id)?.1.clone();
        self.plan_with(id, api_url, key)
    }

    /// A Plan key that is no row's, for circuits kept under `id`.
    pub(super) fn plan_with(
        &mut self,
        id: Uuid,
        api_url: &Url,
        key: SecretString,
    ) -> Option<Arc<PlanCredential>> {
        let place = (id, api_url.clone());
        if let Some(credential) = self.plan.get(&place) {
            return Some(Arc::clone(credential));
        }
        if let Err(refused) = self.allowed.check(api_url) {
            tracing::error!(plan_key = %id, error = %refused, "plan key is not used");
            return None;
        }
        let credential = Arc::new(PlanCredential {
            id,
            api_url: api_url.clone(),
            key,
        });
        self.plan.insert(place, Arc::clone(&credential));
        Some(credential)
    }

    /// The Bedrock credential of row `id`, in `region` instead of its own where one is given; `None` when it is unreadable or
    /// its endpoint is not allowed.
    pub(super) fn bedrock(
        &mut self,
        id: Uuid,
        region: Option<&str>,
    ) -> Option<Arc<BedrockCredential>> {
        let (entry, secret) = self.bedrock_keys.get(&id)?;
        let region = region.unwrap_or(&entry.region);
        let place = (id, region.to_owned());
        if let Some(credential) = self.bedrock.get(&place) {
            return Some(Arc::clone(credential));
        }
        let endpoint_url = match &entry.endpoint_url {
            None => None,
            Some(text) => {
                let Ok(url) = Url::parse(text) else {
                    tracing::error!(bedrock_key = %id, "bedrock credential is not used: its endpoint is no URL");
                    return None;
                };
                if let Err(refused) = self.allowed.check(&url) {
                    tracing::error!(bedrock_key = %id, error = %refused, "bedrock credential is not used");
                    return None;
                }
                Some(url)
            }
        };
        let credential = Arc::new(BedrockCredential {
            id,
            region: region.to_owned(),
            endpoint_url,
            secret: secret.clone(),
        });
        self.bedrock.insert(place, Arc::clone(&credential));
        Some(credential)
    }

    /// The pod's own AWS identity in `region`, kept under the pool's `id`.
    pub(super) fn pod_identity(&mut self, id: Uuid, region: &str) -> Arc<BedrockCredential> {
        let credential = self
            .bedrock
            .entry((id, region.to_owned()))
            .or_insert_with(|| {
                Arc::new(BedrockCredential {
                    id,
                    region: region.to_owned(),
                    endpoint_url: None,
                    secret: BedrockSecret::PodIdentity,
                })
            });
        Arc::clone(credential)
    }
}

/// The rows of `entries` with what `known` has of them where they are unchanged, and what `open` makes of the others.
async fn read<'a, E, S, F>(
    table: &'static str,
    entries: &'a [E],
    known: &Read<E, S>,
    id: impl Fn(&E) -> Uuid,
    open: impl Fn(&'a E) -> F,
    until: Instant,
) -> (Read<E, S>, Opened)
where
    E: Clone + PartialEq,
    S: Clone,
    F: Future<Output = Result<S, EnvelopeError>>,
{
    let mut result = Opened::default();
    let mut read = Read::with_capacity(entries.len());
    let mut openings = Vec::new();
    for entry in entries {
        match known.get(&id(entry)) {
            Some((before, secret)) if before == entry => {
                read.insert(id(entry), (entry.clone(), secret.clone()));
            }
            _ => {
                let opening = timeout_at(until, open(entry));
                openings.push(
                    opening.map_ok_or_else(
                        move |_| (entry, None),
                        move |opened| (entry, Some(opened)),
                    ),
                );
            }
        }
    }
    let mut openings = stream::iter(openings).buffer_unordered(CONCURRENT);
    while let Some((entry, opened)) = openings.next().await {
        let (error, try_again) = match opened {
            Some(Ok(secret)) => {
                read.insert(id(entry), (entry.clone(), secret));
                continue;
            }
            Some(Err(error)) => (error.to_string(), error.is_retryable()),
            None => ("no answer in time".to_owned(), true),
        };
        tracing::error!(table, id = %id(entry), error, "credential cannot be decrypted");
        result.unreadable += 1;
        result.try_again |= try_again;
    }
    (read, result)
}

/// Whether a row is what it was.
fn is_same<E: PartialEq, S>(id: Uuid, before: &Read<E, S>, now: &Read<E, S>) -> bool {
    match (before.get(&id), now.get(&id)) {
        (Some((before, _)), Some((now, _))) => before == now,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::config::{BehaviorVersion, Region};
    use spillway_core::security::envelope::Sealed;
    use tokio::net::TcpListener;

    use super::*;
    use crate::directory::index::tests::snapshot;

    /// An envelope whose KMS takes connections and never answers. Opens what the local key sealed, too.
    async fn envelope_of_silent_kms() -> (Envelope, TcpListener) {
        spillway_core::telemetry::install_tls_provider();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .endpoint_url(format!("http://{}", listener.local_addr().unwrap()))
            .credentials_provider(aws_credential_types::Credentials::new(
                "AKIATEST", "secret", None, None, "test",
            ))
            .build();
        let local = "0123456789abcdef0123456789abcdef".into();
        let client = aws_sdk_kms::Client::from_conf(config);
        let envelope = Envelope::kms(client, "key", Some(&local)).unwrap();
        (envelope, listener)
    }

    /// A record with a data key of KMS' (format version 1, kind 2, key id, wrapped data key, ciphertext).
    fn sealed_by_kms() -> Sealed {
        Sealed([&[1, 2, 0, 3], b"key".as_slice(), &[0, 1, 0], &[0; 28]].concat())
    }

    #[tokio::test]
    async fn a_kms_that_is_silent_keeps_only_its_own_credentials_away_and_for_a_bounded_time() {
        let (envelope, _listener) = envelope_of_silent_kms().await;
        let mut snapshot = snapshot().await;
        let mut vault = Vault::new(envelope, "plan.example.com".parse().unwrap());
        assert_eq!(vault.open(&snapshot).await, Opened::default());
        let readable = snapshot.plan_keys.len() + snapshot.bedrock_keys.len();
        for n in 0..100 {
            snapshot.plan_keys.push(PlanKeyEntry {
                id: Uuid::from_u128(1000 + n),
                sealed: sealed_by_kms(),
            });
        }
        let began = std::time::Instant::now();
        let opened = vault.open(&snapshot).await;
        assert!(began.elapsed() < PATIENCE * 2, "{:?}", began.elapsed());
        assert_eq!((opened.unreadable, opened.try_again), (100, true));
        assert_eq!(vault.plan_keys.len() + vault.bedrock_keys.len(), readable);
        // A load that is given up loses nothing.
        assert!(
            tokio::time::timeout(Duration::from_millis(50), vault.open(&snapshot))
                .await
                .is_err()
        );
        assert_eq!(vault.plan_keys.len() + vault.bedrock_keys.len(), readable);
    }
}
