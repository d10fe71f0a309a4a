//! All that a pool's proxies serve by, read in one transaction.

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::error::{RepositoryError, Result};
use super::models::patterns;
use super::{key_checks, pools};
use crate::domain::pool::{
    AccessKeyEntry, BedrockKeyEntry, KeyVersionEntry, PlanKeyEntry, PoolSnapshot, UserEntry,
};
use crate::security::envelope::Sealed;
use crate::security::hasher::KeyHash;

/// The snapshot of a pool, or `None` when there is no such pool.
pub async fn load(
    pool: &PgPool,
    cluster_id: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<PoolSnapshot>> {
    let mut transaction = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        .await
        .map_err(RepositoryError::during("load the pool"))?;
    let Some((_, config)) = pools::find(&mut transaction, cluster_id, namespace, name).await?
    else {
        return Ok(None);
    };
    let id = config.id;
    let snapshot = PoolSnapshot {
        users: users(&mut transaction, id).await?,
        access_keys: access_keys(&mut transaction, id).await?,
        versions: versions(&mut transaction, id).await?,
        plan_keys: plan_keys(&mut transaction, id).await?,
        bedrock_keys: bedrock_keys(&mut transaction, id).await?,
        key_checks: key_checks::list_on(&mut transaction, cluster_id).await?,
        pool: config,
    };
    transaction
        .commit()
        .await
        .map_err(RepositoryError::during("load the pool"))?;
    Ok(Some(snapshot))
}

async fn users(connection: &mut PgConnection, pool_id: Uuid) -> Result<Vec<UserEntry>> {
    sqlx::query!(
        "SELECT id, namespace, name, suspended, allowed_models, plan_key_id, bedrock_key_id FROM users
         WHERE pool_id = $1 AND deleted_at IS NULL",
        pool_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("load users"))?
    .into_iter()
    .map(|row| {
        Ok(UserEntry {
            id: row.id,
            namespace: row.namespace,
            name: row.name,
            suspended: row.suspended,
            allowed_models: patterns("users", &row.allowed_models)?,
            plan_key_id: row.plan_key_id,
            bedrock_key_id: row.bedrock_key_id,
        })
    })
    .collect()
}

async fn access_keys(connection: &mut PgConnection, pool_id: Uuid) -> Result<Vec<AccessKeyEntry>> {
    sqlx::query!(
        "SELECT k.id, k.user_id, k.name, k.disabled, k.expires_at, k.allowed_models,
                COALESCE(own.id, k.bedrock_key_id) AS bedrock_key_id
         FROM access_keys k
         JOIN users u ON u.id = k.user_id AND u.deleted_at IS NULL
         LEFT JOIN bedrock_keys own ON own.access_key_id = k.id AND own.deleted_at IS NULL
         WHERE u.pool_id = $1 AND k.deleted_at IS NULL",
        pool_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("load access keys"))?
    .into_iter()
    .map(|row| {
        Ok(AccessKeyEntry {
            id: row.id,
            user_id: row.user_id,
            name: row.name,
            disabled: row.disabled,
            expires_at: row.expires_at,
            allowed_models: patterns("access_keys", &row.allowed_models)?,
            bedrock_key_id: row.bedrock_key_id,
        })
    })
    .collect()
}

async fn versions(connection: &mut PgConnection, pool_id: Uuid) -> Result<Vec<KeyVersionEntry>> {
    sqlx::query!(
        "SELECT v.access_key_id, v.key_id, v.key_hash, v.expires_at FROM access_key_versions v
         JOIN access_keys k ON k.id = v.access_key_id AND k.deleted_at IS NULL
         JOIN users u ON u.id = k.user_id AND u.deleted_at IS NULL
         WHERE u.pool_id = $1 AND v.deleted_at IS NULL",
        pool_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("load key versions"))?
    .into_iter()
    .map(|row| {
        let key_hash =
            row.key_hash
                .try_into()
                .map(KeyHash)
                .map_err(|_| RepositoryError::Unreadable {
                    table: "access_key_versions",
                    problem: "a hash that is not 32 bytes".to_owned(),
                })?;
        Ok(KeyVersionEntry {
            access_key_id: row.access_key_id,
            key_id: row.key_id,
            key_hash,
            expires_at: row.expires_at,
        })
    })
    .collect()
}

async fn plan_keys(connection: &mut PgConnection, pool_id: Uuid) -> Result<Vec<PlanKeyEntry>> {
    let rows = sqlx::query!(
        "SELECT id, sealed FROM plan_keys
         WHERE id IN (SELECT plan_key_id FROM pools WHERE id = $1
                      UNION SELECT plan_key_id FROM users WHERE pool_id = $1 AND deleted_at IS NULL)",
        pool_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("load Plan keys"))?;
    Ok(rows
        .into_iter()
        .map(|row| PlanKeyEntry {
            id: row.id,
            sealed: Sealed(row.sealed),
        })
        .collect())
}

async fn bedrock_keys(
    connection: &mut PgConnection,
    pool_id: Uuid,
) -> Result<Vec<BedrockKeyEntry>> {
    let rows = sqlx::query!(
        "SELECT b.id, b.region, b.endpoint_url, b.sealed FROM bedrock_keys b
         WHERE b.deleted_at IS NULL AND (
             b.id IN (SELECT bedrock_key_id FROM pools WHERE id = $1
                      UNION SELECT bedrock_key_id FROM users WHERE pool_id = $1 AND deleted_at IS NULL
                      UNION SELECT k.bedrock_key_id FROM access_keys k JOIN users u ON u.id = k.user_id
                            WHERE u.pool_id = $1 AND u.deleted_at IS NULL AND k.deleted_at IS NULL)
             OR b.access_key_id IN (SELECT k.id FROM access_keys k JOIN users u ON u.id = k.user_id
                                    WHERE u.pool_id = $1 AND u.deleted_at IS NULL AND k.deleted_at IS NULL))",
        pool_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("load Bedrock credentials"))?;
    Ok(rows
        .into_iter()
        .map(|row| BedrockKeyEntry {
            id: row.id,
            region: row.region,
            endpoint_url: row.endpoint_url,
            sealed: Sealed(row.sealed),
        })
        .collect())
}

/// What decides whether a living key of a living user may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyStanding {
    /// `suspended` of the user.
    pub suspended: bool,
    /// `disabled` of the key.
    pub disabled: bool,
    /// `expiresAt` of the key.
    pub expires_at: Option<chrono::DateTime<chrono::Utc>>,
    /// When this version ends, for one that was replaced.
    pub version_expires_at: Option<chrono::DateTime<chrono::Utc>>,
}

/// The standing of one key of a pool, or `None` when it is not (or no longer) there. For proxies that cannot hear of changes.
pub async fn key_standing(
    pool: &PgPool,
    pool_id: Uuid,
    hash: &KeyHash,
) -> Result<Option<KeyStanding>> {
    sqlx::query_as!(
        KeyStanding,
        "SELECT u.suspended, k.disabled, k.expires_at, v.expires_at AS version_expires_at FROM access_key_versions v
         JOIN access_keys k ON k.id = v.access_key_id AND k.deleted_at IS NULL
         JOIN users u ON u.id = k.user_id AND u.deleted_at IS NULL
         WHERE u.pool_id = $1 AND v.key_hash = $2 AND v.deleted_at IS NULL",
        pool_id,
        hash.0.as_slice(),
    )
    .fetch_optional(pool)
    .await
    .map_err(RepositoryError::during("check an access key"))
}
