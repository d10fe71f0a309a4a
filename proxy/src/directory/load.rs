//! Loads the pool: from Postgres, or from the mirror at a start without it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_core::domain::pool::{KeyCheck, PoolSnapshot, SecretKind};
use spillway_core::repository::{RepositoryError, snapshot};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use sqlx::PgPool;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::directory::Directory;
use crate::directory::credentials::Vault;
use crate::directory::index::{Index, PoolDefaults};
use crate::directory::mirror::Mirror;
use crate::metrics::Metrics;

/// Changes that come this close together are one load.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// Loads in a row that a later change may outdate before one is used all the same: an operator that never pauses must not
/// keep a pod on keys that are older still.
const MOST_SUPERSEDED: u32 = 5;
/// Waits until credentials are decrypted again that AWS KMS did not answer for.
const RETRY_CREDENTIALS: Duration = Duration::from_secs(5);
/// A load that Postgres takes longer for is given up.
const LOAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Waits between loads that fail, doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);

/// This process holds another secret than the one that keys or credentials were made with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: the secret with id `{secret_id}` is not the one that this cluster's keys and credentials were made with: give every operator and proxy the same",
    kind.variable()
)]
pub struct SecretMismatch {
    /// Which secret.
    pub kind: SecretKind,
    /// Its id.
    pub secret_id: String,
}

pub(super) fn own_checks(hasher: &KeyHasher, envelope: &Envelope) -> Vec<KeyCheck> {
    let of_hasher = hasher
        .check_values()
        .map(|(id, value)| (SecretKind::Hasher, id.to_owned(), value));
    let of_envelope = envelope
        .check_values()
        .into_iter()
        .map(|(id, value)| (SecretKind::Encryption, id, value));
    of_hasher
        .chain(of_envelope)
        .map(|(kind, secret_id, value)| KeyCheck {
            kind,
            secret_id,
            value,
        })
        .collect()
}

/// Compares check values of the same kind and id.
fn compare(own: &[KeyCheck], stored: &[KeyCheck]) -> Result<(), SecretMismatch> {
    let other = own.iter().find(|own| {
        stored.iter().any(|stored| {
            stored.kind == own.kind
                && stored.secret_id == own.secret_id
                && stored.value != own.value
        })
    });
    other.map_or(Ok(()), |own| {
        Err(SecretMismatch {
            kind: own.kind,
            secret_id: own.secret_id.clone(),
        })
    })
}

/// Why nothing was put into memory.
#[derive(Debug)]
pub(super) enum LoadError {
    /// Postgres is away, or does not understand.
    Database(Option<RepositoryError>),
    /// Postgres answers that there is no such pool.
    NoSuchPool,
    /// This process must not run.
    Mismatch(SecretMismatch),
    /// A change was announced meanwhile.
    Superseded,
}

/// Puts snapshots into memory, one at a time.
pub(super) struct Loader {
    pub(super) directory: Arc<Directory>,
    pub(super) database: PgPool,
    pub(super) cluster_id: String,
    pub(super) namespace: String,
    pub(super) pool: String,
    pub(super) vault: Vault,
    pub(super) defaults: PoolDefaults,
    pub(super) checks: Vec<KeyCheck>,
    pub(super) mirror: Mirror,
    /// What the mirror holds.
    pub(super) mirrored: Option<PoolSnapshot>,
    /// Loads in a row that were thrown away.
    pub(super) superseded: u32,
    /// The current failure was logged.
    pub(super) complained: bool,
    pub(super) metrics: Arc<Metrics>,
}

