//! Keys and configuration of the pool, in memory: one look-up per request, without a lock and without a round trip.
//!
//! [`watch`] keeps it current. While changes cannot be heard, keys are confirmed in Postgres as long as it answers, and
//! served as they are known while it does not, for at most an hour.

mod credentials;
mod freshness;
mod index;
mod load;
mod mirror;
mod recheck;
mod standing;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use chrono::{DateTime, Utc};
use spillway_core::security::hasher::{KeyHash, KeyHasher};
use spillway_core::security::key::AccessKeyToken;
use tokio::sync::{Notify, watch as channel};
use uuid::Uuid;

use crate::call::PoolView;
use crate::directory::freshness::{Freshness, Proof};
use crate::directory::index::Index;
use crate::directory::recheck::Recheck;
use crate::http::error::Refusal;

pub use index::{KeyEntry, PoolDefaults};
pub use load::SecretMismatch;
pub use watch::{DirectorySettings, Watching, start};

/// Seconds after which a client may try again whose key could not be looked up.
const RETRY_AFTER: u32 = 2;
/// How long an unknown key waits for what Postgres knows of it to be loaded.
const LOAD_WAIT: Duration = Duration::from_secs(2);

/// The keys of the pool.
#[derive(Debug)]
pub struct Directory {
    hasher: KeyHasher,
    /// Nothing before the first load.
    index: ArcSwapOption<Index>,
    /// Counts the indexes that have been put there.
    revision: AtomicU64,
    /// The pool's row, once it is known.
    pool_id: ArcSwap<Option<Uuid>>,
    /// What the pool says, as it was last loaded.
    pool: channel::Sender<Option<Arc<PoolView>>>,
    /// Tells that the pool's circuits changed, or may have.
    circuits: Arc<Notify>,
    proof: Proof,
    recheck: Recheck,
    /// Asks for a load.
    wanted: Notify,
    /// Tells of every load that was tried.
    tried: Notify,
}

impl Directory {
    /// Whether there is anything to serve by.
    pub fn is_loaded(&self) -> bool {
        self.index.load().is_some() && self.proof.is_usable()
    }

    /// Whether memory is proven to be current.
    pub fn is_current(&self) -> bool {
        self.proof.freshness() == Freshness::Current
    }

    /// Changes whenever an earlier answer of [`authenticate`](Self::authenticate) may not hold any more.
    pub fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// What the pool says, and each change of it. Nothing before the first load, and when it was deleted.
    pub fn pool(&self) -> channel::Receiver<Option<Arc<PoolView>>> {
        self.pool.subscribe()
    }

    /// Notified when the pool's circuits changed in Postgres, or may have. For one to wait.
    pub fn circuits(&self) -> Arc<Notify> {
        Arc::clone(&self.circuits)
    }

    fn install(&self, index: Index) {
        let pool = index.pool().cloned();
        self.pool.send_replace(pool);
        self.index.store(Some(Arc::new(index)));
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// Finds the key that a request presents, and whether it may be used at `now`.
    ///
    /// # Errors
    /// 401 for no, a mistyped, an unknown or a revoked key; 403 for one that is suspended, disabled or expired; 503 while
    /// that cannot be told.
    pub async fn authenticate(
        &self,
        presented: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<Arc<KeyEntry>, Refusal> {
        let Some(presented) = presented else {
            return Err(Refusal::unauthenticated(
                "no_key",
                "No access key: send it as x-api-key, as Authorization: Bearer, or in the path as /ak/<key>/",
            ));
        };
        let token = AccessKeyToken::parse(presented).map_err(|_| {
            Refusal::unauthenticated(
                "malformed_key",
                "Invalid access key: it is mistyped or incomplete",
            )
        })?;
        let found = self.find(&token);
        if self.is_current() {
            let (_, entry) = found.ok_or_else(unknown)?;
            entry.standing.admit(now)?;
            return Ok(entry);
        }
        self.authenticate_unproven(&token, found, now).await
    }

    /// The way that is taken while changes cannot be heard: Postgres has the last word while it answers.
    async fn authenticate_unproven(
        &self,
        token: &AccessKeyToken,
        found: Option<(KeyHash, Arc<KeyEntry>)>,
        now: DateTime<Utc>,
    ) -> Result<Arc<KeyEntry>, Refusal> {
        if let Some((hash, entry)) = found {
            let standing = match self.confirmed(&hash, &entry).await {
                Ok(Some(standing)) => standing,
                Ok(None) => return Err(unknown()),
                Err(recheck::Away) if self.proof.is_usable() => entry.standing,
                Err(recheck::Away) => return Err(away()),
            };
            standing.admit(now)?;
            return Ok(entry);
        }
        let Some(pool_id) = **self.pool_id.load() else {
            return Err(away());
        };
        for hash in self.hasher.hashes(token.expose()) {
            match self.recheck.ask(pool_id, &hash).await {
                // It is newer than what is in memory.
                Ok(Some(_)) => return self.after_load(token, now).await,
                Ok(None) => {}
                Err(recheck::Away) => return Err(away()),
            }
        }
        Err(unknown())
    }

    /// Waits for a load that began after the key was seen in Postgres.
    async fn after_load(
        &self,
        token: &AccessKeyToken,
        now: DateTime<Utc>,
    ) -> Result<Arc<KeyEntry>, Refusal> {
        let until = tokio::time::Instant::now() + LOAD_WAIT;
        loop {
            let tried = self.tried.notified();
            self.proof.announce();
            self.wanted.notify_one();
            if tokio::time::timeout_at(until, tried).await.is_err() {
                return Err(away());
            }
            if let Some((_, entry)) = self.find(token) {
                entry.standing.admit(now)?;
                return Ok(entry);
            }
        }
    }

    fn find(&self, token: &AccessKeyToken) -> Option<(KeyHash, Arc<KeyEntry>)> {
        let index = self.index.load();
        let index = index.as_ref()?;
        self.hasher
            .hashes(token.expose())
            .find_map(|hash| index.get(&hash).map(|entry| (hash, Arc::clone(entry))))
    }

    /// What Postgres says of a key in memory; asked at most once a second for each.
    async fn confirmed(
        &self,
        hash: &KeyHash,
        entry: &KeyEntry,
    ) -> Result<Option<standing::Standing>, recheck::Away> {
        let now = self.proof.millis(Instant::now());
        let unproven_after =
            i64::try_from(freshness::UNPROVEN_AFTER.as_millis()).unwrap_or(i64::MAX);
        if now - entry.confirmed_millis.load(Ordering::Relaxed) < unproven_after {
            return Ok(Some(entry.standing));
        }
        let answer = self.recheck.ask(entry.pool.id, hash).await?;
        if answer == Some(entry.standing) {
            entry.confirmed_millis.store(now, Ordering::Relaxed);
        }
        Ok(answer)
    }
}

fn unknown() -> Refusal {
    Refusal::unauthenticated(
        "unknown_key",
        "Invalid access key: it does not exist or was revoked",
    )
}

fn away() -> Refusal {
    Refusal::unavailable(
        "directory_away",
        "This access key cannot be checked at the moment; try again shortly",
        RETRY_AFTER,
    )
}
