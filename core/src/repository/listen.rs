//! Hears of changes that proxies must see.

use sqlx::postgres::{PgListener, PgNotification, PgPoolOptions};
use uuid::Uuid;

use super::connection::DatabaseUrl;
use super::error::{RepositoryError, Result};

/// The channel that the triggers of keys and configuration notify.
pub const CHANNEL: &str = "spillway_changes";
/// The channel that the triggers of circuits notify, with the pool's id as payload.
pub const CIRCUITS: &str = "spillway_circuits";

/// What changed since it was last asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys or configuration.
    pub configuration: bool,
    /// Circuits of these pools.
    pub circuits: Vec<Uuid>,
}

impl Changes {
    fn add(&mut self, notification: &PgNotification) {
        match notification.channel() {
            CIRCUITS => self.circuits.extend(notification.payload().parse::<Uuid>()),
            _ => self.configuration = true,
        }
    }
}

/// A connection of its own that listens. It must go to the server itself: poolers do not pass notifications on.
#[derive(Debug)]
pub struct ChangeFeed(PgListener);

impl ChangeFeed {
    /// Connects and listens. What changed before it returned must be read by the caller.
    pub async fn connect(url: &DatabaseUrl) -> Result<Self> {
        let options = url
            .options()
            .map_err(RepositoryError::during("read the database URL"))?
            .application_name("spillway-listen");
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(std::time::Duration::from_secs(5))
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(RepositoryError::during("listen for changes"))?;
        let mut listener = PgListener::connect_with(&pool)
            .await
            .map_err(RepositoryError::during("listen for changes"))?;
        listener.eager_reconnect(false);
        listener
            .listen_all([CHANNEL, CIRCUITS])
            .await
            .map_err(RepositoryError::during("listen for changes"))?;
        Ok(Self(listener))
    }

    /// Waits for the next change. Fails when the connection is lost: changes may have been missed then. May be dropped
    /// while it waits without losing one.
    pub async fn changed(&mut self) -> Result<Changes> {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into());
        match self.0.try_recv().await {
            Ok(Some(first)) => {
                // Several at once are told at once.
                let mut changes = Changes::default();
                changes.add(&first);
                while let Some(next) = self.0.next_buffered() {
                    changes.add(&next);
                }
                Ok(changes)
            }
            Ok(None) => Err(RepositoryError::during("listen for changes")(lost())),
            Err(error) => Err(RepositoryError::during("listen for changes")(error)),
        }
    }

    /// One round trip on the listening connection: proof that nothing was missed up to now.
    pub async fn probe(&mut self) -> Result<()> {
        sqlx::query("SELECT 1")
            .execute(&mut self.0)
            .await
            .map(drop)
            .map_err(RepositoryError::during("probe the listening connection"))
    }
}
