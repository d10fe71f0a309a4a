//! Why a query failed, and whether trying again may help.

use sqlx::error::{DatabaseError, ErrorKind};

/// The result of a repository function.
pub type Result<T> = std::result::Result<T, RepositoryError>;

/// Why a repository function failed.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// No connection, a lost one, or a server that is starting or stopping.
    #[error("the database cannot be reached to {operation}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// Another operator leads this cluster.
    #[error("another operator has taken over this cluster (epoch {found}, ours is {ours})")]
    Deposed {
        /// The epoch that was acquired.
        ours: i64,
        /// The epoch that is in force.
        found: i64,
    },
    /// The same key is another access key's in this pool.
    #[error("another AccessKey of the same pool already uses this key")]
    DuplicateKey,
    /// The server refused the query.
    #[error("the database refused to {operation}: {}", reason(source))]
    Query {
        /// What was being done.
        operation: &'static str,
        /// The driver's error.
        #[source]
        source: sqlx::Error,
    },
    /// A migration failed.
    #[error("the database schema could not be migrated: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// A row holds what this version cannot read.
    #[error("{table} holds a value that this version cannot read: {problem}")]
    Unreadable {
        /// The table.
        table: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl RepositoryError {
    /// Whether the database was away, so that the same call may succeed later.
    pub const fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable { .. })
    }

    /// Whether the server refused what was in the row (SQLSTATE classes 22 data exception and 23 integrity constraint), so
    /// that no later try can store it. Anything else, a missing right or a cancelled statement too, is somebody's to mend.
    pub fn is_row_refused(&self) -> bool {
        let Self::Query { source, .. } = self else {
            return false;
        };
        source
            .as_database_error()
            .and_then(DatabaseError::code)
            .is_some_and(|code| code.starts_with("22") || code.starts_with("23"))
    }

    /// Sorts a driver's error. For `map_err`: `.map_err(RepositoryError::during("read users"))`.
    pub(super) const fn during(operation: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            if is_away(&source) {
                Self::Unavailable { operation, source }
            } else {
                Self::Query { operation, source }
            }
        }
    }

    /// As [`during`](Self::during), with a unique violation on the index of key hashes told apart.
    pub(super) const fn during_key_write(
        operation: &'static str,
    ) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| {
            let violated = source.as_database_error().is_some_and(|error| {
                error.kind() == ErrorKind::UniqueViolation
                    && error.constraint() == Some("access_key_versions_hash")
            });
            if violated {
                Self::DuplicateKey
            } else {
                Self::during(operation)(source)
            }
        }
    }
}

/// The server's own words, which name columns and constraints; values stay out of it.
fn reason(error: &sqlx::Error) -> String {
    match error.as_database_error() {
        Some(answer) => format!(
            "{} ({})",
            answer.message(),
            answer.code().unwrap_or_default()
        ),
        None => "the answer could not be read".to_owned(),
    }
}

fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(answer) => is_passing(answer.as_ref()),
        _ => false,
    }
}

/// SQLSTATE classes that pass by themselves: 08 connection, 53 resources, 57P server stopping or starting, 28 a password
/// that is being changed, 25006 a failover's read-only server, 40 serialisation and deadlock.
fn is_passing(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| {
        ["08", "53", "57P", "28", "40"]
            .iter()
            .any(|class| code.starts_with(class))
            || code == "25006"
    })
}
