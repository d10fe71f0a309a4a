//! `BedrockCredential` rows.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::{RepositoryError, Result};
use super::{Origin, Upserted};
use crate::security::envelope::Sealed;

/// A stored credential, without the secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BedrockKeyRow {
    /// The row.
    pub id: Uuid,
    /// The resource's uid.
    pub uid: String,
    /// `region`.
    pub region: String,
    /// `endpointUrl`.
    pub endpoint_url: Option<String>,
    /// `access_keys`, `api_key` or `pod_identity`.
    pub auth_kind: String,
    /// The Secret's resourceVersion.
    pub secret_version: Option<String>,
    /// Keyed hash of the plaintext.
    pub fingerprint: Vec<u8>,
    /// The wrapping key.
    pub encrypted_with: String,
}

/// A credential to store.
#[derive(Debug, Clone)]
pub struct NewBedrockKey {
    /// The row's id, which `sealed` is bound to: the living row's own, else a new one.
    pub id: Uuid,
    /// The resource.
    pub origin: Origin,
    /// `region`.
    pub region: String,
    /// `endpointUrl`.
    pub endpoint_url: Option<String>,
    /// `access_keys`, `api_key` or `pod_identity`.
    pub auth_kind: &'static str,
    /// The Secret's resourceVersion.
    pub secret_version: Option<String>,
    /// Keyed hash of the plaintext.
    pub fingerprint: Vec<u8>,
    /// The ciphertext.
    pub sealed: Sealed,
    /// The wrapping key.
    pub encrypted_with: String,
}

/// The living credential of a resource name.
pub async fn find(
    connection: &mut PgConnection,
    cluster_id: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<BedrockKeyRow>> {
    sqlx::query_as!(
        BedrockKeyRow,
        "SELECT id, uid, region, endpoint_url, auth_kind, secret_version, fingerprint, encrypted_with FROM bedrock_keys
         WHERE cluster_id = $1 AND namespace = $2 AND name = $3 AND deleted_at IS NULL",
        cluster_id,
        namespace,
        name,
    )
    .fetch_optional(connection)
    .await
    .map_err(RepositoryError::during("read a Bedrock credential"))
}

/// Stores a credential. A living row of the same name and another uid belongs to a deleted resource and ends.
pub async fn upsert(connection: &mut PgConnection, new: &NewBedrockKey) -> Result<Upserted> {
    let Origin {
        cluster_id,
        namespace,
        name,
        uid,
    } = &new.origin;
    sqlx::query!(
        "UPDATE bedrock_keys SET deleted_at = now(), updated_at = now()
         WHERE cluster_id = $1 AND namespace = $2 AND name = $3 AND deleted_at IS NULL AND id <> $4",
        cluster_id,
        namespace,
        name,
        new.id,
    )
    .execute(&mut *connection)
    .await
    .map_err(RepositoryError::during("replace a Bedrock credential"))?;
    let id = sqlx::query_scalar!(
        "INSERT INTO bedrock_keys (id, cluster_id, namespace, name, uid, region, endpoint_url, auth_kind, secret_version, fingerprint, sealed, encrypted_with)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE
         SET uid = excluded.uid, region = excluded.region, endpoint_url = excluded.endpoint_url, auth_kind = excluded.auth_kind,
             secret_version = excluded.secret_version, fingerprint = excluded.fingerprint, sealed = excluded.sealed,
             encrypted_with = excluded.encrypted_with, updated_at = now()
         RETURNING id",
        new.id,
        cluster_id,
        namespace,
        name,
        uid,
        new.region,
        new.endpoint_url,
        new.auth_kind,
        new.secret_version,
        new.fingerprint,
        new.sealed.0,
        new.encrypted_with,
    )
    .fetch_one(connection)
    .await
    .map_err(RepositoryError::during("store a Bedrock credential"))?;
    Ok(Upserted { id, changed: true })
}

/// Ends the credential of a deleted resource. Returns whether there was one.
pub async fn soft_delete(
    connection: &mut PgConnection,
    cluster_id: &str,
    uid: &str,
) -> Result<bool> {
    sqlx::query!(
        "UPDATE bedrock_keys SET deleted_at = now(), updated_at = now() WHERE cluster_id = $1 AND uid = $2 AND deleted_at IS NULL",
        cluster_id,
        uid,
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() > 0)
    .map_err(RepositoryError::during("delete a Bedrock credential"))
}

/// How many pools, living users and living access keys name a credential.
pub async fn used_by(connection: &mut PgConnection, id: Uuid) -> Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT (SELECT count(*) FROM pools WHERE bedrock_key_id = $1)
                + (SELECT count(*) FROM users WHERE bedrock_key_id = $1 AND deleted_at IS NULL)
                + (SELECT count(*) FROM access_keys WHERE bedrock_key_id = $1 AND deleted_at IS NULL) AS "count!""#,
        id,
    )
    .fetch_one(connection)
    .await
    .map_err(RepositoryError::during("count who names a credential"))
}

/// Namespace and uid of every living row of a cluster.
pub async fn living(
    connection: &mut PgConnection,
    cluster_id: &str,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "SELECT namespace, uid FROM bedrock_keys WHERE cluster_id = $1 AND deleted_at IS NULL",
        cluster_id
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("list Bedrock credentials"))?;
    Ok(rows
        .into_iter()
        .map(|row| (row.namespace, row.uid))
        .collect())
}
