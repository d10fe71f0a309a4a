//! The master secrets: what access keys are hashed with and credentials are encrypted with.
//!
//! They are given, or the operator makes each of them once, in its own namespace. Everything in Postgres depends on
//! them, so they are never overwritten and never made a second time: Postgres keeps a check value per secret id, and an
//! operator whose secrets differ, or are gone, refuses to work. Each pool namespace gets copies for its proxies.

mod copies;
mod store;

use std::sync::Arc;

use aws_config::BehaviorVersion;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use kube::Client;
use secrecy::SecretString;
use spillway_core::domain::pool::{KeyCheck, SecretKind};
use spillway_core::repository::leadership::{self, Fence};
use spillway_core::repository::{PgPool, RepositoryError, key_checks};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use zeroize::Zeroizing;

pub use copies::{CopyError, MasterSecretRefs};
pub use store::{COPIED_FROM_ANNOTATION, PURPOSE_ANNOTATION, StoreError};

use crate::settings::GivenSecrets;

/// The id of the first secret that the operator makes.
const FIRST_ID: &str = "1";

/// The Secret that holds the master secret of `kind`; its entry is named like the variable.
pub const fn secret_name(kind: SecretKind) -> &'static str {
    match kind {
        SecretKind::Hasher => "spillway-key-hasher",
        SecretKind::Encryption => "spillway-local-encryption",
    }
}

/// Why the master secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterSecretError {
    /// A Secret could not be read or made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Postgres could not be asked.
    #[error("the check values of the master secrets could not be read or stored")]
    Database(#[from] RepositoryError),
    /// The value has the wrong form.
    #[error("{place}: {problem}")]
    Malformed {
        /// Where the value is.
        place: String,
        /// What is wrong with it, without the value.
        problem: String,
    },
    /// The value is not the one that the rows in Postgres were made with.
    #[error(
        "{place}: secret id {id} is not the one that this database was written with. Put the former value back (from a \
         backup of the Secret), or give the new one a new id in front of the former: `new-id:new,{id}:former`"
    )]
    Mismatch {
        /// Where the value is.
        place: String,
        /// The id of the secret.
        id: String,
    },
    /// The Secret is gone, and Postgres has rows that were made with it.
    #[error(
        "{place} is gone, and this database was written with it. Restore the Secret from a backup, or copy it back from a \
         pool namespace; a new one would make every key and credential in the database useless"
    )]
    Lost {
        /// Where it should be.
        place: String,
    },
    /// The operating system gave no randomness.
    #[error("no randomness could be had from the operating system")]
    Randomness,
}

impl MasterSecretError {
    /// Whether only a person can mend it. The other failures may pass by themselves.
    pub fn is_terminal(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::Mismatch { .. }
            | Self::Lost { .. }
            | Self::Store(StoreError::NoValue { .. }) => true,
            Self::Store(_) | Self::Database(_) | Self::Randomness => false,
        }
    }
}

/// What is made of the verified master secrets.
#[derive(Clone)]
pub struct MasterKeys {
    /// Hashes access keys.
    pub hasher: Arc<KeyHasher>,
    /// Encrypts credentials.
    pub envelope: Arc<Envelope>,
    /// The values as proxies get them.
    values: Arc<[(SecretKind, SecretString)]>,
}

/// Finds, makes, verifies and copies the master secrets.
pub struct MasterSecrets {
    client: Client,
    namespace: String,
    given: GivenSecrets,
    kms_key_id: Option<String>,
}

impl MasterSecrets {
    /// Master secrets of the operator in `namespace`; those that are `given` are not made.
    pub fn new(
        client: Client,
        namespace: String,
        given: GivenSecrets,
        kms_key_id: Option<String>,
    ) -> Self {
        Self {
            client,
            namespace,
            given,
            kms_key_id,
        }
    }

    /// Finds the master secrets, makes those that never were, and compares them with what Postgres remembers. Needs the
    /// schema, and writes under `fence`.
    pub async fn establish(
        &self,
        pool: &PgPool,
        fence: &Fence,
    ) -> Result<MasterKeys, MasterSecretError> {
        let known = key_checks::list(pool, &fence.cluster_id).await?;
        let hasher_value = self.find_or_make(SecretKind::Hasher, &known).await?;
        let encryption_value = match self.kms_key_id {
            // Records that were sealed before KMS was set still need the local key.
            Some(_) => self.find(SecretKind::Encryption).await?,
            None => Some(self.find_or_make(SecretKind::Encryption, &known).await?),
        };
        let hasher = KeyHasher::from_config(&hasher_value)
            .map_err(|error| self.malformed(SecretKind::Hasher, &error))?;
        let envelope = self.envelope(encryption_value.as_ref()).await?;
        self.verify(pool, fence, &hasher, &envelope).await?;
        let values = [
            (SecretKind::Hasher, Some(hasher_value)),
            (SecretKind::Encryption, encryption_value),
        ];
        let values = values
            .into_iter()
            .filter_map(|(kind, value)| Some((kind, value?)))
            .collect();
        Ok(MasterKeys {
            hasher: Arc::new(hasher),
            envelope: Arc::new(envelope),
            values,
        })
    }

