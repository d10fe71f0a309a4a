//! `ProxyPool` rows and their model mappings.

use sqlx::PgConnection;
use uuid::Uuid;

use super::error::{RepositoryError, Result};
use super::models::MappingRow;
use super::{Origin, Upserted};
use crate::domain::models::ModelMapping;
use crate::domain::pool::{CircuitBreakerConfig, PoolConfig};

/// A pool to store: the settings of [`PoolConfig`], whose `id`, `namespace` and `name` are ignored here.
#[derive(Debug, Clone)]
pub struct NewPool {
    /// The resource.
    pub origin: Origin,
    /// Its settings.
    pub config: PoolConfig,
}

/// The pool of a resource name: its uid and its settings.
pub async fn find(
    connection: &mut PgConnection,
    cluster_id: &str,
    namespace: &str,
    name: &str,
) -> Result<Option<(String, PoolConfig)>> {
    let row = sqlx::query!(
        "SELECT * FROM pools WHERE cluster_id = $1 AND namespace = $2 AND name = $3",
        cluster_id,
        namespace,
        name
    )
    .fetch_optional(&mut *connection)
    .await
    .map_err(RepositoryError::during("read a pool"))?;
    let Some(row) = row else { return Ok(None) };
    let models = mappings(connection, row.id).await?;
    let number = |value: Option<i32>| value.and_then(|value| u32::try_from(value).ok());
    let config = PoolConfig {
        id: row.id,
        namespace: row.namespace,
        name: row.name,
        plan_api_url: row.plan_api_url,
        plan_key_id: row.plan_key_id,
        fallback_enabled: row.fallback_enabled,
        bedrock_region: row.bedrock_region,
        bedrock_default_model: row.bedrock_default_model,
        bedrock_key_id: row.bedrock_key_id,
        circuit_breaker: CircuitBreakerConfig {
            failure_threshold: number(row.circuit_failure_threshold),
            failure_rate: number(row.circuit_failure_rate).and_then(|rate| u8::try_from(rate).ok()),
            failure_window_seconds: number(row.circuit_failure_window_seconds),
            reset_timeout_seconds: number(row.circuit_reset_timeout_seconds),
        },
        models,
    };
    Ok(Some((row.uid, config)))
}

async fn mappings(connection: &mut PgConnection, pool_id: Uuid) -> Result<Vec<ModelMapping>> {
    sqlx::query_as!(
        MappingRow,
        "SELECT name, bedrock_model_id, bedrock_api, price_input, price_output, price_cache_read, price_cache_write_5m, price_cache_write_1h
         FROM model_mappings WHERE pool_id = $1 ORDER BY position",
        pool_id,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("read model mappings"))?
    .into_iter()
    .map(MappingRow::into_mapping)
    .collect()
}

/// Stores a pool and its mappings, and writes only what differs.
pub async fn upsert(connection: &mut PgConnection, new: &NewPool) -> Result<Upserted> {
    let Origin {
        cluster_id,
        namespace,
        name,
        uid,
    } = &new.origin;
    let wanted = &new.config;
    let stored = find(connection, cluster_id, namespace, name).await?;
    if let Some((stored_uid, stored)) = &stored {
        let same = PoolConfig {
            id: stored.id,
            namespace: namespace.clone(),
            name: name.clone(),
            ..wanted.clone()
        };
        if stored_uid == uid && *stored == same {
            return Ok(Upserted {
                id: stored.id,
                changed: false,
            });
        }
    }
    let circuit = &wanted.circuit_breaker;
    let number = |value: Option<u32>| value.and_then(|value| i32::try_from(value).ok());
    let id = sqlx::query_scalar!(
        "INSERT INTO pools (id, cluster_id, namespace, name, uid, plan_api_url, plan_key_id, fallback_enabled, bedrock_region,
            bedrock_default_model, bedrock_key_id, circuit_failure_threshold, circuit_failure_rate, circuit_failure_window_seconds,
            circuit_reset_timeout_seconds)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
         ON CONFLICT (cluster_id, namespace, name) DO UPDATE
         SET uid = excluded.uid, plan_api_url = excluded.plan_api_url, plan_key_id = excluded.plan_key_id,
             fallback_enabled = excluded.fallback_enabled, bedrock_region = excluded.bedrock_region,
             bedrock_default_model = excluded.bedrock_default_model, bedrock_key_id = excluded.bedrock_key_id,
             circuit_failure_threshold = excluded.circuit_failure_threshold, circuit_failure_rate = excluded.circuit_failure_rate,
             circuit_failure_window_seconds = excluded.circuit_failure_window_seconds,
             circuit_reset_timeout_seconds = excluded.circuit_reset_timeout_seconds, updated_at = now()
         RETURNING id",
        Uuid::new_v4(),
        cluster_id,
        namespace,
        name,
        uid,
        wanted.plan_api_url,
        wanted.plan_key_id,
        wanted.fallback_enabled,
        wanted.bedrock_region,
        wanted.bedrock_default_model,
        wanted.bedrock_key_id,
        number(circuit.failure_threshold),
        circuit.failure_rate.map(i32::from),
        number(circuit.failure_window_seconds),
        number(circuit.reset_timeout_seconds),
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(RepositoryError::during("store a pool"))?;
    if stored.is_none_or(|(_, stored)| stored.models != wanted.models) {
        replace_mappings(connection, id, &wanted.models).await?;
    }
    Ok(Upserted { id, changed: true })
}

async fn replace_mappings(
    connection: &mut PgConnection,
    pool_id: Uuid,
    models: &[ModelMapping],
) -> Result<()> {
    sqlx::query!("DELETE FROM model_mappings WHERE pool_id = $1", pool_id)
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during("replace model mappings"))?;
    for (position, model) in (0i32..).zip(models) {
        sqlx::query!(
            "INSERT INTO model_mappings (pool_id, position, name, bedrock_model_id, bedrock_api, price_input, price_output,
                price_cache_read, price_cache_write_5m, price_cache_write_1h)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            pool_id,
            position,
            model.name.as_str(),
            model.bedrock_model_id,
            model.bedrock_api.as_str(),
            model.price.map(|price| price.input.0),
            model.price.map(|price| price.output.0),
            model.price.map(|price| price.cache_read.0),
            model.price.map(|price| price.cache_write_5m.0),
            model.price.map(|price| price.cache_write_1h.0),
        )
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during("store a model mapping"))?;
    }
    Ok(())
}

/// Deletes the pool of a deleted resource; its users stay, without a pool. Returns whether there was one.
pub async fn delete(connection: &mut PgConnection, cluster_id: &str, uid: &str) -> Result<bool> {
    sqlx::query!(
        "DELETE FROM pools WHERE cluster_id = $1 AND uid = $2",
        cluster_id,
        uid
    )
    .execute(connection)
    .await
    .map(|done| done.rows_affected() > 0)
    .map_err(RepositoryError::during("delete a pool"))
}

/// Namespace and uid of every pool of a cluster.
pub async fn living(
    connection: &mut PgConnection,
    cluster_id: &str,
) -> Result<Vec<(String, String)>> {
    let rows = sqlx::query!(
        "SELECT namespace, uid FROM pools WHERE cluster_id = $1",
        cluster_id
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("list pools"))?;
    Ok(rows
        .into_iter()
        .map(|row| (row.namespace, row.uid))
        .collect())
}
