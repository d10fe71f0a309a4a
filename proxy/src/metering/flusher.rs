//! Moves closed records from the spool to Postgres: in batches, exactly once, and from the spool only after the commit.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use spillway_core::domain::usage::UsageRecord;
use spillway_core::repository::{self, RepositoryError, usage};
use sqlx::PgPool;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metering::clock::Clock;
use crate::metering::spool::{Spool, Stored};
use crate::metrics::Metrics;

/// Rows of one insert.
const BATCH: usize = 500;
/// How long records may gather before they are sent: few of them are not worth a transaction each.
const GATHER: Duration = Duration::from_millis(200);
/// Waits while Postgres is away, doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// How long draining waits for records that are not closed yet.
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
/// How often a spool that cannot be written is tried.
const HEAL_INTERVAL: Duration = Duration::from_millis(500);
/// How often the offset of the clocks is measured.
const CLOCK_INTERVAL: Duration = Duration::from_mins(1);

/// Sends the spool's records.
#[derive(Debug)]
pub struct Flusher {
    spool: Arc<Spool>,
    database: PgPool,
    clock: Arc<Clock>,
    metrics: Arc<Metrics>,
}

/// Why a batch stays in the spool.
#[derive(Debug, thiserror::Error)]
enum FlushError {
    #[error(transparent)]
    Database(#[from] RepositoryError),
    #[error(transparent)]
    Spool(#[from] super::spool::SpoolError),
}

impl Flusher {
    /// A flusher from `spool` to `database` that also keeps `clock` right.
    pub fn new(
        spool: Arc<Spool>,
        database: PgPool,
        clock: Arc<Clock>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            spool,
            database,
            clock,
            metrics,
        }
    }

    /// Sends what is closed until `stop`. What is left then is for [`drain`](Self::drain).
    pub async fn run(&self, stop: &CancellationToken) {
        stop.run_until_cancelled(async {
            tokio::join!(self.run_forever(), self.heal_forever());
        })
        .await;
    }

    async fn heal_forever(&self) {
        loop {
            sleep(HEAL_INTERVAL).await;
            self.spool.heal().await;
        }
    }

    async fn run_forever(&self) {
        let mut retry = FIRST_RETRY;
        let mut measured: Option<Instant> = None;
        loop {
            if measured.is_none_or(|at| at.elapsed() > CLOCK_INTERVAL) && self.measure_clock().await
            {
                measured = Some(Instant::now());
            }
            match self.flush().await {
                Ok(sent) => {
                    if retry > FIRST_RETRY {
                        tracing::info!("usage is written to the database again");
                    }
                    retry = FIRST_RETRY;
                    if sent < BATCH {
                        let _ = timeout(CLOCK_INTERVAL, self.spool.wait_for_closed()).await;
                        sleep(GATHER).await;
                    }
                }
                Err(error) => {
                    self.metrics.flush_failures.inc();
                    if retry == FIRST_RETRY {
                        tracing::warn!(error = %error, records = self.spool.records(), "usage stays in the spool");
                    }
                    sleep(retry).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Sends everything until the spool is empty, for at most `patience`. Returns whether it is.
    pub async fn drain(&self, patience: Duration) -> bool {
        let emptied = timeout(patience, async {
            while self.spool.records() > 0 {
                match self.flush().await {
                    // The rest is still on its way into the files.
                    Ok(0) => sleep(DRAIN_PAUSE).await,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(error = %error, records = self.spool.records(), "usage stays in the spool");
                        sleep(FIRST_RETRY).await;
                    }
                }
            }
        });
        emptied.await.is_ok()
    }

    /// Sends one batch. Returns how many records left the spool.
    async fn flush(&self) -> Result<usize, FlushError> {
        let stored = self.spool.closed(BATCH).await?;
        if stored.is_empty() {
            return Ok(0);
        }
        let (mut done, (numbers, records)): (_, (Vec<u64>, Vec<UsageRecord>)) = self.decode(stored);
        match usage::insert(&self.database, &records).await {
            Ok(new) => {
                self.metrics.usage_rows.inc_by(new);
                done.extend(numbers);
                let sent = done.len();
                self.spool.remove(done).await;
                Ok(sent)
            }
            Err(error) if !error.is_row_refused() => Err(error.into()),
            Err(error) => {
                tracing::warn!(error = %error, records = records.len(), "usage batch was refused: sending its rows one by one");
                self.send_one_by_one(done, numbers.into_iter().zip(records))
                    .await
            }
        }
    }

    async fn send_one_by_one(
        &self,
        mut done: Vec<u64>,
        records: impl Iterator<Item = (u64, UsageRecord)>,
    ) -> Result<usize, FlushError> {
        let mut failed = None;
        for (number, record) in records {
            match self.send_alone(&record).await {
                Ok(()) => done.push(number),
                Err(error) if error.is_row_refused() => failed = Some(error),
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let sent = done.len();
        self.spool.remove(done).await;
        failed.map_or(Ok(sent), |error| Err(error.into()))
    }

    async fn send_alone(&self, record: &UsageRecord) -> Result<(), RepositoryError> {
        match usage::insert(&self.database, std::slice::from_ref(record)).await {
            Ok(new) => {
                self.metrics.usage_rows.inc_by(new);
                Ok(())
            }
            Err(error) if !error.is_row_refused() => Err(error),
            Err(error) => {
                tracing::error!(request_id = %record.request_id, error = %error, "usage row is refused by the database: see usage_rejects");
                usage::reject(&self.database, record, &error.to_string()).await?;
                self.metrics.usage_rejects.inc();
                Ok(())
            }
        }
    }

    /// Records that cannot be read (written by a version that this one does not understand) are logged whole, for they hold
    /// no secret, and given up: they would stop all others for ever.
    fn decode(&self, stored: Vec<Stored>) -> (Vec<u64>, (Vec<u64>, Vec<UsageRecord>)) {
        let mut unreadable = Vec::new();
        let mut readable = (
            Vec::with_capacity(stored.len()),
            Vec::with_capacity(stored.len()),
        );
        for row in stored {
            let record = row
                .record
                .map_or_else(|| serde_json::from_slice(&row.json), Ok);
            match record {
                Ok(record) => {
                    readable.0.push(row.number);
                    readable.1.push(record);
                }
                Err(error) => {
                    unreadable.push(row.number);
                    self.metrics.usage_rejects.inc();
                    tracing::error!(error = %error, record = %String::from_utf8_lossy(&row.json), "usage record cannot be read");
                }
            }
        }
        (unreadable, readable)
    }

    async fn measure_clock(&self) -> bool {
        let asked = Utc::now();
        match repository::clock(&self.database).await {
            Ok(theirs) => {
                self.clock.correct(asked, theirs, Utc::now());
                true
            }
            Err(error) => {
                tracing::debug!(error = %error, "database clock cannot be read");
                false
            }
        }
    }
}
