//! Usage rows: inserted once, whatever is repeated, with their sums in the same transaction.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Datelike, DurationRound, NaiveDate, TimeDelta, Utc};
use sqlx::types::Json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::{PATIENCE, acquire, hang_up};
use super::error::{RepositoryError, Result};
use crate::domain::usage::{FallbackReason, Provider, UsageRecord};

/// Inserts records that are not there yet and adds them to the aggregates, in one transaction. Returns how many were
/// new. When it fails nothing was stored, unless it took longer than [`PATIENCE`]: then nothing is known.
pub async fn insert(pool: &PgPool, records: &[UsageRecord]) -> Result<u64> {
    insert_within(PATIENCE, pool, records).await
}

/// As [`insert`], with another patience.
pub async fn insert_within(
    patience: Duration,
    pool: &PgPool,
    records: &[UsageRecord],
) -> Result<u64> {
    let mut connection = acquire(pool).await?;
    match timeout(patience, insert_all(&mut connection, records)).await {
        Ok(inserted) => inserted,
        Err(_) => Err(hang_up(connection, "store usage")),
    }
}

async fn insert_all(connection: &mut PgConnection, records: &[UsageRecord]) -> Result<u64> {
    let mut transaction = connection
        .begin()
        .await
        .map_err(RepositoryError::during("store usage"))?;
    let new = insert_rows(&mut transaction, records).await?;
    let count = new.len() as u64;
    let by_id: BTreeMap<Uuid, &UsageRecord> = records
        .iter()
        .map(|record| (record.request_id, record))
        .collect();
    add_to_aggregates(
        &mut transaction,
        new.iter().filter_map(|id| by_id.get(id).copied()),
    )
    .await?;
    transaction
        .commit()
        .await
        .map_err(RepositoryError::during("store usage"))?;
    Ok(count)
}

/// Inserts in one statement and returns the ids that were new. Keys and users that are gone become NULL.
async fn insert_rows(connection: &mut PgConnection, records: &[UsageRecord]) -> Result<Vec<Uuid>> {
    let rows = Json(records.iter().map(Row::from).collect::<Vec<_>>());
    sqlx::query_scalar!(
        "INSERT INTO token_usages (request_id, created_at, access_key_id, user_id, key_id, namespace, key_name, user_name, pool, model,
            upstream_model, upstream_request_id, provider, is_fallback, fallback_reason, status, http_status, stream, input_tokens,
            output_tokens, cache_read_input_tokens, cache_creation_input_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens,
            cost_micro_usd, abandoned_provider, abandoned_input_tokens, abandoned_output_tokens, abandoned_cost_micro_usd,
            price_source, estimated, latency_ms, ttft_ms, session_id, agent_id)
         SELECT r.request_id, r.created_at, k.id, u.id, r.key_id, r.namespace, r.key_name, r.user_name, r.pool, r.model,
            r.upstream_model, r.upstream_request_id, r.provider, r.is_fallback, r.fallback_reason, r.status, r.http_status, r.stream, r.input_tokens,
            r.output_tokens, r.cache_read_input_tokens, r.cache_creation_5m_tokens + r.cache_creation_1h_tokens, r.cache_creation_5m_tokens, r.cache_creation_1h_tokens,
            r.cost_micro_usd, r.abandoned_provider, r.abandoned_input_tokens, r.abandoned_output_tokens, r.abandoned_cost_micro_usd,
            r.price_source, r.estimated, r.latency_ms, r.ttft_ms, r.session_id, r.agent_id
         FROM jsonb_to_recordset($1) AS r(request_id uuid, created_at timestamptz, access_key_id uuid, user_id uuid, key_id text,
            namespace text, key_name text, user_name text, pool text, model text, upstream_model text, upstream_request_id text,
            provider text, is_fallback boolean, fallback_reason text, status text, http_status integer, stream boolean,
            input_tokens bigint, output_tokens bigint, cache_read_input_tokens bigint, cache_creation_5m_tokens bigint,
            cache_creation_1h_tokens bigint, cost_micro_usd bigint, abandoned_provider text, abandoned_input_tokens bigint,
            abandoned_output_tokens bigint, abandoned_cost_micro_usd bigint, price_source text, estimated boolean,
            latency_ms bigint, ttft_ms bigint, session_id text, agent_id text)
         LEFT JOIN access_keys k ON k.id = r.access_key_id
         LEFT JOIN users u ON u.id = r.user_id
         ON CONFLICT (request_id, created_at) DO NOTHING
         RETURNING request_id",
        rows as _,
    )
    .fetch_all(connection)
    .await
    .map_err(RepositoryError::during("store usage"))
}

