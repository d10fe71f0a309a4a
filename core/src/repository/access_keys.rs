//! `AccessKey` rows and the versions of each: the keys that clients send.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

use super::error::{RepositoryError, Result};
use super::{Origin, Upserted};
use crate::security::hasher::KeyHash;

/// An access key as stored, or to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKeyRow {
    /// The user that `userRef` resolved to.
    pub user_id: Uuid,
    /// `disabled`.
    pub disabled: bool,
    /// `expiresAt`.
    pub expires_at: Option<DateTime<Utc>>,
    /// `allowedModels`.
    pub allowed_models: Vec<String>,
    /// The credential that `bedrockCredentialRef` resolved to.
    pub bedrock_key_id: Option<Uuid>,
}

/// A living version of an access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The public part.
    pub key_id: String,
    /// The stored form.
    pub key_hash: KeyHash,
    /// The hasher secret it was made with.
    pub hasher_id: String,
    /// When it ends, for one that was replaced.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was stored; ignored when storing.
    pub created_at: DateTime<Utc>,
}

/// The living access key of a resource name: id, uid and settings.
pub async fn find(
    connection: &mut PgConnection,
    cluster_id: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<(Uuid, String, AccessKeyRow)>> {
    let row = sqlx::query!(
        "SELECT id, uid, user_id, disabled, expires_at, allowed_models, bedrock_key_id FROM access_keys
         WHERE cluster_id = $1 AND namespace = $2 AND name = $3 AND deleted_at IS NULL",
        cluster_id,
        namespace,
        name,
    )
    .fetch_optional(connection)
    .await
    .map_err(RepositoryError::during("read an access key"))?;
    Ok(row.map(|row| {
        let key = AccessKeyRow {
            user_id: row.user_id,
            disabled: row.disabled,
            expires_at: row.expires_at,
            allowed_models: row.allowed_models,
            bedrock_key_id: row.bedrock_key_id,
        };
        (row.id, row.uid, key)
    }))
}

/// The living versions of an access key, newest first.
pub async fn versions(connection: &mut PgConnection, access_key_id: Uuid) -> Result<Vec<Version>> {
    let rows = sqlx::query!(
        "SELECT key_id, key_hash, hasher_id, expires_at, created_at FROM access_key_versions
         WHERE access_key_id = $1 AND deleted_at IS NULL ORDER BY created_at DESC, id",
        access_key_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("read key versions"))?;
    rows.into_iter()
        .map(|row| {
            let key_hash =
                row.key_hash
                    .try_into()
                    .map(KeyHash)
                    .map_err(|_| RepositoryError::Unreadable {
                        table: "access_key_versions",
                        problem: "a hash that is not 32 bytes".to_owned(),
                    })?;
            Ok(Version {
                key_id: row.key_id,
                key_hash,
                hasher_id: row.hasher_id,
                expires_at: row.expires_at,
                created_at: row.created_at,
            })
        })
        .collect()
}

/// Stores an access key with exactly these living versions, and writes only what differs. A living row of the same name
/// and another uid belongs to a deleted resource and ends.
pub async fn upsert(
    connection: &mut PgConnection,
    origin: &Origin,
    key: &AccessKeyRow,
    wanted: &[Version],
) -> Result<Upserted> {
    let Origin {
        cluster_id,
        namespace,
        name,
        uid,
    } = origin;
    let (id, same) = match find(connection, cluster_id, namespace, name).await? {
        Some((id, stored_uid, stored)) if stored_uid == *uid => (id, stored == *key),
        Some((_, stored_uid, _)) => {
            soft_delete(connection, cluster_id, &stored_uid).await?;
            (Uuid::new_v4(), false)
        }
        None => (Uuid::new_v4(), false),
    };
    if !same {
        sqlx::query!(
            "INSERT INTO access_keys (id, cluster_id, namespace, name, uid, user_id, disabled, expires_at, allowed_models, bedrock_key_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (id) DO UPDATE
             SET user_id = excluded.user_id, disabled = excluded.disabled, expires_at = excluded.expires_at,
                 allowed_models = excluded.allowed_models, bedrock_key_id = excluded.bedrock_key_id, updated_at = now()",
            id,
            cluster_id,
            namespace,
            name,
            uid,
            key.user_id,
            key.disabled,
            key.expires_at,
            &key.allowed_models,
            key.bedrock_key_id,
        )
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during("store an access key"))?;
    }
    let versions_changed = put_versions(connection, id, key.user_id, wanted).await?;
    Ok(Upserted {
        id,
        changed: !same || versions_changed,
    })
}

