//! Anthropic API keys that pools and users name.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::{RepositoryError, Result};
use super::{Origin, Upserted};
use crate::security::envelope::Sealed;

/// A stored Plan key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanKeyRow {
    /// The row.
    pub id: Uuid,
    /// The Secret's uid.
    pub uid: String,
    /// The Secret's resourceVersion.
    pub secret_version: String,
    /// Keyed hash of the plaintext.
    pub fingerprint: Vec<u8>,
    /// The wrapping key.
    pub encrypted_with: String,
}

/// A Plan key to store.
#[derive(Debug, Clone)]
pub struct NewPlanKey {
    /// The row's id, which `sealed` is bound to: an existing row's own, else a new one.
    pub id: Uuid,
    /// The Secret.
    pub secret: Origin,
    /// The key within the Secret.
    pub secret_key: String,
    /// The Secret's resourceVersion.
    pub secret_version: String,
    /// Keyed hash of the plaintext.
    pub fingerprint: Vec<u8>,
    /// The ciphertext.
    pub sealed: Sealed,
    /// The wrapping key.
    pub encrypted_with: String,
}

/// The stored Plan key of one key of a Secret.
pub async fn find(
    connection: &mut PgConnection,
    cluster_id: &str,
    namespace: &str,
    secret: &str,
    key: &str,
) -> Result<Option<PlanKeyRow>> {
    sqlx::query_as!(
        PlanKeyRow,
        "SELECT id, uid, secret_version, fingerprint, encrypted_with FROM plan_keys
         WHERE cluster_id = $1 AND namespace = $2 AND name = $3 AND secret_key = $4",
        cluster_id,
        namespace,
        secret,
        key,
    )
    .fetch_optional(connection)
    .await
    .map_err(RepositoryError::during("read a Plan key"))
}

/// Stores a Plan key, replacing that of the same Secret and key. What was found out about another key closes with it: its
/// circuits.
pub async fn upsert(connection: &mut PgConnection, new: &NewPlanKey) -> Result<Upserted> {
    sqlx::query!(
        "DELETE FROM circuit_states c USING plan_keys k
         WHERE k.id = $1 AND k.fingerprint <> $2 AND c.credential_id = k.id",
        new.id,
        new.fingerprint,
    )
    .execute(&mut *connection)
    .await
    .map_err(RepositoryError::during(
        "close the circuits of a former Plan key",
    ))?;
    let id = sqlx::query_scalar!(
        "INSERT INTO plan_keys (id, cluster_id, namespace, name, secret_key, uid, secret_version, fingerprint, sealed, encrypted_with)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
         ON CONFLICT (cluster_id, namespace, name, secret_key) DO UPDATE
         SET uid = excluded.uid, secret_version = excluded.secret_version, fingerprint = excluded.fingerprint,
             sealed = excluded.sealed, encrypted_with = excluded.encrypted_with, updated_at = now()
         WHERE plan_keys.id = excluded.id
         RETURNING id",
        new.id,
        new.secret.cluster_id,
        new.secret.namespace,
        new.secret.name,
        new.secret_key,
        new.secret.uid,
        new.secret_version,
        new.fingerprint,
        new.sealed.0,
        new.encrypted_with,
    )
    .fetch_optional(connection)
    .await
    .map_err(RepositoryError::during("store a Plan key"))?;
    // Another writer stored the same key under another id: ours is bound to a row that does not exist. Reconciling again mends it.
    id.map(|id| Upserted { id, changed: true })
        .ok_or(RepositoryError::Unreadable {
            table: "plan_keys",
            problem: "the same Secret key was stored meanwhile under another id".to_owned(),
        })
}

/// Deletes a cluster's Plan keys that no pool and no living user refers to, and their circuits. Returns how many.
pub async fn prune(connection: &mut PgConnection, cluster_id: &str) -> Result<u64> {
    sqlx::query_scalar!(
        r#"WITH gone AS (
             DELETE FROM plan_keys k WHERE k.cluster_id = $1
               AND NOT EXISTS (SELECT FROM pools p WHERE p.plan_key_id = k.id)
               AND NOT EXISTS (SELECT FROM users u WHERE u.plan_key_id = k.id AND u.deleted_at IS NULL)
             RETURNING id
           ), circuits AS (
             DELETE FROM circuit_states c USING gone WHERE c.credential_id = gone.id
           )
           SELECT count(*) AS "count!" FROM gone"#,
        cluster_id,
    )
    .fetch_one(connection)
    .await
    .map(|count| u64::try_from(count).unwrap_or(0))
    .map_err(RepositoryError::during("delete unused Plan keys"))
}
