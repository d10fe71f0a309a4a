//! Hears of changes that proxies must see.

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::connection::DatabaseUrl;
use super::error::{RepositoryError, Result};

/// The channel that the triggers of keys and configuration notify.
pub const CHANNEL: &str = "spillway_changes";

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
            .listen(CHANNEL)
            .await
            .map_err(RepositoryError::during("listen for changes"))?;
        Ok(Self(listener))
    }

    /// Waits for the next change. Fails when the connection is lost: changes may have been missed then. May be dropped
    /// while it waits without losing one.
    pub async fn changed(&mut self) -> Result<()> {
        let lost = || sqlx::Error::Io(std::io::ErrorKind::ConnectionAborted.into());
        match self.0.try_recv().await {
            Ok(Some(_)) => {
                // Several at once are one change.
                while self.0.next_buffered().is_some() {}
                Ok(())
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