async fn put_versions(
    connection: &mut PgConnection,
    access_key_id: Uuid,
    user_id: Uuid,
    wanted: &[Version],
) -> Result<bool> {
    let hashes: Vec<Vec<u8>> = wanted
        .iter()
        .map(|version| version.key_hash.0.to_vec())
        .collect();
    let mut changed = sqlx::query!(
        "UPDATE access_key_versions SET deleted_at = now(), updated_at = now()
         WHERE access_key_id = $1 AND deleted_at IS NULL AND NOT (key_hash = ANY ($2))",
        access_key_id,
        &hashes,
    )
    .execute(&mut *connection)
    .await
    .map_err(RepositoryError::during("end key versions"))?
    .rows_affected();
    for version in wanted {
        changed += sqlx::query!(
            "UPDATE access_key_versions SET expires_at = $3, pool_id = u.pool_id, updated_at = now() FROM users u
             WHERE access_key_id = $1 AND key_hash = $2 AND access_key_versions.deleted_at IS NULL AND u.id = $4
               AND (expires_at, access_key_versions.pool_id) IS DISTINCT FROM ($3, u.pool_id)",
            access_key_id,
            version.key_hash.0.as_slice(),
            version.expires_at,
            user_id,
        )
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during_key_write("change a key version"))?
        .rows_affected();
        changed += sqlx::query!(
            "INSERT INTO access_key_versions (access_key_id, pool_id, key_id, key_hash, hasher_id, expires_at)
             SELECT $1, u.pool_id, $2, $3, $4, $5 FROM users u
             WHERE u.id = $6 AND NOT EXISTS (
                 SELECT FROM access_key_versions v WHERE v.access_key_id = $1 AND v.key_hash = $3 AND v.deleted_at IS NULL)",
            access_key_id,
            version.key_id,
            version.key_hash.0.as_slice(),
            version.hasher_id,
            version.expires_at,
            user_id,
        )
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during_key_write("store a key version"))?
        .rows_affected();
    }
    Ok(changed > 0)
}

/// Ends the access key of a deleted resource with its versions. Returns whether there was one.
pub async fn soft_delete(
    connection: &mut PgConnection,
    cluster_id: &str,
    uid: &str,
) -> Result<bool> {
    let ended = sqlx::query_scalar!(
        r#"WITH ended AS (
             UPDATE access_keys SET deleted_at = now(), updated_at = now() WHERE cluster_id = $1 AND uid = $2 AND deleted_at IS NULL RETURNING id
           ), versions AS (
             UPDATE access_key_versions SET deleted_at = now(), updated_at = now()
             WHERE access_key_id IN (SELECT id FROM ended) AND deleted_at IS NULL
           )
           SELECT count(*) AS "count!" FROM ended"#,
        cluster_id,
        uid,
    )
    .fetch_one(connection)
    .await
    .map_err(RepositoryError::during("delete an access key"))?;
    Ok(ended > 0)
}

/// Stores when an access key is refused, and nothing else: what this resolves to is not waited for.
pub async fn restrict(
    connection: &mut PgConnection,
    id: Uuid,
    disabled: bool,
    expires_at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query!(
        "UPDATE access_keys SET disabled = $2, expires_at = $3, updated_at = now() WHERE id = $1 AND deleted_at IS NULL",
        id,
        disabled,
        expires_at,
    )
    .execute(connection)
    .await
    .map_err(RepositoryError::during("restrict an access key"))?;
    Ok(())
}

/// An access key that has, or had, a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The resource's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Whether the key and the access key are living.
    pub is_living: bool,
}

/// The access keys that have a hash in Postgres, ended ones included.
pub async fn holders(
    connection: &mut PgConnection,
    cluster_id: &str,
    hash: &KeyHash,
) -> Result<Vec<Holder>> {
    sqlx::query_as!(
        Holder,
        r#"SELECT k.namespace, k.name, k.uid, bool_or(k.deleted_at IS NULL AND v.deleted_at IS NULL) AS "is_living!"
           FROM access_key_versions v JOIN access_keys k ON k.id = v.access_key_id
           WHERE k.cluster_id = $1 AND v.key_hash = $2 GROUP BY k.namespace, k.name, k.uid"#,
        cluster_id,
        hash.0.as_slice(),
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("look a key hash up"))
}

/// Namespace and uid of every living row of a cluster.
pub async fn living(
    connection: &mut PgConnection,
    cluster_id: &str,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "SELECT namespace, uid FROM access_keys WHERE cluster_id = $1 AND deleted_at IS NULL",
        cluster_id
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("list access keys"))?;
    Ok(rows
        .into_iter()
        .map(|row| (row.namespace, row.uid))
        .collect())
}
