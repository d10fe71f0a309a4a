//! `ProxyUser` rows.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::{RepositoryError, Result};
use super::{Origin, Upserted};

/// A user as stored, or to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRow {
    /// `email`.
    pub email: Option<String>,
    /// `displayName`.
    pub display_name: Option<String>,
    /// The pool that `poolRef` resolved to.
    pub pool_id: Option<Uuid>,
    /// `suspended`.
    pub suspended: bool,
    /// `allowedModels`.
    pub allowed_models: Vec<String>,
    /// The Plan key that `plan.apiKeySecretRef` resolved to.
    pub plan_key_id: Option<Uuid>,
    /// The credential that `bedrockCredentialRef` resolved to.
    pub bedrock_key_id: Option<Uuid>,
}

/// The living user of a resource name: id, uid and settings.
pub async fn find(
    connection: &mut PgConnection,
    cluster_id: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<(Uuid, String, UserRow)>> {
    let row = sqlx::query!(
        "SELECT id, uid, email, display_name, pool_id, suspended, allowed_models, plan_key_id, bedrock_key_id FROM users
         WHERE cluster_id = $1 AND namespace = $2 AND name = $3 AND deleted_at IS NULL",
        cluster_id,
        namespace,
        name,
    )
    .fetch_optional(connection)
    .await
    .map_err(RepositoryError::during("read a user"))?;
    Ok(row.map(|row| {
        let user = UserRow {
            email: row.email,
            display_name: row.display_name,
            pool_id: row.pool_id,
            suspended: row.suspended,
            allowed_models: row.allowed_models,
            plan_key_id: row.plan_key_id,
            bedrock_key_id: row.bedrock_key_id,
        };
        (row.id, row.uid, user)
    }))
}

/// Stores a user, and writes only what differs. A living row of the same name and another uid belongs to a deleted
/// resource: it ends, and its keys follow the name that they refer to.
pub async fn upsert(
    connection: &mut PgConnection,
    origin: &Origin,
    user: &UserRow,
) -> Result<Upserted> {
    let Origin {
        cluster_id,
        namespace,
        name,
        uid,
    } = origin;
    let stored = find(connection, cluster_id, namespace, name).await?;
    let (id, replaced) = match stored {
        Some((id, stored_uid, stored)) if stored_uid == *uid => {
            if stored == *user {
                return Ok(Upserted { id, changed: false });
            }
            (id, None)
        }
        Some((replaced, _, _)) => {
            end(connection, replaced).await?;
            (Uuid::new_v4(), Some(replaced))
        }
        None => (Uuid::new_v4(), None),
    };
    sqlx::query!(
        "INSERT INTO users (id, cluster_id, namespace, name, uid, email, display_name, pool_id, suspended, allowed_models, plan_key_id, bedrock_key_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
         ON CONFLICT (id) DO UPDATE
         SET email = excluded.email, display_name = excluded.display_name, pool_id = excluded.pool_id, suspended = excluded.suspended,
             allowed_models = excluded.allowed_models, plan_key_id = excluded.plan_key_id, bedrock_key_id = excluded.bedrock_key_id,
             updated_at = now()",
        id,
        cluster_id,
        namespace,
        name,
        uid,
        user.email,
        user.display_name,
        user.pool_id,
        user.suspended,
        &user.allowed_models,
        user.plan_key_id,
        user.bedrock_key_id,
    )
    .execute(&mut *connection)
    .await
    .map_err(RepositoryError::during("store a user"))?;
    if let Some(replaced) = replaced {
        sqlx::query!(
            "UPDATE access_keys SET user_id = $2, updated_at = now() WHERE user_id = $1 AND deleted_at IS NULL",
            replaced,
            id,
        )
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during("hand keys to the new user"))?;
    }
    // Key hashes are unique among a pool's living: versions follow their user.
    sqlx::query!(
        "UPDATE access_key_versions v SET pool_id = $2, updated_at = now() FROM access_keys k
         WHERE k.id = v.access_key_id AND k.user_id = $1 AND v.deleted_at IS NULL AND v.pool_id IS DISTINCT FROM $2",
        id,
        user.pool_id,
    )
    .execute(connection)
    .await
    .map_err(RepositoryError::during_key_write("move keys to another pool"))?;
    Ok(Upserted { id, changed: true })
}

/// Ends the user of a deleted resource with its keys and their versions. Returns whether there was one.
pub async fn soft_delete(
    connection: &mut PgConnection,
    cluster_id: &str,
    uid: &str,
) -> Result<bool> {
    let ended = sqlx::query_scalar!(
        r#"WITH ended AS (
             UPDATE users SET deleted_at = now(), updated_at = now() WHERE cluster_id = $1 AND uid = $2 AND deleted_at IS NULL RETURNING id
           ), keys AS (
             UPDATE access_keys SET deleted_at = now(), updated_at = now()
             WHERE user_id IN (SELECT id FROM ended) AND deleted_at IS NULL RETURNING id
           ), versions AS (
             UPDATE access_key_versions SET deleted_at = now(), updated_at = now()
             WHERE access_key_id IN (SELECT id FROM keys) AND deleted_at IS NULL
           )
           SELECT count(*) AS "count!" FROM ended"#,
        cluster_id,
        uid,
    )
    .fetch_one(connection)
    .await
    .map_err(RepositoryError::during("delete a user"))?;
    Ok(ended > 0)
}

/// How many living access keys a user has.
pub async fn key_count(connection: &mut PgConnection, user_id: Uuid) -> Result<i64> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM access_keys WHERE user_id = $1 AND deleted_at IS NULL"#,
        user_id,
    )
    .fetch_one(connection)
    .await
    .map_err(RepositoryError::during("count a user's keys"))
}

/// Stores whether a user's keys are refused, and nothing else: what the user refers to is not waited for.
pub async fn suspend(connection: &mut PgConnection, id: Uuid, suspended: bool) -> Result<()> {
    sqlx::query!(
        "UPDATE users SET suspended = $2, updated_at = now() WHERE id = $1 AND deleted_at IS NULL",
        id,
        suspended,
    )
    .execute(connection)
    .await
    .map_err(RepositoryError::during("suspend a user"))?;
    Ok(())
}

/// Ends the row of a user and leaves its keys.
async fn end(connection: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query!(
        "UPDATE users SET deleted_at = now(), updated_at = now() WHERE id = $1",
        id
    )
    .execute(connection)
    .await
    .map_err(RepositoryError::during("end a user"))?;
    Ok(())
}

/// Namespace and uid of every living row of a cluster.
pub async fn living(
    connection: &mut PgConnection,
    cluster_id: &str,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "SELECT namespace, uid FROM users WHERE cluster_id = $1 AND deleted_at IS NULL",
        cluster_id
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("list users"))?;
    Ok(rows
        .into_iter()
        .map(|row| (row.namespace, row.uid))
        .collect())
}
