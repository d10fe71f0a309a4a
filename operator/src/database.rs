//! Postgres as the leader has it: away, or ready to be written to under this leadership's epoch.
//!
//! Controllers get a [`Database`] and ask it for a [`Session`] each time they write. Without one they may write status
//! and drop finalizers, nothing else. The [`Supervisor`] brings Postgres up (schema, epoch, master secrets) and watches it.

use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use spillway_core::repository::leadership::{self, Fence};
use spillway_core::repository::{PgPool, PgTransaction, RepositoryError};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::WatchStream;

use crate::master_secrets::MasterKeys;

mod supervisor;

pub use supervisor::{Fatal, MIGRATION, Supervisor};

/// What a leader needs to write to Postgres.
#[derive(Clone)]
pub struct Session {
    /// Connections.
    pub pool: PgPool,
    /// The epoch of this leadership.
    pub fence: Fence,
    /// The verified master secrets.
    pub keys: MasterKeys,
}

impl Session {
    /// Begins a transaction that only this leadership can commit.
    pub async fn begin(&self) -> Result<PgTransaction<'static>, RepositoryError> {
        leadership::fenced(&self.pool, &self.fence).await
    }

    /// Hashes access keys.
    pub fn hasher(&self) -> &Arc<KeyHasher> {
        &self.keys.hasher
    }

    /// Encrypts credentials.
    pub fn envelope(&self) -> &Arc<Envelope> {
        &self.keys.envelope
    }

    /// The cluster whose rows are written.
    pub fn cluster_id(&self) -> &str {
        &self.fence.cluster_id
    }
}

/// Postgres cannot be written to at the moment.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the database cannot be used: {why}")]
pub struct DatabaseAway {
    /// Since when, by the monotonic clock.
    pub since: Instant,
    /// A short reason for conditions; details are in the log.
    pub why: &'static str,
}

impl DatabaseAway {
    /// How long it has been away.
    pub fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}

#[derive(Clone)]
enum State {
    Away(DatabaseAway),
    Ready(Session),
}

/// The leader's view of Postgres; cheap to clone.
#[derive(Clone)]
pub struct Database {
    state: watch::Receiver<State>,
    suspicion: Arc<Notify>,
}

impl Database {
    /// The session of this leadership, or why there is none.
    pub fn session(&self) -> Result<Session, DatabaseAway> {
        match &*self.state.borrow() {
            State::Ready(session) => Ok(session.clone()),
            State::Away(away) => Err(*away),
        }
    }

    /// Tells that a query failed, so that the database is looked at now instead of in a moment.
    pub fn report(&self, error: &RepositoryError) {
        if error.is_unavailable() || matches!(error, RepositoryError::Deposed { .. }) {
            self.suspicion.notify_one();
        }
    }

    /// Yields each time the database became ready, the first time included (at once, if it is ready now).
    pub fn reconnections(&self) -> impl Stream<Item = ()> + Send + use<> {
        WatchStream::new(self.state.clone())
            .filter_map(|state| std::future::ready(matches!(state, State::Ready(_)).then_some(())))
    }

    /// Waits for a session.
    pub async fn ready(&self) -> Session {
        let mut state = self.state.clone();
        loop {
            if let State::Ready(session) = &*state.borrow_and_update() {
                return session.clone();
            }
            if state.changed().await.is_err() {
                // The supervisor has ended, and the process is about to.
                std::future::pending::<()>().await;
            }
        }
    }
}