/// The columns of `token_usages` as JSON for `jsonb_to_recordset`.
#[derive(serde::Serialize)]
struct Row<'a> {
    request_id: Uuid,
    created_at: DateTime<Utc>,
    access_key_id: Uuid,
    user_id: Uuid,
    key_id: &'a str,
    namespace: &'a str,
    key_name: &'a str,
    user_name: &'a str,
    pool: &'a str,
    model: &'a str,
    upstream_model: Option<&'a str>,
    upstream_request_id: Option<&'a str>,
    provider: Option<&'static str>,
    is_fallback: bool,
    fallback_reason: Option<&'static str>,
    status: &'static str,
    http_status: u16,
    stream: bool,
    input_tokens: u64,
    output_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation_5m_tokens: u64,
    cache_creation_1h_tokens: u64,
    cost_micro_usd: i64,
    abandoned_provider: Option<&'static str>,
    abandoned_input_tokens: u64,
    abandoned_output_tokens: u64,
    abandoned_cost_micro_usd: i64,
    price_source: &'static str,
    estimated: bool,
    latency_ms: u64,
    ttft_ms: Option<u64>,
    session_id: Option<&'a str>,
    agent_id: Option<&'a str>,
}

impl<'a> From<&'a UsageRecord> for Row<'a> {
    fn from(record: &'a UsageRecord) -> Self {
        let abandoned = record.abandoned.as_ref();
        Self {
            request_id: record.request_id,
            created_at: record.created_at,
            access_key_id: record.access_key_id,
            user_id: record.user_id,
            key_id: &record.key_id,
            namespace: &record.namespace,
            key_name: &record.key_name,
            user_name: &record.user_name,
            pool: &record.pool,
            model: &record.model,
            upstream_model: record.upstream_model.as_deref(),
            upstream_request_id: record.upstream_request_id.as_deref(),
            provider: record.provider.map(Provider::as_str),
            is_fallback: record.is_fallback,
            fallback_reason: record.fallback_reason.map(FallbackReason::as_str),
            status: record.status.as_str(),
            http_status: record.http_status,
            stream: record.stream,
            input_tokens: record.tokens.input,
            output_tokens: record.tokens.output,
            cache_read_input_tokens: record.tokens.cache_read,
            cache_creation_5m_tokens: record.tokens.cache_creation_5m,
            cache_creation_1h_tokens: record.tokens.cache_creation_1h,
            cost_micro_usd: record.cost.0,
            abandoned_provider: abandoned.map(|abandoned| abandoned.provider.as_str()),
            abandoned_input_tokens: abandoned.map_or(0, |abandoned| abandoned.input_tokens),
            abandoned_output_tokens: abandoned.map_or(0, |abandoned| abandoned.output_tokens),
            abandoned_cost_micro_usd: abandoned.map_or(0, |abandoned| abandoned.cost.0),
            price_source: record.price_source.as_str(),
            estimated: record.estimated,
            latency_ms: record.latency_ms,
            ttft_ms: record.ttft_ms,
            session_id: record.session_id.as_deref(),
            agent_id: record.agent_id.as_deref(),
        }
    }
}

/// The identity of an aggregate, in the order in which they are locked by every writer.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Bucket<'a> {
    access_key_id: Uuid,
    hour: DateTime<Utc>,
    model: &'a str,
    provider: &'static str,
}

/// Sums of one bucket.
struct Sums {
    user_id: Uuid,
    requests: i64,
    fallback_requests: i64,
    input: i64,
    output: i64,
    cache_read: i64,
    cache_creation: i64,
    cost: i64,
    last_used_at: DateTime<Utc>,
}

async fn add_to_aggregates(
    connection: &mut PgConnection,
    records: impl Iterator<Item = &UsageRecord>,
) -> Result<()> {
    for (bucket, sums) in sum(records) {
        sqlx::query!(
            "INSERT INTO usage_aggregates AS a (access_key_id, user_id, time_bucket, model, provider, requests, fallback_requests, input_tokens,
                output_tokens, cache_read_input_tokens, cache_creation_input_tokens, cost_micro_usd, last_used_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
             ON CONFLICT (access_key_id, time_bucket, model, provider) DO UPDATE
             SET requests = a.requests + excluded.requests, fallback_requests = a.fallback_requests + excluded.fallback_requests,
                 input_tokens = a.input_tokens + excluded.input_tokens, output_tokens = a.output_tokens + excluded.output_tokens,
                 cache_read_input_tokens = a.cache_read_input_tokens + excluded.cache_read_input_tokens,
                 cache_creation_input_tokens = a.cache_creation_input_tokens + excluded.cache_creation_input_tokens,
                 cost_micro_usd = a.cost_micro_usd + excluded.cost_micro_usd,
                 last_used_at = greatest(a.last_used_at, excluded.last_used_at), updated_at = now()",
            bucket.access_key_id,
            sums.user_id,
            bucket.hour,
            bucket.model,
            bucket.provider,
            sums.requests,
            sums.fallback_requests,
            sums.input,
            sums.output,
            sums.cache_read,
            sums.cache_creation,
            sums.cost,
            sums.last_used_at,
        )
        .execute(&mut *connection)
        .await
        .map_err(RepositoryError::during("add usage up"))?;
    }
    Ok(())
}

