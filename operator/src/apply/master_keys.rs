//! The master secrets of `apply`: given by the environment, and compared with what the rows were made with.

use std::sync::Arc;

use aws_config::BehaviorVersion;
use spillway_core::domain::pool::{KeyCheck, SecretKind};
use spillway_core::repository::{RepositoryError, key_checks, leadership};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;

use super::settings::ApplySettings;
use crate::controllers::outcome::Rows;

/// Why the master secrets cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// A value has the wrong form.
    #[error("{variable}: {problem}")]
    Malformed {
        /// The variable.
        variable: &'static str,
        /// What is wrong, without the value.
        problem: String,
    },
    /// A value is not the one that the rows were made with.
    #[error(
        "{variable}: secret id {id} is not the one that this database was written with. Give the former value, or give the new \
         one a new id in front of the former: `new-id:new,{id}:former`"
    )]
    Mismatch {
        /// The variable.
        variable: &'static str,
        /// The secret's id.
        id: String,
    },
    /// Postgres could not be asked.
    #[error(transparent)]
    Database(#[from] RepositoryError),
}

/// Hasher and envelope from the environment.
pub(super) async fn build(
    settings: &ApplySettings,
) -> Result<(Arc<KeyHasher>, Arc<Envelope>), MasterKeyError> {
    let malformed = |kind: SecretKind, problem: String| MasterKeyError::Malformed {
        variable: kind.variable(),
        problem,
    };
    let hasher = KeyHasher::from_config(&settings.hasher)
        .map_err(|error| malformed(SecretKind::Hasher, error.to_string()))?;
    let local = settings.encryption.as_ref();
    let envelope = match (&settings.kms_key_id, local) {
        (Some(key_id), _) => {
            let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
            Envelope::kms(aws_sdk_kms::Client::new(&config), key_id, local)
        }
        (None, Some(local)) => Envelope::local(local),
        (None, None) => return Err(malformed(SecretKind::Encryption, "is not set".to_owned())),
    };
    let envelope =
        envelope.map_err(|error| malformed(SecretKind::Encryption, error.to_string()))?;
    Ok((Arc::new(hasher), Arc::new(envelope)))
}

/// Compares the check values with those in Postgres, and remembers new ones. Writes only what is new.
pub(super) async fn verify(rows: &Rows) -> Result<(), MasterKeyError> {
    let hasher = rows
        .hasher
        .check_values()
        .map(|(id, value)| (SecretKind::Hasher, id.to_owned(), value));
    let envelope = rows
        .envelope
        .check_values()
        .into_iter()
        .map(|(id, value)| (SecretKind::Encryption, id, value));
    let mut transaction = rows.begin().await?;
    for (kind, secret_id, value) in hasher.chain(envelope) {
        let check = KeyCheck {
            kind,
            secret_id,
            value,
        };
        if key_checks::remember(&mut transaction, rows.cluster_id(), &check).await? != check.value {
            return Err(MasterKeyError::Mismatch {
                variable: kind.variable(),
                id: check.secret_id,
            });
        }
    }
    Ok(leadership::commit(transaction).await?)
}
