//! Brings Postgres up for a leadership and watches it.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::repository::leadership::{self, Fence};
use spillway_core::repository::{
    ConnectOptions, DatabaseUrl, PgPool, RepositoryError, connect, migrate,
};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::{Database, DatabaseAway, Session, State};
use crate::health::Health;
use crate::master_secrets::{MasterKeys, MasterSecretError, MasterSecrets};
use crate::metrics::Metrics;
use crate::report::chain;
use crate::settings::DatabaseSettings;

/// Pause between two looks at a database that answers.
const PROBE: Duration = Duration::from_secs(2);
/// How long a look may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// First and longest pause between attempts to bring it up.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How migrations connect: a big one takes its time.
pub const MIGRATION: ConnectOptions = ConnectOptions {
    application_name: "spillway-migrate",
    max_connections: 1,
    acquire_timeout: Duration::from_secs(5),
    statement_timeout: Duration::ZERO,
};

/// Why this process must not lead any more.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Another operator has acquired the cluster.
    #[error("another operator has taken over this cluster in the database")]
    Deposed(#[source] RepositoryError),
}

/// Why the database is not ready yet.
enum NotReady {
    Fatal(Fatal),
    Away { why: &'static str, error: String },
}

/// Brings Postgres up and watches it, for one leadership.
pub struct Supervisor {
    pool: PgPool,
    direct: PgPool,
    cluster_id: String,
    holder: String,
    masters: Arc<MasterSecrets>,
    health: Health,
    metrics: Metrics,
    state: watch::Sender<State>,
    suspicion: Arc<Notify>,
    fence: Option<Fence>,
    keys: Option<MasterKeys>,
}

impl Supervisor {
    /// A supervisor for the leadership of `holder`, and the view of the database that controllers share.
    pub fn new(
        settings: &DatabaseSettings,
        cluster_id: &str,
        holder: &str,
        masters: Arc<MasterSecrets>,
        health: Health,
        metrics: Metrics,
    ) -> Result<(Self, Database), RepositoryError> {
        let pool = open(&settings.url)?;
        let direct = connect(settings.direct_url(), MIGRATION)?;
        let away = DatabaseAway {
            since: Instant::now(),
            why: "the operator has not connected to it yet",
        };
        let (state, seen) = watch::channel(State::Away(away));
        let suspicion = Arc::new(Notify::new());
        let database = Database {
            state: seen,
            suspicion: suspicion.clone(),
        };
        let supervisor = Self {
            pool,
            direct,
            cluster_id: cluster_id.to_owned(),
            holder: holder.to_owned(),
            masters,
            health,
            metrics,
            state,
            suspicion,
            fence: None,
            keys: None,
        };
        Ok((supervisor, database))
    }

    /// Runs until the leadership has to end.
    pub async fn run(mut self) -> Fatal {
        self.health.set_database(Some("not connected yet"));
        loop {
            let session = match self.bring_up().await {
                Ok(session) => session,
                Err(fatal) => return fatal,
            };
            info!(epoch = session.fence.epoch, "database ready");
            self.state.send_replace(State::Ready(session.clone()));
            self.health.set_database(None);
            self.metrics.database(true);
            let why = match self.watch(&session).await {
                Ok(why) => why,
                Err(fatal) => return fatal,
            };
            self.state.send_replace(State::Away(DatabaseAway {
                since: Instant::now(),
                why,
            }));
            self.health.set_database(Some(why));
            self.metrics.database(false);
        }
    }

    /// Tries with growing pauses until everything is in place.
    async fn bring_up(&mut self) -> Result<Session, Fatal> {
        let mut pause = BACKOFF.0;
        loop {
            match self.attempt().await {
                Ok(session) => return Ok(session),
                Err(NotReady::Fatal(fatal)) => return Err(fatal),
                Err(NotReady::Away { why, error }) => {
                    warn!(
                        why,
                        error,
                        retry_ms = pause.as_millis(),
                        "database not ready"
                    );
                    self.health.set_database(Some(why));
                    self.state.send_if_modified(|state| match state {
                        State::Away(away) if away.why != why => {
                            away.why = why;
                            true
                        }
                        _ => false,
                    });
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(BACKOFF.1);
        }
    }

    /// Schema, epoch and master secrets, in this order. What was done once in a leadership is not done again.
    async fn attempt(&mut self) -> Result<Session, NotReady> {
        let fence = if let Some(fence) = &self.fence {
            check(&self.pool, fence).await.map_err(not_ready)?;
            fence.clone()
        } else {
            migrate(&self.direct).await.map_err(not_ready)?;
            let fence = leadership::acquire(&self.pool, &self.cluster_id, &self.holder).await;
            self.fence.insert(fence.map_err(not_ready)?).clone()
        };
        let keys = if let Some(keys) = &self.keys {
            keys.clone()
        } else {
            let keys = self.masters.establish(&self.pool, &fence).await;
            self.keys.insert(keys.map_err(not_established)?).clone()
        };
        for (kind, since) in MasterSecrets::ages(&self.pool, &self.cluster_id)
            .await
            .map_err(not_ready)?
        {
            self.metrics.master_secret(kind.as_str(), since);
        }
        Ok(Session {
            pool: self.pool.clone(),
            fence,
            keys,
        })
    }

    /// Looks at a ready database until it no longer answers; returns why.
    async fn watch(&self, session: &Session) -> Result<&'static str, Fatal> {
        loop {
            tokio::select! {
                () = sleep(PROBE) => {}
                () = self.suspicion.notified() => {}
            }
            match timeout(PROBE_TIMEOUT, check(&session.pool, &session.fence)).await {
                Ok(Ok(())) => {}
                Ok(Err(error @ RepositoryError::Deposed { .. })) => {
                    return Err(Fatal::Deposed(error));
                }
                Ok(Err(error)) => {
                    warn!(error = chain(&error), "database lost");
                    return Ok(UNREACHABLE);
                }
                Err(_) => {
                    warn!("the database did not answer in time");
                    return Ok("it does not answer in time");
                }
            }
        }
    }
}

const UNREACHABLE: &str = "it cannot be reached";

fn open(url: &DatabaseUrl) -> Result<PgPool, RepositoryError> {
    let options = ConnectOptions {
        application_name: "spillway-operator",
        max_connections: 8,
        acquire_timeout: Duration::from_secs(3),
        statement_timeout: Duration::from_secs(30),
    };
    connect(url, options)
}

/// Whether the epoch of this leadership is still in force.
async fn check(pool: &PgPool, fence: &Fence) -> Result<(), RepositoryError> {
    leadership::commit(leadership::fenced(pool, fence).await?).await
}

/// Sorts a failed query. What the server refuses may be mended without a restart (a missing right, a missing database).
fn not_ready(error: RepositoryError) -> NotReady {
    match error {
        error @ RepositoryError::Deposed { .. } => NotReady::Fatal(Fatal::Deposed(error)),
        error if error.is_unavailable() => NotReady::Away {
            why: UNREACHABLE,
            error: chain(&error),
        },
        error => NotReady::Away {
            why: "it refuses what the operator needs",
            error: chain(&error),
        },
    }
}

fn not_established(error: MasterSecretError) -> NotReady {
    match error {
        MasterSecretError::Database(error) => not_ready(error),
        // A replica that ended instead would leave finalizers to nobody.
        error if error.is_terminal() => NotReady::Away {
            why: "the master secrets are missing or not those of this database",
            error: chain(&error),
        },
        error => NotReady::Away {
            why: "the master secrets could not be read",
            error: chain(&error),
        },
    }
}
