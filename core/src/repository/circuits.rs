//! Circuits that a pool's proxies share, for the proxies ([`load`] to [`forget`]) and for the operator ([`list`], [`reset`]).
//!
//! Times go in and out as durations from the database's `now()`: the clock of a pod is never compared with the database's.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use tokio::time::timeout;
use uuid::Uuid;

use super::connection::{acquire, hang_up};
use super::error::{RepositoryError, Result};

/// How long a probe may take before another process may make one.
pub const PROBE_CLAIM: Duration = Duration::from_mins(1);
/// How long after its pause a circuit that nobody probes is still known: then it counts as closed.
pub const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);
/// How long after a Plan key was stored an account's failure is taken for one of the key before.
const NEW_KEY: Duration = Duration::from_secs(5);
/// How long a statement of a proxy may take. Circuits go on in memory meanwhile.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most circuits of one pool that are loaded.
const MOST_LOADED: i64 = 2048;

/// Which circuit of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CircuitName {
    /// The Plan credential: a `plan_keys` row, or the pool's id for the key of the proxies' environment.
    pub credential: Uuid,
    /// The model; `None` for all of the credential's.
    pub model: Option<String>,
}

/// A circuit that opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// Which one.
    pub name: CircuitName,
    /// Identifies this opening.
    pub id: Uuid,
    /// What failed, as in `token_usages.fallback_reason`.
    pub reason: String,
    /// For how long it has been open.
    pub age: Duration,
    /// For how much longer.
    pub pause: Duration,
}

/// A circuit that is open or half-open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRow {
    /// Which one.
    pub name: CircuitName,
    /// Identifies the opening.
    pub opening: Uuid,
    /// For how long it has been open, in milliseconds.
    pub age_ms: i64,
    /// For how much longer, in milliseconds; negative once it is half-open.
    pub remaining_ms: i64,
    /// Who has claimed the probe, and for how many more milliseconds. A claim that has ended is none.
    pub probe: Option<(Uuid, i64)>,
}

/// All circuits of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolCircuits {
    /// How often they were reset.
    pub resets: i64,
    /// Those that are not closed.
    pub open: Vec<OpenRow>,
}

/// What came of claiming a probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// Nobody else has it.
    Granted,
    /// Somebody else has it, or it is too early.
    Refused(OpenRow),
    /// The circuit is closed.
    Closed,
}

/// An open circuit as its pool's status shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedCircuit {
    /// Namespace of the pool.
    pub namespace: String,
    /// Its name.
    pub pool: String,
    /// Its uid.
    pub uid: String,
    /// The Secret with the Plan key, as namespace, name and key; `None` for the key of the proxies' environment.
    pub secret: Option<(String, String, String)>,
    /// The model; `None` for all of the credential's.
    pub model: Option<String>,
    /// What failed.
    pub reason: String,
    /// When it opened.
    pub opened_at: DateTime<Utc>,
    /// When the next probe may go.
    pub open_until: DateTime<Utc>,
    /// Whether that is still to come.
    pub is_open: bool,
}

/// One statement of a proxy; a connection that does not answer in time is hung up on.
macro_rules! ask {
    ($pool:expr, $operation:literal, |$connection:ident| $query:expr) => {{
        let mut held = acquire($pool).await?;
        let $connection = &mut *held;
        match timeout(PATIENCE, $query).await {
            Ok(answer) => answer.map_err(RepositoryError::during($operation)),
            Err(_) => Err(hang_up(held, $operation)),
        }
    }};
}

/// The circuits of a pool that are open or half-open.
pub async fn load(pool: &PgPool, pool_id: Uuid) -> Result<PoolCircuits> {
    let rows = ask!(pool, "load circuits", |connection| {
        sqlx::query!(
        r#"SELECT COALESCE((SELECT number FROM circuit_resets r WHERE r.pool_id = $1), 0) AS "resets!",
             c.credential_id AS "credential?", c.model, c.opening AS "opening?", c.probe_by,
             (extract(epoch FROM now() - c.opened_at) * 1000)::bigint AS age_ms,
             (extract(epoch FROM c.open_until - now()) * 1000)::bigint AS remaining_ms,
             (extract(epoch FROM c.probe_until - now()) * 1000)::bigint AS probe_ms
           FROM (SELECT) one
           LEFT JOIN circuit_states c ON c.pool_id = $1 AND c.open_until > now() - $2::bigint * interval '1 millisecond'
           ORDER BY c.model IS NOT NULL, c.opened_at
           LIMIT $3"#,
        pool_id,
        millis(FORGOTTEN_AFTER),
        MOST_LOADED,
    )
    .fetch_all(connection)
    })?;
    let resets = rows.first().map_or(0, |row| row.resets);
    let open = rows.into_iter().filter_map(|row| {
        Some(OpenRow {
            name: CircuitName {
                credential: row.credential?,
                model: row.model,
            },
            opening: row.opening?,
            age_ms: row.age_ms?,
            remaining_ms: row.remaining_ms?,
            probe: row.probe_by.zip(row.probe_ms.filter(|left| *left > 0)),
        })
    });
    Ok(PoolCircuits {
        resets,
        open: open.collect(),
    })
}

