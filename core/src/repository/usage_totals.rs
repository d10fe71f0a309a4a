//! What keys and users used since a moment, for their status.

use chrono::{DateTime, Utc};
use sqlx::PgPool;

use super::error::{RepositoryError, Result};
use crate::domain::money::MicroUsd;

/// Sums of one key or user since a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageTotals {
    /// Namespace of the resource.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The pool of the user, whose `usageReportInterval` applies: `(namespace, name)`.
    pub pool: Option<(String, String)>,
    /// Messages requests.
    pub requests: u64,
    /// Those that went to Bedrock.
    pub fallback_requests: u64,
    /// Input tokens, read from and written to the cache included.
    pub input_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
    /// What they cost.
    pub cost: MicroUsd,
    /// The newest request ever, not only since the moment.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// Builds totals from a row of either query below.
macro_rules! totals {
    ($row:expr) => {{
        let number = |value: i64| u64::try_from(value).unwrap_or(0);
        UsageTotals {
            namespace: $row.namespace,
            name: $row.name,
            uid: $row.uid,
            pool: $row.pool_namespace.zip($row.pool_name),
            requests: number($row.requests),
            fallback_requests: number($row.fallback_requests),
            input_tokens: number($row.input_tokens),
            output_tokens: number($row.output_tokens),
            cost: MicroUsd($row.cost),
            last_used_at: $row.last_used_at,
        }
    }};
}

/// The totals of every living access key of a cluster that was ever used.
pub async fn by_access_key(
    pool: &PgPool,
    cluster_id: &str,
    since: DateTime<Utc>,
) -> Result<Vec<UsageTotals>> {
    let rows = sqlx::query!(
        r#"SELECT k.namespace, k.name, k.uid, p.namespace AS "pool_namespace?", p.name AS "pool_name?",
             COALESCE(sum(a.requests) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "requests!",
             COALESCE(sum(a.fallback_requests) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "fallback_requests!",
             COALESCE(sum(a.input_tokens + a.cache_read_input_tokens + a.cache_creation_input_tokens) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "input_tokens!",
             COALESCE(sum(a.output_tokens) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "output_tokens!",
             COALESCE(sum(a.cost_micro_usd) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "cost!",
             max(a.last_used_at) AS last_used_at
           FROM usage_aggregates a
           JOIN access_keys k ON k.id = a.access_key_id AND k.deleted_at IS NULL
           JOIN users u ON u.id = k.user_id
           LEFT JOIN pools p ON p.id = u.pool_id
           WHERE k.cluster_id = $1
           GROUP BY k.namespace, k.name, k.uid, p.namespace, p.name
           ORDER BY k.namespace, k.name"#,
        cluster_id,
        since,
    )
    .fetch_all(pool)
    .await
    .map_err(RepositoryError::during("sum the usage of access keys"))?;
    Ok(rows.into_iter().map(|row| totals!(row)).collect())
}

/// The totals of every living user of a cluster that ever used a key, its deleted keys included.
pub async fn by_user(
    pool: &PgPool,
    cluster_id: &str,
    since: DateTime<Utc>,
) -> Result<Vec<UsageTotals>> {
    let rows = sqlx::query!(
        r#"SELECT u.namespace, u.name, u.uid, p.namespace AS "pool_namespace?", p.name AS "pool_name?",
             COALESCE(sum(a.requests) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "requests!",
             COALESCE(sum(a.fallback_requests) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "fallback_requests!",
             COALESCE(sum(a.input_tokens + a.cache_read_input_tokens + a.cache_creation_input_tokens) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "input_tokens!",
             COALESCE(sum(a.output_tokens) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "output_tokens!",
             COALESCE(sum(a.cost_micro_usd) FILTER (WHERE a.time_bucket >= $2), 0)::bigint AS "cost!",
             max(a.last_used_at) AS last_used_at
           FROM usage_aggregates a
           JOIN users u ON u.id = a.user_id AND u.deleted_at IS NULL
           LEFT JOIN pools p ON p.id = u.pool_id
           WHERE u.cluster_id = $1
           GROUP BY u.namespace, u.name, u.uid, p.namespace, p.name
           ORDER BY u.namespace, u.name"#,
        cluster_id,
        since,
    )
    .fetch_all(pool)
    .await
    .map_err(RepositoryError::during("sum the usage of users"))?;
    Ok(rows.into_iter().map(|row| totals!(row)).collect())
}