    /// When Postgres first saw the newest secret of each kind that is in use.
    pub async fn ages(
        pool: &PgPool,
        cluster_id: &str,
    ) -> Result<Vec<(SecretKind, DateTime<Utc>)>, RepositoryError> {
        key_checks::newest(pool, cluster_id).await
    }

    async fn find(&self, kind: SecretKind) -> Result<Option<SecretString>, MasterSecretError> {
        match self.given(kind) {
            Some(value) => Ok(Some(value.clone())),
            None => Ok(store::read(&self.client, &self.namespace, kind).await?),
        }
    }

    async fn find_or_make(
        &self,
        kind: SecretKind,
        known: &[KeyCheck],
    ) -> Result<SecretString, MasterSecretError> {
        if let Some(value) = self.find(kind).await? {
            return Ok(value);
        }
        if known.iter().any(|check| check.kind == kind) {
            return Err(MasterSecretError::Lost {
                place: self.place(kind),
            });
        }
        let made = generate(kind)?;
        Ok(store::create(&self.client, &self.namespace, kind, &made, None).await?)
    }

    async fn envelope(&self, local: Option<&SecretString>) -> Result<Envelope, MasterSecretError> {
        let envelope = match (&self.kms_key_id, local) {
            (Some(key_id), local) => {
                let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
                Envelope::kms(aws_sdk_kms::Client::new(&config), key_id, local)
            }
            (None, Some(local)) => Envelope::local(local),
            (None, None) => {
                return Err(MasterSecretError::Lost {
                    place: self.place(SecretKind::Encryption),
                });
            }
        };
        envelope.map_err(|error| self.malformed(SecretKind::Encryption, &error))
    }

    /// Compares every secret with what Postgres remembers of its id, and remembers those that are new.
    async fn verify(
        &self,
        pool: &PgPool,
        fence: &Fence,
        hasher: &KeyHasher,
        envelope: &Envelope,
    ) -> Result<(), MasterSecretError> {
        let hasher_checks = hasher
            .check_values()
            .map(|(id, value)| (SecretKind::Hasher, id.to_owned(), value));
        let envelope_checks = envelope
            .check_values()
            .into_iter()
            .map(|(id, value)| (SecretKind::Encryption, id, value));
        let mut transaction = leadership::fenced(pool, fence).await?;
        for (kind, secret_id, value) in hasher_checks.chain(envelope_checks) {
            let check = KeyCheck {
                kind,
                secret_id,
                value,
            };
            if key_checks::remember(&mut transaction, &fence.cluster_id, &check).await?
                != check.value
            {
                return Err(MasterSecretError::Mismatch {
                    place: self.place(kind),
                    id: check.secret_id,
                });
            }
        }
        Ok(leadership::commit(transaction).await?)
    }

    fn given(&self, kind: SecretKind) -> Option<&SecretString> {
        match kind {
            SecretKind::Hasher => self.given.hasher.as_ref(),
            SecretKind::Encryption => self.given.encryption.as_ref(),
        }
    }

    /// Where the value is, as a person would look for it.
    fn place(&self, kind: SecretKind) -> String {
        match self.given(kind) {
            Some(_) => format!("{} of the operator's environment", kind.variable()),
            None => format!(
                "Secret {}/{}, key {}",
                self.namespace,
                secret_name(kind),
                kind.variable()
            ),
        }
    }

    fn malformed(
        &self,
        kind: SecretKind,
        error: &(impl std::error::Error + ?Sized),
    ) -> MasterSecretError {
        MasterSecretError::Malformed {
            place: self.place(kind),
            problem: error.to_string(),
        }
    }
}

/// A fresh secret of 256 bits with the first id.
fn generate(kind: SecretKind) -> Result<SecretString, MasterSecretError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|_| MasterSecretError::Randomness)?;
    let text = Zeroizing::new(match kind {
        SecretKind::Hasher => URL_SAFE_NO_PAD.encode(bytes.as_ref()),
        SecretKind::Encryption => STANDARD.encode(bytes.as_ref()),
    });
    Ok(SecretString::from(format!("{FIRST_ID}:{}", text.as_str())))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn generated_secrets_are_usable_and_differ() {
        let hasher = generate(SecretKind::Hasher).unwrap();
        assert_eq!(
            KeyHasher::from_config(&hasher).unwrap().hash("key").1,
            FIRST_ID
        );
        let encryption = generate(SecretKind::Encryption).unwrap();
        assert_eq!(
            Envelope::local(&encryption).unwrap().encrypted_with(),
            "local:1"
        );
        assert_ne!(
            hasher.expose_secret(),
            generate(SecretKind::Hasher).unwrap().expose_secret()
        );
    }
}
