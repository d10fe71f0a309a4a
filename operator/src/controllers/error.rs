//! Why a reconciliation could not be finished. All of these are tried again.

use spillway_core::repository::RepositoryError;
use spillway_core::security::envelope::EnvelopeError;
use spillway_core::security::key::KeyError;

use super::world::WorldError;
use crate::database::DatabaseAway;
use crate::master_secrets::CopyError;

/// Why a reconciliation could not be finished.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Postgres cannot be written to.
    #[error(transparent)]
    DatabaseAway(#[from] DatabaseAway),
    /// Postgres refused or went away.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// What is outside Postgres could not be read or written.
    #[error(transparent)]
    World(#[from] WorldError),
    /// A credential could not be sealed.
    #[error("a credential could not be encrypted: {0}")]
    Seal(#[source] EnvelopeError),
    /// A key could not be minted.
    #[error("a key could not be made: {0}")]
    Mint(#[source] KeyError),
    /// The master secrets are not in the pool's namespace.
    #[error(transparent)]
    MasterSecrets(#[from] CopyError),
    /// Each step led to another one.
    #[error("the resource did not come to rest")]
    Unsettled,
}

impl ReconcileError {
    /// One of a few words for metrics and conditions.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::DatabaseAway(_) | Self::Repository(RepositoryError::Unavailable { .. }) => {
                "DatabaseUnavailable"
            }
            Self::Repository(RepositoryError::Deposed { .. }) => "Deposed",
            Self::Repository(RepositoryError::DuplicateKey) => "KeyInUse",
            Self::Repository(_) => "DatabaseError",
            Self::World(_) => "ApiError",
            Self::Seal(_) => "EncryptionFailed",
            Self::Mint(_) => "MintingFailed",
            Self::MasterSecrets(_) => "MasterSecretConflict",
            Self::Unsettled => "Unsettled",
        }
    }

    /// Whether it passes when the database returns.
    pub const fn is_database_away(&self) -> bool {
        matches!(
            self,
            Self::DatabaseAway(_) | Self::Repository(RepositoryError::Unavailable { .. })
        )
    }
}
