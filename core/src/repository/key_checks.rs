//! Check values of master secrets: a process that holds other secrets than those the rows were made with must not start.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};

use super::error::{RepositoryError, Result};
use crate::domain::pool::{KeyCheck, SecretKind};

/// The values that a cluster's rows were made with.
pub async fn list(pool: &PgPool, cluster_id: &str) -> Result<Vec<KeyCheck>> {
    let mut connection = pool
        .acquire()
        .await
        .map_err(RepositoryError::during("read key checks"))?;
    list_on(&mut connection, cluster_id).await
}

pub(super) async fn list_on(
    connection: &mut PgConnection,
    cluster_id: &str,
) -> Result<Vec<KeyCheck>> {
    let rows = sqlx::query!("SELECT kind, secret_id, value FROM key_checks WHERE cluster_id = $1 ORDER BY kind, secret_id", cluster_id)
        .fetch_all(connection)
        .await
        .map_err(RepositoryError::during("read key checks"))?;
    rows.into_iter()
        .map(|row| {
            let unreadable = |problem: &str| RepositoryError::Unreadable {
                table: "key_checks",
                problem: problem.to_owned(),
            };
            Ok(KeyCheck {
                kind: kind_of(&row.kind)?,
                secret_id: row.secret_id,
                value: row
                    .value
                    .try_into()
                    .map_err(|_| unreadable("a value that is not 32 bytes"))?,
            })
        })
        .collect()
}

/// Remembers a check value. The first one of an id stays: what is returned is the one in force, to be compared.
pub async fn remember(
    connection: &mut PgConnection,
    cluster_id: &str,
    check: &KeyCheck,
) -> Result<[u8; 32]> {
    sqlx::query!(
        "INSERT INTO key_checks (cluster_id, kind, secret_id, value) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        cluster_id,
        check.kind.as_str(),
        check.secret_id,
        check.value.as_slice(),
    )
    .execute(&mut *connection)
    .await
    .map_err(RepositoryError::during("store a key check"))?;
    list_on(connection, cluster_id)
        .await?
        .into_iter()
        .find(|stored| stored.kind == check.kind && stored.secret_id == check.secret_id)
        .map(|stored| stored.value)
        .ok_or_else(|| RepositoryError::Unreadable {
            table: "key_checks",
            problem: "a value that was just stored is gone".to_owned(),
        })
}

/// When the newest secret of each kind was first seen.
pub async fn newest(pool: &PgPool, cluster_id: &str) -> Result<Vec<(SecretKind, DateTime<Utc>)>> {
    let rows = sqlx::query!(
        r#"SELECT kind, max(created_at) AS "since!" FROM key_checks WHERE cluster_id = $1 GROUP BY kind ORDER BY kind"#,
        cluster_id,
    )
    .fetch_all(pool)
    .await
    .map_err(RepositoryError::during("read the age of master secrets"))?;
    rows.into_iter()
        .map(|row| Ok((kind_of(&row.kind)?, row.since)))
        .collect()
}

fn kind_of(text: &str) -> Result<SecretKind> {
    [SecretKind::Hasher, SecretKind::Encryption]
        .into_iter()
        .find(|kind| kind.as_str() == text)
        .ok_or_else(|| RepositoryError::Unreadable {
            table: "key_checks",
            problem: "an unknown kind".to_owned(),
        })
}
