//! Who may write for a cluster: an epoch per cluster, held by every writing transaction.

use sqlx::{PgPool, Postgres, Transaction};

use super::error::{RepositoryError, Result};

/// The right to write for a cluster, until somebody acquires a newer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// The cluster.
    pub cluster_id: String,
    /// The epoch that was acquired.
    pub epoch: i64,
}

/// Takes over a cluster: waits for writing transactions of former holders, and refuses their later ones.
pub async fn acquire(pool: &PgPool, cluster_id: &str, holder: &str) -> Result<Fence> {
    let epoch = sqlx::query_scalar!(
        "INSERT INTO operator_epochs (cluster_id, epoch, holder) VALUES ($1, 1, $2)
         ON CONFLICT (cluster_id) DO UPDATE SET epoch = operator_epochs.epoch + 1, holder = $2, updated_at = now()
         RETURNING epoch",
        cluster_id,
        holder,
    )
    .fetch_one(pool)
    .await
    .map_err(RepositoryError::during("take over the cluster"))?;
    Ok(Fence {
        cluster_id: cluster_id.to_owned(),
        epoch,
    })
}

/// Begins a transaction that commits only under `fence`: it fails with [`RepositoryError::Deposed`] when a newer epoch is
/// in force, and a newer epoch waits for it otherwise.
pub async fn fenced(pool: &PgPool, fence: &Fence) -> Result<Transaction<'static, Postgres>> {
    let mut transaction = pool
        .begin()
        .await
        .map_err(RepositoryError::during("begin a transaction"))?;
    let found = sqlx::query_scalar!(
        "SELECT epoch FROM operator_epochs WHERE cluster_id = $1 FOR SHARE",
        fence.cluster_id
    )
    .fetch_optional(&mut *transaction)
    .await
    .map_err(RepositoryError::during("check the epoch"))?
    .unwrap_or(0);
    if found == fence.epoch {
        Ok(transaction)
    } else {
        Err(RepositoryError::Deposed {
            ours: fence.epoch,
            found,
        })
    }
}

/// Commits, with errors sorted as everywhere.
pub async fn commit(transaction: Transaction<'_, Postgres>) -> Result<()> {
    transaction
        .commit()
        .await
        .map_err(RepositoryError::during("commit"))
}
