//! Asks Postgres about single keys while changes cannot be heard.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use spillway_core::repository::snapshot;
use spillway_core::security::hasher::KeyHash;
use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use crate::directory::standing::Standing;

/// How long a request waits for the answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long nobody asks after a question that was not answered, so that an outage costs one request in a while its patience
/// and the others nothing.
const BACK_OFF: Duration = Duration::from_secs(1);

/// Postgres does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Away;

#[derive(Debug)]
pub(super) struct Recheck {
    database: PgPool,
    epoch: Instant,
    away_until_millis: AtomicI64,
}

impl Recheck {
    pub(super) fn new(database: PgPool) -> Self {
        Self {
            database,
            epoch: Instant::now(),
            away_until_millis: AtomicI64::new(0),
        }
    }

    /// The standing of a key; `None` when there is no such living key.
    pub(super) async fn ask(
        &self,
        pool_id: Uuid,
        hash: &KeyHash,
    ) -> Result<Option<Standing>, Away> {
        if self.millis() < self.away_until_millis.load(Ordering::Relaxed) {
            return Err(Away);
        }
        match timeout(
            PATIENCE,
            snapshot::key_standing(&self.database, pool_id, hash),
        )
        .await
        {
            Ok(Ok(answer)) => Ok(answer.map(|key| {
                Standing::new(
                    key.suspended,
                    key.disabled,
                    key.expires_at,
                    key.version_expires_at,
                )
            })),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "key cannot be checked in the database");
                self.back_off();
                Err(Away)
            }
            Err(_) => {
                self.back_off();
                Err(Away)
            }
        }
    }

    fn back_off(&self) {
        let until = self.millis() + i64::try_from(BACK_OFF.as_millis()).unwrap_or(i64::MAX / 2);
        self.away_until_millis.store(until, Ordering::Relaxed);
    }

    fn millis(&self) -> i64 {
        i64::try_from(self.epoch.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }
}
