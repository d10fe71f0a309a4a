//! Connections, migrations and the database's clock.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use secrecy::{ExposeSecret, SecretString};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{ConnectOptions as _, PgPool};
use tokio::time::timeout;

use super::error::{RepositoryError, Result};

/// A connection of a pool, given back when dropped.
pub type PgPoolConnection = sqlx::pool::PoolConnection<sqlx::Postgres>;

static MIGRATOR: Migrator = sqlx::migrate!("../migrations");

/// Why a text is no database URL. Never carries the text, which holds a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is not a PostgreSQL URL: write postgres://user:password@host:5432/database?sslmode=verify-full"
)]
pub struct DatabaseUrlError;

/// Where the database is and how to sign in. TLS is `verify-full` unless the URL says otherwise.
#[derive(Clone)]
pub struct DatabaseUrl(SecretString);

impl DatabaseUrl {
    /// Reads a `postgres://` URL.
    pub fn parse(url: &SecretString) -> std::result::Result<Self, DatabaseUrlError> {
        let text = url.expose_secret().trim();
        let parsed = url::Url::parse(text).map_err(|_| DatabaseUrlError)?;
        if !matches!(parsed.scheme(), "postgres" | "postgresql") {
            return Err(DatabaseUrlError);
        }
        PgConnectOptions::from_str(text).map_err(|_| DatabaseUrlError)?;
        Ok(Self(SecretString::from(text)))
    }

    pub(super) fn options(&self) -> std::result::Result<PgConnectOptions, sqlx::Error> {
        let text = self.0.expose_secret();
        let mut options = PgConnectOptions::from_str(text)?;
        let says_tls = url::Url::parse(text).is_ok_and(|url| {
            url.query_pairs()
                .any(|(name, _)| matches!(&*name, "sslmode" | "ssl-mode"))
        });
        if !says_tls {
            options = options.ssl_mode(PgSslMode::VerifyFull);
        }
        Ok(options.disable_statement_logging())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DatabaseUrl")
    }
}

/// How a process uses the database.
#[derive(Debug, Clone, Copy)]
pub struct ConnectOptions {
    /// What the server shows in `pg_stat_activity`.
    pub application_name: &'static str,
    /// The most connections of this process.
    pub max_connections: u32,
    /// How long to wait for a connection.
    pub acquire_timeout: Duration,
    /// The server ends a statement that takes longer.
    pub statement_timeout: Duration,
}

/// How long one step of the metering waits for the server. Longer than any statement may take there: what is not answered by
/// then is a connection that nobody is behind any more.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Closes a connection that did not answer in time, without another word to it: a pool would wait for it again.
pub(super) fn hang_up(connection: PgPoolConnection, operation: &'static str) -> RepositoryError {
    drop(connection.detach());
    let source = sqlx::Error::Io(std::io::ErrorKind::TimedOut.into());
    RepositoryError::Unavailable { operation, source }
}

/// A connection to read by.
pub async fn acquire(pool: &PgPool) -> Result<PgPoolConnection> {
    pool.acquire()
        .await
        .map_err(RepositoryError::during("connect"))
}

/// A pool that connects when it is first used, so that a process can start while the database is away.
pub fn connect(url: &DatabaseUrl, options: ConnectOptions) -> Result<PgPool> {
    let connect = url
        .options()
        .map_err(RepositoryError::during("read the database URL"))?
        .application_name(options.application_name);
    let timeout = options.statement_timeout.as_millis();
    Ok(PgPoolOptions::new()
        .max_connections(options.max_connections)
        .acquire_timeout(options.acquire_timeout)
        .idle_timeout(Duration::from_mins(5))
        .max_lifetime(Duration::from_mins(30))
        .after_connect(move |connection, _| {
            Box::pin(async move {
                // A start-up option would be refused by poolers.
                sqlx::query("SELECT set_config('statement_timeout', $1, false)")
                    .bind(timeout.to_string())
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .connect_lazy_with(connect))
}

/// Brings the schema up to this version. A newer schema is left alone, so that a release can be rolled back.
/// Concurrent calls wait for each other.
pub async fn migrate(pool: &PgPool) -> Result<()> {
    let mut migrator = Migrator {
        migrations: MIGRATOR.migrations.clone(),
        ..Migrator::DEFAULT
    };
    migrator.set_ignore_missing(true);
    migrator.run(pool).await.map_err(|error| match error {
        sqlx::migrate::MigrateError::Execute(source) => {
            RepositoryError::during("migrate the schema")(source)
        }
        other => RepositoryError::Migrate(other),
    })
}

/// The newest migration that the database has, or `None` when it was never migrated.
pub async fn schema_version(pool: &PgPool) -> Result<Option<i64>> {
    let there =
        sqlx::query_scalar!(r#"SELECT to_regclass('_sqlx_migrations') IS NOT NULL AS "there!""#)
            .fetch_one(pool)
            .await
            .map_err(RepositoryError::during("read the schema version"))?;
    if !there {
        return Ok(None);
    }
    // Not checked at compile time: the table is the migrator's own.
    sqlx::query_scalar::<_, Option<i64>>("SELECT max(version) FROM _sqlx_migrations WHERE success")
        .fetch_one(pool)
        .await
        .map_err(RepositoryError::during("read the schema version"))
}

/// The database's own time. Fails when it takes longer than [`PATIENCE`].
pub async fn clock(pool: &PgPool) -> Result<DateTime<Utc>> {
    const OPERATION: &str = "read the database's clock";
    let mut connection = acquire(pool).await?;
    let asked =
        sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *connection);
    match timeout(PATIENCE, asked).await {
        Ok(answer) => answer.map_err(RepositoryError::during(OPERATION)),
        Err(_) => Err(hang_up(connection, OPERATION)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_verified_unless_the_url_says_otherwise() {
        let mode = |url: &str| {
            DatabaseUrl::parse(&url.into())
                .unwrap()
                .options()
                .unwrap()
                .get_ssl_mode()
        };
        assert!(matches!(
            mode("postgres://u:p@db/spillway"),
            PgSslMode::VerifyFull
        ));
        assert!(matches!(
            mode("postgres://u:p@db/spillway?sslmode=disable"),
            PgSslMode::Disable
        ));
    }

    #[test]
    fn what_is_no_url_is_refused_without_showing_it() {
        for text in [
            "",
            "db.example.com",
            "mysql://u:secret@h/d",
            "postgres://u:secret@h:notaport/d",
        ] {
            let error = DatabaseUrl::parse(&text.into()).unwrap_err().to_string();
            assert!(!error.contains("secret@"), "{error}");
        }
    }
}