/// Stores that a circuit opened or, after a probe that failed, opened again. Of two openings at once the longer pause counts.
/// Returns false when it was not stored, because the circuits were reset more than `resets` times, the pool is gone, or the
/// Plan key was just replaced and the account's failure is most likely the former key's.
pub async fn open(pool: &PgPool, pool_id: Uuid, resets: i64, opening: &Opening) -> Result<bool> {
    let stored = ask!(pool, "open a circuit", |connection| {
        sqlx::query!(
        "INSERT INTO circuit_states AS c (pool_id, credential_id, model, reason, opening, opened_at, open_until)
         SELECT p.id, $2, $3, $4, $5, now() - $6::bigint * interval '1 millisecond', now() + $7::bigint * interval '1 millisecond'
         FROM pools p
         WHERE p.id = $1 AND COALESCE((SELECT number FROM circuit_resets r WHERE r.pool_id = p.id), 0) = $8
           AND NOT EXISTS (SELECT FROM plan_keys k
             WHERE k.id = $2 AND $4 = 'account' AND k.updated_at > k.created_at
               AND k.updated_at > now() - $9::bigint * interval '1 millisecond')
         ON CONFLICT (pool_id, credential_id, model) DO UPDATE
         SET reason = excluded.reason, opening = excluded.opening, open_until = GREATEST(c.open_until, excluded.open_until),
             opened_at = CASE WHEN c.open_until > now() - $10::bigint * interval '1 millisecond' THEN c.opened_at ELSE excluded.opened_at END,
             probe_by = NULL, probe_until = NULL, updated_at = now()",
        pool_id,
        opening.name.credential,
        opening.name.model,
        opening.reason,
        opening.id,
        millis(opening.age),
        millis(opening.pause),
        resets,
        millis(NEW_KEY),
        millis(FORGOTTEN_AFTER),
    )
    .execute(connection)
    })?;
    Ok(stored.rows_affected() > 0)
}

/// Closes a circuit, unless it opened again since `opening`. Returns whether it was closed by this.
pub async fn close(
    pool: &PgPool,
    pool_id: Uuid,
    name: &CircuitName,
    opening: Uuid,
) -> Result<bool> {
    let closed = ask!(pool, "close a circuit", |connection| {
        sqlx::query!(
        "DELETE FROM circuit_states
         WHERE pool_id = $1 AND credential_id = $2 AND model IS NOT DISTINCT FROM $3 AND opening = $4",
        pool_id,
        name.credential,
        name.model,
        opening,
    )
    .execute(connection)
    })?;
    Ok(closed.rows_affected() > 0)
}

/// Claims the one probe of a circuit whose pause is over, for [`PROBE_CLAIM`].
pub async fn claim(
    pool: &PgPool,
    pool_id: Uuid,
    name: &CircuitName,
    claimant: Uuid,
) -> Result<Claim> {
    let claimed = ask!(pool, "claim a probe", |connection| {
        sqlx::query!(
        "UPDATE circuit_states
         SET probe_by = $4, probe_until = now() + $5::bigint * interval '1 millisecond', updated_at = now()
         WHERE pool_id = $1 AND credential_id = $2 AND model IS NOT DISTINCT FROM $3
           AND open_until <= now() AND (probe_until IS NULL OR probe_until <= now())",
        pool_id,
        name.credential,
        name.model,
        claimant,
        millis(PROBE_CLAIM),
    )
    .execute(connection)
    })?;
    if claimed.rows_affected() > 0 {
        return Ok(Claim::Granted);
    }
    let found = load(pool, pool_id).await?.open;
    let row = found.into_iter().find(|row| row.name == *name);
    Ok(row.map_or(Claim::Closed, Claim::Refused))
}

/// Gives a claim back that was not used.
pub async fn free(pool: &PgPool, pool_id: Uuid, name: &CircuitName, claimant: Uuid) -> Result<()> {
    ask!(pool, "free a probe", |connection| {
        sqlx::query!(
        "UPDATE circuit_states SET probe_by = NULL, probe_until = NULL, updated_at = now()
         WHERE pool_id = $1 AND credential_id = $2 AND model IS NOT DISTINCT FROM $3 AND probe_by = $4",
        pool_id,
        name.credential,
        name.model,
        claimant,
    )
    .execute(connection)
    })?;
    Ok(())
}