impl Loader {
    /// Loads whenever it is wanted, and at least every `interval`. Ends when this process must not run.
    /// `again` is when the load of the start is to be repeated.
    pub(super) async fn run(
        mut self,
        interval: Duration,
        again: Option<Duration>,
        report: oneshot::Sender<SecretMismatch>,
    ) {
        let mut wait = again.map_or(interval, |again| again.min(interval));
        let mut retry = FIRST_RETRY;
        // The start has tried once; what came of it shows in whether memory is up to date.
        if !self.directory.proof.is_up_to_date() {
            wait = retry;
        }
        let checked_at_start = self.directory.index.load().is_some();
        loop {
            if timeout(wait, self.directory.wanted.notified())
                .await
                .is_ok()
            {
                sleep(DEBOUNCE).await;
            }
            match self.load(LOAD_TIMEOUT).await {
                Ok(again) => {
                    wait = again.map_or(interval, |again| again.min(interval));
                    retry = FIRST_RETRY;
                }
                Err(LoadError::Superseded) => wait = Duration::ZERO,
                Err(LoadError::Mismatch(mismatch)) if !checked_at_start => {
                    let _ = report.send(mismatch);
                    return;
                }
                Err(LoadError::Mismatch(mismatch)) => {
                    tracing::error!(error = %mismatch, "keys and configuration are not loaded");
                    wait = interval;
                }
                Err(LoadError::Database(error)) => {
                    if !std::mem::replace(&mut self.complained, true) {
                        let error = error.map_or_else(
                            || "no answer in time".to_owned(),
                            |error| error.to_string(),
                        );
                        tracing::warn!(error, "keys and configuration cannot be loaded");
                    }
                    self.count("failed");
                    wait = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
                Err(LoadError::NoSuchPool) => {
                    self.count("no_such_pool");
                    wait = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
            self.directory.tried.notify_waiters();
        }
    }

    /// Loads once, with so much patience for Postgres. Returns when to load again although nothing changes.
    pub(super) async fn load(&mut self, patience: Duration) -> Result<Option<Duration>, LoadError> {
        let began = Instant::now();
        let announced = self.directory.proof.announced();
        let loading = snapshot::load(
            &self.database,
            &self.cluster_id,
            &self.namespace,
            &self.pool,
        );
        let Ok(loaded) = timeout(patience, loading).await else {
            return Err(LoadError::Database(None));
        };
        let Some(snapshot) = loaded.map_err(|error| LoadError::Database(Some(error)))? else {
            return self.no_such_pool(began, announced);
        };
        compare(&self.checks, &snapshot.key_checks).map_err(LoadError::Mismatch)?;
        let proof = &self.directory.proof;
        if proof.announced() != announced && self.superseded < MOST_SUPERSEDED {
            self.superseded += 1;
            self.count("superseded");
            return Err(LoadError::Superseded);
        }
        self.superseded = 0;
        if self.mirrored.as_ref() != Some(&snapshot) {
            self.mirror.outdated();
        }
        let again = self.install(&snapshot).await;
        self.directory.proof.loaded(began, announced);
        self.count("installed");
        if std::mem::take(&mut self.complained) {
            tracing::info!("keys and configuration are loaded again");
        }
        self.write_mirror(snapshot).await;
        Ok(again)
    }

    /// A pool that was deleted has no keys; one that never was is waited for.
    fn no_such_pool(
        &mut self,
        began: Instant,
        announced: u64,
    ) -> Result<Option<Duration>, LoadError> {
        if self.directory.index.load().is_some() {
            tracing::warn!(
                namespace = self.namespace,
                pool = self.pool,
                "pool was deleted: its keys are refused"
            );
            self.directory.install(Index::empty());
            self.mirrored = None;
            self.mirror.remove();
            self.directory.proof.loaded(began, announced);
            self.metrics.directory_keys.set(0);
            return Ok(None);
        }
        if !std::mem::replace(&mut self.complained, true) {
            tracing::warn!(
                cluster_id = self.cluster_id,
                namespace = self.namespace,
                pool = self.pool,
                "pool does not exist yet: waiting for it"
            );
        }
        // What another process knew of a pool of that name is not true any more.
        self.mirror.remove();
        Err(LoadError::NoSuchPool)
    }

    /// Puts what another process knew into memory. Nothing of it counts as current.
    pub(super) async fn load_mirror(&mut self) -> Result<(), SecretMismatch> {
        let (snapshot, age) = match self.mirror.read() {
            Ok(Some(mirrored)) => mirrored,
            Ok(None) => {
                tracing::warn!("database is away and there is no mirror: waiting");
                return Ok(());
            }
            Err(error) => {
                tracing::warn!(error = %error, "database is away and the mirror is not used");
                return Ok(());
            }
        };
        compare(&self.checks, &snapshot.key_checks)?;
        self.install(&snapshot).await;
        self.directory.proof.inherited(age);
        tracing::warn!(
            age_seconds = age.as_secs(),
            "database is away: serving the keys of the mirror"
        );
        self.mirrored = Some(snapshot);
        Ok(())
    }

    async fn install(&mut self, snapshot: &PoolSnapshot) -> Option<Duration> {
        let opened = self.vault.open(snapshot).await;
        let index = Index::build(snapshot, &mut self.vault, &self.defaults);
        self.metrics.directory_keys.set(gauge(index.len()));
        self.metrics
            .directory_unreadable_credentials
            .set(gauge(opened.unreadable));
        self.directory
            .pool_id
            .store(Arc::new(Some(snapshot.pool.id)));
        self.directory.install(index);
        opened.try_again.then_some(RETRY_CREDENTIALS)
    }

    async fn write_mirror(&mut self, snapshot: PoolSnapshot) {
        if self.mirrored.as_ref() == Some(&snapshot) {
            return;
        }
        self.mirrored = None;
        let mirror = self.mirror.clone();
        let written =
            tokio::task::spawn_blocking(move || mirror.write(&snapshot).map(|()| snapshot)).await;
        match written {
            Ok(Ok(snapshot)) => self.mirrored = Some(snapshot),
            Ok(Err(error)) => {
                tracing::warn!(error = %error, "mirror cannot be written: a start without the database would serve nobody");
            }
            Err(_) => {}
        }
    }

    fn count(&self, result: &str) {
        self.metrics
            .directory_loads
            .with_label_values(&[result])
            .inc();
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