fn sum<'a>(records: impl Iterator<Item = &'a UsageRecord>) -> BTreeMap<Bucket<'a>, Sums> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let mut buckets = BTreeMap::new();
    for record in records {
        let sums = sums_of(&mut buckets, record, record.provider);
        sums.requests += 1;
        sums.fallback_requests += i64::from(record.is_fallback);
        sums.input += number(record.tokens.input);
        sums.output += number(record.tokens.output);
        sums.cache_read += number(record.tokens.cache_read);
        sums.cache_creation += number(record.tokens.cache_creation());
        sums.cost += record.cost.0;
        // An abandoned attempt is no request, and is paid to whom it was made at.
        if let Some(abandoned) = &record.abandoned {
            sums_of(&mut buckets, record, Some(abandoned.provider)).cost += abandoned.cost.0;
        }
    }
    buckets
}

/// The sums of the bucket that what `provider` did for this record belongs to.
fn sums_of<'a, 'b>(
    buckets: &'b mut BTreeMap<Bucket<'a>, Sums>,
    record: &'a UsageRecord,
    provider: Option<Provider>,
) -> &'b mut Sums {
    let bucket = Bucket {
        access_key_id: record.access_key_id,
        hour: record
            .created_at
            .duration_trunc(TimeDelta::hours(1))
            .unwrap_or(record.created_at),
        model: &record.model,
        provider: provider.map_or("", Provider::as_str),
    };
    let sums = buckets.entry(bucket).or_insert_with(|| Sums {
        user_id: record.user_id,
        requests: 0,
        fallback_requests: 0,
        input: 0,
        output: 0,
        cache_read: 0,
        cache_creation: 0,
        cost: 0,
        last_used_at: record.created_at,
    });
    sums.last_used_at = sums.last_used_at.max(record.created_at);
    sums
}

/// Keeps a record that cannot be inserted although the database is there, with the reason. Fails when it takes longer than
/// [`PATIENCE`].
pub async fn reject(pool: &PgPool, record: &UsageRecord, error: &str) -> Result<()> {
    const OPERATION: &str = "keep a rejected usage record";
    let json = serde_json::to_value(record).map_err(|error| RepositoryError::Unreadable {
        table: "usage_rejects",
        problem: error.to_string(),
    })?;
    let mut connection = acquire(pool).await?;
    let kept = sqlx::query!(
        "INSERT INTO usage_rejects (request_id, created_at, record, error) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        record.request_id,
        record.created_at,
        json,
        error,
    )
    .execute(&mut *connection);
    match timeout(PATIENCE, kept).await {
        Ok(kept) => kept.map(drop).map_err(RepositoryError::during(OPERATION)),
        Err(_) => Err(hang_up(connection, OPERATION)),
    }
}

/// Makes the monthly partitions of `token_usages` for `from` and the `months` after it. Rows of a month without a
/// partition go to the default one; a month that has rows there keeps them there.
pub async fn ensure_partitions(pool: &PgPool, from: DateTime<Utc>, months: u32) -> Result<()> {
    let mut first = NaiveDate::from_ymd_opt(from.year(), from.month(), 1).unwrap_or_default();
    for _ in 0..=months {
        let next = first + chrono::Months::new(1);
        // Identifiers and bounds cannot be parameters; these are digits made here.
        let statement = format!(
            "DO $$ BEGIN
               IF NOT EXISTS (SELECT FROM token_usages_default WHERE created_at >= '{first} 00:00Z' AND created_at < '{next} 00:00Z') THEN
                 CREATE TABLE IF NOT EXISTS token_usages_{} PARTITION OF token_usages FOR VALUES FROM ('{first} 00:00Z') TO ('{next} 00:00Z');
               END IF;
             END $$",
            first.format("%Y_%m"),
        );
        sqlx::raw_sql(AssertSqlSafe(statement))
            .execute(pool)
            .await
            .map_err(RepositoryError::during("make a usage partition"))?;
        first = next;
    }
    Ok(())
}