/// Ends pauses that are longer than the pool's settings allow by now.
pub async fn shorten(pool: &PgPool, pool_id: Uuid, longest: Duration) -> Result<()> {
    ask!(pool, "shorten circuits", |connection| {
        sqlx::query!(
        "UPDATE circuit_states SET open_until = now() + $2::bigint * interval '1 millisecond', updated_at = now()
         WHERE pool_id = $1 AND open_until > now() + $2::bigint * interval '1 millisecond'",
        pool_id,
        millis(longest),
    )
    .execute(connection)
    })?;
    Ok(())
}

/// Deletes circuits that nobody asks for any more: of models that are gone, of credentials that are not used.
pub async fn forget(pool: &PgPool, pool_id: Uuid) -> Result<()> {
    ask!(pool, "forget circuits", |connection| {
        sqlx::query!(
        "DELETE FROM circuit_states WHERE pool_id = $1 AND open_until <= now() - $2::bigint * interval '1 millisecond'",
        pool_id,
        millis(FORGOTTEN_AFTER),
    )
    .execute(connection)
    })?;
    Ok(())
}

/// The circuits of a cluster's pools that are open or half-open: by pool, whole credentials first, then the newest. Those of
/// credentials that are gone are left out.
pub async fn list(pool: &PgPool, cluster_id: &str) -> Result<Vec<ListedCircuit>> {
    let rows = sqlx::query!(
        r#"SELECT p.namespace, p.name, p.uid, k.namespace AS "secret_namespace?", k.name AS "secret_name?", k.secret_key AS "secret_key?",
             c.model, c.reason, c.opened_at, c.open_until, c.open_until > now() AS "is_open!"
           FROM circuit_states c
           JOIN pools p ON p.id = c.pool_id
           LEFT JOIN plan_keys k ON k.id = c.credential_id
           WHERE p.cluster_id = $1 AND c.open_until > now() - $2::bigint * interval '1 millisecond'
             AND (k.id IS NOT NULL OR c.credential_id = c.pool_id)
           ORDER BY p.namespace, p.name, c.model IS NOT NULL, c.opened_at DESC, c.model, k.namespace, k.name, k.secret_key"#,
        cluster_id,
        millis(FORGOTTEN_AFTER),
    )
    .fetch_all(pool)
    .await
    .map_err(RepositoryError::during("list circuits"))?;
    let listed = rows.into_iter().map(|row| {
        let secret = match (row.secret_namespace, row.secret_name, row.secret_key) {
            (Some(namespace), Some(name), Some(key)) => Some((namespace, name, key)),
            _ => None,
        };
        ListedCircuit {
            namespace: row.namespace,
            pool: row.name,
            uid: row.uid,
            secret,
            model: row.model,
            reason: row.reason,
            opened_at: row.opened_at,
            open_until: row.open_until,
            is_open: row.is_open,
        }
    });
    Ok(listed.collect())
}

/// The value of the last reset of a pool that was carried out.
pub async fn handled_reset(connection: &mut PgConnection, pool_id: Uuid) -> Result<Option<String>> {
    sqlx::query_scalar!(
        "SELECT handled FROM circuit_resets WHERE pool_id = $1",
        pool_id
    )
    .fetch_optional(connection)
    .await
    .map_err(RepositoryError::during("read the last reset of circuits"))
}

/// Closes all circuits of a pool, also those that its proxies have not stored yet, and remembers the value that asked for it.
/// Returns how many were stored.
pub async fn reset(connection: &mut PgConnection, pool_id: Uuid, value: &str) -> Result<u64> {
    sqlx::query!(
        "INSERT INTO circuit_resets AS r (pool_id, handled) VALUES ($1, $2)
         ON CONFLICT (pool_id) DO UPDATE SET handled = excluded.handled, number = r.number + 1, updated_at = now()",
        pool_id,
        value,
    )
    .execute(&mut *connection)
    .await
    .map_err(RepositoryError::during("reset circuits"))?;
    sqlx::query!("DELETE FROM circuit_states WHERE pool_id = $1", pool_id)
        .execute(connection)
        .await
        .map(|done| done.rows_affected())
        .map_err(RepositoryError::during("reset circuits"))
}

fn millis(duration: Duration) -> i64 {
    // A thousand years, which a timestamp can still hold.
    const MOST: i64 = 1_000 * 365 * 86_400_000;
    i64::try_from(duration.as_millis()).map_or(MOST, |millis| millis.min(MOST))
}
