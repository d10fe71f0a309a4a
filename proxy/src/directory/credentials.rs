//! Upstream credentials in memory: decrypted once, and again only when their row changed.

use std::collections::HashMap;
use std::sync::Arc;

use secrecy::SecretString;
use spillway_core::domain::pool::{BedrockKeyEntry, PlanKeyEntry, PoolSnapshot};
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::security::credentials::{BedrockSecret, PlanSecret};
use spillway_core::security::envelope::Envelope;
use url::Url;
use uuid::Uuid;

use crate::call::{BedrockCredential, PlanCredential};

/// Where a Plan key may be sent, and under which id its circuits are kept.
type PlanPlace = (Uuid, Url);
/// A credential in the region that calls are signed for.
type BedrockPlace = (Uuid, String);

/// Opens sealed credentials and keeps them.
#[derive(Debug)]
pub(super) struct Vault {
    envelope: Envelope,
    allowed: AllowedUpstreams,
    plan_keys: HashMap<Uuid, (PlanKeyEntry, SecretString)>,
    bedrock_keys: HashMap<Uuid, (BedrockKeyEntry, BedrockSecret)>,
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

    /// Opens what is new or changed in `snapshot` and forgets what is gone from it.
    pub(super) async fn open(&mut self, snapshot: &PoolSnapshot) -> Opened {
        let mut result = Opened::default();
        let mut known = std::mem::take(&mut self.plan_keys);
        for entry in &snapshot.plan_keys {
            let secret = match known.remove(&entry.id) {
                Some((before, secret)) if before == *entry => Ok(secret),
                _ => {
                    self.plan.retain(|(id, _), _| *id != entry.id);
                    PlanSecret::open(&self.envelope, entry.id, &entry.sealed)
                        .await
                        .map(|secret| secret.0)
                }
            };
            match secret {
                Ok(secret) => drop(self.plan_keys.insert(entry.id, (entry.clone(), secret))),
                Err(error) => {
                    tracing::error!(plan_key = %entry.id, error = %error, "plan key cannot be decrypted");
                    result.unreadable += 1;
                    result.try_again |= error.is_retryable();
                }
            }
        }
        let mut known = std::mem::take(&mut self.bedrock_keys);
        for entry in &snapshot.bedrock_keys {
            let secret = match known.remove(&entry.id) {
                Some((before, secret)) if before == *entry => Ok(secret),
                _ => {
                    self.bedrock.retain(|(id, _), _| *id != entry.id);
                    BedrockSecret::open(&self.envelope, entry.id, &entry.sealed).await
                }
            };
            match secret {
                Ok(secret) => drop(self.bedrock_keys.insert(entry.id, (entry.clone(), secret))),
                Err(error) => {
                    tracing::error!(bedrock_key = %entry.id, error = %error, "bedrock credential cannot be decrypted");
                    result.unreadable += 1;
                    result.try_again |= error.is_retryable();
                }
            }
        }
        // What the environment gives is kept under the pool's id.
        let pool = snapshot.pool.id;
        self.plan
            .retain(|(id, _), _| *id == pool || self.plan_keys.contains_key(id));
        self.bedrock
            .retain(|(id, _), _| *id == pool || self.bedrock_keys.contains_key(id));
        result
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
