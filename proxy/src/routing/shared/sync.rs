//! Tells Postgres what this pod found, and hears what others found.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use spillway_core::repository::RepositoryError;
use spillway_core::repository::circuits::{self, CircuitName, Opening, PoolCircuits};
use tokio::sync::Notify;
use tokio::time::sleep;

use super::mirror::Mirror;
use super::{Shared, Word};
use crate::call::{CircuitSettings, PoolView};

/// Changes that come this close together are one load.
const DEBOUNCE: Duration = Duration::from_millis(20);
/// They are loaded at least this often, whatever was announced.
const REFRESH: Duration = Duration::from_secs(30);
/// How often what nobody asks for any more is deleted.
const FORGET: Duration = Duration::from_mins(10);
/// Waits between attempts to reach Postgres, doubled up to the longest.
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LONGEST_RETRY: Duration = Duration::from_secs(2);
/// How much longer than the settings allow a pause may seem, by the time that reading takes.
const SLACK: Duration = Duration::from_secs(1);

impl Shared {
    /// Keeps memory, Postgres and the mirror in step until it is dropped.
    pub(super) async fn run(self: Arc<Self>, changed: Arc<Notify>, mirror: Mirror) {
        let mut pool = self.pool.clone();
        let (mut wait, mut retry) = (Duration::ZERO, FIRST_RETRY);
        let mut forgot = Instant::now();
        loop {
            tokio::select! {
                () = self.wanted.notified() => {}
                () = changed.notified() => sleep(DEBOUNCE).await,
                Ok(()) = pool.changed() => {}
                () = sleep(wait) => {}
            }
            let Some(pool) = self.pool() else {
                wait = REFRESH;
                continue;
            };
            let is_due = forgot.elapsed() > FORGET;
            let synced = self.sync(&pool, is_due).await;
            self.is_loaded.store(true, Ordering::Release);
            match synced {
                Ok(()) => {
                    if self.is_away.swap(false, Ordering::AcqRel) {
                        tracing::info!("circuits are shared again");
                    }
                    (wait, retry) = (REFRESH, FIRST_RETRY);
                    if is_due {
                        forgot = Instant::now();
                    }
                }
                Err(error) => {
                    if !self.is_away.swap(true, Ordering::AcqRel) {
                        tracing::warn!(error = %error, "circuits cannot be shared: going on with what this process knows");
                    }
                    wait = retry;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
            self.write(&pool, &mirror).await;
        }
    }

    async fn sync(&self, pool: &PoolView, forget: bool) -> Result<(), RepositoryError> {
        self.tell(pool).await?;
        if forget {
            circuits::forget(&self.database, pool.id).await?;
        }
        self.load(pool).await
    }

    /// Tells Postgres everything that is to be told. What it refuses is kept to this process.
    async fn tell(&self, pool: &PoolView) -> Result<(), RepositoryError> {
        loop {
            let next = {
                let mut state = self.state.lock();
                let name = state.outbox.keys().next().cloned();
                name.and_then(|name| state.outbox.remove_entry(&name))
            };
            let Some((name, word)) = next else {
                return Ok(());
            };
            let told = match &word {
                Word::Opened { reason } => self.tell_opened(pool, &name, reason).await,
                Word::Closed { opening } => {
                    circuits::close(&self.database, pool.id, &name, *opening)
                        .await
                        .map(drop)
                }
                Word::Freed => circuits::free(&self.database, pool.id, &name, self.me).await,
            };
            let Err(error) = told else { continue };
            let mut state = self.state.lock();
            if error.is_unavailable() {
                // Unless there is newer word by now.
                state.outbox.entry(name).or_insert(word);
                return Err(error);
            }
            tracing::error!(error = %error, plan_credential = %name.credential, "a circuit is not shared");
            if let Some(breaker) = state.circuits.get_mut(&name) {
                breaker.share(None);
            }
        }
    }

    async fn tell_opened(
        &self,
        pool: &PoolView,
        name: &CircuitName,
        reason: &str,
    ) -> Result<(), RepositoryError> {
        let now = Instant::now();
        let (opening, resets) = {
            let mut state = self.state.lock();
            let resets = state.resets;
            let opening = state.circuits.get_mut(name).and_then(|breaker| {
                let (since, until) = breaker.opening(now)?;
                Some(Opening {
                    name: name.clone(),
                    id: breaker.shared()?,
                    reason: reason.to_owned(),
                    age: now.saturating_duration_since(since),
                    pause: until.saturating_duration_since(now),
                })
            });
            (opening, resets)
        };
        let Some(opening) = opening else {
            return Ok(());
        };
        // A process that never loaded them cannot know of a reset, and found this after it, or before an outage.
        let resets = match resets {
            Some(resets) => resets,
            None => circuits::load(&self.database, pool.id).await?.resets,
        };
        circuits::open(&self.database, pool.id, resets, &opening)
            .await
            .map(drop)
    }

    /// Takes over what Postgres knows.
    pub(super) async fn load(&self, pool: &PoolView) -> Result<(), RepositoryError> {
        let loaded = circuits::load(&self.database, pool.id).await?;
        let longest = pool.circuit.reset_timeout;
        let allowed = i64::try_from((longest + SLACK).as_millis()).unwrap_or(i64::MAX);
        let is_too_long = loaded.open.iter().any(|row| row.remaining_ms > allowed);
        self.merge(&loaded, &pool.circuit, Instant::now());
        if is_too_long {
            circuits::shorten(&self.database, pool.id, longest).await?;
        }
        Ok(())
    }

    /// What Postgres says counts, except where this process has not told it something yet.
    fn merge(&self, loaded: &PoolCircuits, settings: &CircuitSettings, now: Instant) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let known = state.resets.replace(loaded.resets);
        if known.is_some_and(|known| known != loaded.resets) {
            tracing::info!("circuits were reset");
            state.circuits.clear();
            state.outbox.clear();
            state.is_mirrored = false;
        }
        let outbox = &state.outbox;
        let closed = state.circuits.close_shared(now, |name| {
            outbox.contains_key(name) || loaded.open.iter().any(|row| row.name == *name)
        });
        state.is_mirrored &= !closed;
        for row in &loaded.open {
            if !state.outbox.contains_key(&row.name) {
                state.adopt(row, Some(self.me), settings, now);
            }
        }
        state.circuits.tidy(settings, now);
    }

    /// Writes the mirror where it holds something else than memory.
    async fn write(&self, pool: &PoolView, mirror: &Mirror) {
        let content = {
            let mut state = self.state.lock();
            if std::mem::replace(&mut state.is_mirrored, true) {
                return;
            }
            Mirror::content(&mut state, pool.id, Instant::now())
        };
        let mirror = mirror.clone();
        let written = tokio::task::spawn_blocking(move || mirror.write(&content)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(error = %error, "circuits cannot be mirrored: a start without the database would not know them");
        }
    }
}
