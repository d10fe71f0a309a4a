//! Circuits that all pods of a pool share, through Postgres.
//!
//! Requests see memory alone: what they find is noted there and told to Postgres by the task in [`sync`], which also hears
//! what other pods found. Only a probe asks first, because one pod alone is to make it. While Postgres is away each pod goes
//! on with what it knows, and tells what it found when Postgres is back.

mod mirror;
mod sync;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use spillway_core::repository::PgPool;
use spillway_core::repository::circuits::{self, CircuitName, Claim, OpenRow};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;
use uuid::Uuid;

use self::mirror::Mirror;
use super::breaker::{Gate, Seen, Turn};
use super::circuits::{Admittance, CircuitStore, Circuits, OpenCircuit, Report};
use crate::call::{CircuitSettings, PoolView};

/// How long a request waits for the right to probe. Without an answer it goes to Bedrock as before: a Postgres that is slow
/// delays nobody longer, and does not make two of them probe. While Postgres is known to be away, nobody asks it.
const CLAIM_PATIENCE: Duration = Duration::from_millis(500);
/// How long the start waits for Postgres before it goes on with the mirror.
const FIRST_LOAD_TIMEOUT: Duration = Duration::from_secs(1);

/// What shared circuits are made with.
#[derive(Debug)]
pub struct SharedSettings {
    /// Where they are shared.
    pub database: PgPool,
    /// The pool, once it is known, and its settings.
    pub pool: watch::Receiver<Option<Arc<PoolView>>>,
    /// Tells that another process changed them, or that this may have been missed.
    pub changed: Arc<Notify>,
    /// Where a mirror of them is kept, for a start without Postgres.
    pub mirror_dir: PathBuf,
}

/// Circuits shared by all pods of a pool. The task that keeps them so ends when this is dropped.
#[derive(Debug)]
pub struct SharedCircuits {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for SharedCircuits {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SharedCircuits {
    /// Loads the pool's circuits, from the mirror what Postgres does not say in time, and keeps them current.
    pub async fn start(settings: SharedSettings) -> Self {
        let mirror = Mirror::new(&settings.mirror_dir);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            me: Uuid::new_v4(),
            database: settings.database,
            pool: settings.pool,
            wanted: Notify::new(),
            is_away: AtomicBool::new(false),
            is_loaded: AtomicBool::new(false),
        });
        if let Some(pool) = shared.pool() {
            shared.restore(mirror.read(pool.id), &pool.circuit);
            let loaded = timeout(FIRST_LOAD_TIMEOUT, shared.load(&pool)).await;
            shared.set_away(!matches!(loaded, Ok(Ok(()))));
            shared.is_loaded.store(true, Ordering::Release);
        }
        let task = tokio::spawn(Arc::clone(&shared).run(settings.changed, mirror));
        Self { shared, task }
    }
}

impl CircuitStore for SharedCircuits {
    fn admit(&self, credential: Uuid, model: &str, now: Instant) -> Admittance {
        let mut state = self.shared.state.lock();
        state.circuits.admit(credential, model, now)
    }

    fn claim(&self, name: CircuitName) -> BoxFuture<'static, Gate> {
        Arc::clone(&self.shared).claim(name).boxed()
    }

    fn is_open(&self, credential: Uuid, model: &str, now: Instant) -> bool {
        let state = self.shared.state.lock();
        state.circuits.is_open(credential, model, now)
    }

    fn settle(&self, report: &Report<'_>, settings: &CircuitSettings, now: Instant) -> bool {
        let mut state = self.shared.state.lock();
        let turns = state.circuits.settle(report, settings, now);
        let mut is_news = false;
        for (turn, model) in [(turns.whole, None), (turns.model, Some(report.model))] {
            let Some(turn) = turn else { continue };
            let name = CircuitName {
                credential: report.credential,
                model: model.map(str::to_owned),
            };
            let reason = report.reason.map_or("unknown", |reason| reason.as_str());
            is_news |= state.note(name, turn, reason);
        }
        drop(state);
        if is_news {
            self.shared.wanted.notify_one();
        }
        turns.opened()
    }

    fn open(&self) -> Vec<OpenCircuit> {
        self.shared.state.lock().circuits.open(Instant::now())
    }

    fn is_loaded(&self) -> bool {
        self.shared.is_loaded.load(Ordering::Acquire)
    }
}

/// What requests and the task work on.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// This process, to claimants.
    me: Uuid,
    database: PgPool,
    pool: watch::Receiver<Option<Arc<PoolView>>>,
    /// Wakes the task: there is something to tell, or to read again.
    wanted: Notify,
    /// Postgres did not answer the last time.
    is_away: AtomicBool,
    is_loaded: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    circuits: Circuits,
    /// What Postgres is to be told, the newest of each circuit.
    outbox: HashMap<CircuitName, Word>,
    /// Circuits whose probe is being claimed.
    asking: HashSet<CircuitName>,
    /// How often the circuits had been reset when they were last loaded.
    resets: Option<i64>,
    /// Whether the mirror holds what is here.
    is_mirrored: bool,
}

/// What Postgres is to be told of a circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Word {
    /// It opened; for how long is in memory.
    Opened { reason: String },
    /// It closed.
    Closed { opening: Uuid },
    /// Its probe was given back.
    Freed,
}

impl State {
    /// Notes a turn that others are to know. Returns whether there is something to tell.
    fn note(&mut self, name: CircuitName, turn: Turn, reason: &str) -> bool {
        let word = match turn {
            Turn::Opened if !can_be_stored(&name) => return false,
            Turn::Opened => {
                if let Some(breaker) = self.circuits.get_mut(&name) {
                    breaker.share(Some(Uuid::new_v4()));
                }
                Word::Opened {
                    reason: reason.to_owned(),
                }
            }
            Turn::Closed(None) => return false,
            Turn::Closed(Some(opening)) => Word::Closed { opening },
            Turn::Freed => {
                self.outbox.entry(name).or_insert(Word::Freed);
                return true;
            }
        };
        self.outbox.insert(name, word);
        self.is_mirrored = false;
        true
    }

    /// Gives up an own probe that is not to be made.
    fn release(&mut self, name: &CircuitName) {
        if let Some(breaker) = self.circuits.get_mut(name) {
            breaker.release();
        }
    }

    /// Takes over a row, with the probe of anybody but `me`.
    fn adopt(
        &mut self,
        row: &OpenRow,
        me: Option<Uuid>,
        settings: &CircuitSettings,
        now: Instant,
    ) -> Seen {
        let others = row.probe.filter(|(by, _)| Some(*by) != me);
        let seen = Seen {
            opening: row.opening,
            since: shifted(now, -row.age_ms),
            until: shifted(now, row.remaining_ms),
            claimed_until: others.map(|(_, left)| shifted(now, left)),
        };
        if self.circuits.adopt(&row.name, seen, settings, now) {
            self.is_mirrored = false;
        }
        seen
    }
}

/// Clients may name a model that Postgres has no text for; its circuit stays this process's own.
fn can_be_stored(name: &CircuitName) -> bool {
    !name.model.as_deref().unwrap_or_default().contains('\0')
}

/// `now` and so many milliseconds, or less where the clock does not go back so far.
fn shifted(now: Instant, millis: i64) -> Instant {
    let by = Duration::from_millis(millis.unsigned_abs());
    let shifted = if millis < 0 {
        now.checked_sub(by)
    } else {
        now.checked_add(by)
    };
    shifted.unwrap_or(now)
}

impl Shared {
    fn pool(&self) -> Option<Arc<PoolView>> {
        self.pool.borrow().clone()
    }

    fn set_away(&self, away: bool) {
        self.is_away.store(away, Ordering::Release);
    }

    /// See [`CircuitStore::claim`]. The claim goes on when the request does not, so that it is given back and not lost.
    async fn claim(self: Arc<Self>, name: CircuitName) -> Gate {
        let Some(pool) = self
            .pool()
            .filter(|_| !self.is_away.load(Ordering::Acquire))
        else {
            return Gate::Probe;
        };
        let later = Gate::Open {
            until: Instant::now() + CLAIM_PATIENCE,
        };
        let opening = {
            let mut state = self.state.lock();
            if state.asking.contains(&name) {
                // For a request whose client left.
                state.release(&name);
                return later;
            }
            if state.outbox.get(&name) == Some(&Word::Freed) {
                // The claim is still held, and wanted again.
                state.outbox.remove(&name);
                return Gate::Probe;
            }
            let is_told = !state.outbox.contains_key(&name);
            let breaker = state.circuits.get_mut(&name).filter(|_| is_told);
            let opening = breaker.and_then(|breaker| breaker.shared());
            if opening.is_some() {
                state.asking.insert(name.clone());
            }
            opening
        };
        let Some(opening) = opening else {
            return Gate::Probe;
        };
        let (answer, mut answered) = oneshot::channel();
        let asking = Arc::clone(&self);
        tokio::spawn(async move {
            let gate = asking.ask(&pool, &name, opening).await;
            let unwanted = answer.send(gate).is_err();
            asking.asked(name, gate, unwanted);
        });
        if let Ok(Ok(gate)) = timeout(CLAIM_PATIENCE, &mut answered).await {
            return gate;
        }
        // From here on it is given back, unless it came at this moment.
        answered.close();
        if let Ok(gate) = answered.try_recv() {
            return gate;
        }
        tracing::warn!("a probe is not claimed in time: the call goes on without it");
        later
    }

    /// Notes that a claim was answered. One that the request did not wait for is given back.
    fn asked(&self, name: CircuitName, gate: Gate, unwanted: bool) {
        let mut state = self.state.lock();
        state.asking.remove(&name);
        if unwanted && gate == Gate::Probe {
            state.release(&name);
            state.outbox.entry(name).or_insert(Word::Freed);
            self.wanted.notify_one();
        }
    }

    /// Claims a probe in Postgres.
    async fn ask(&self, pool: &PoolView, name: &CircuitName, opening: Uuid) -> Gate {
        let claimed = circuits::claim(&self.database, pool.id, name, self.me).await;
        let now = Instant::now();
        let mut state = self.state.lock();
        match claimed {
            Ok(Claim::Granted) => Gate::Probe,
            Ok(Claim::Refused(row)) => {
                state.release(name);
                let seen = state.adopt(&row, None, &pool.circuit, now);
                Gate::Open {
                    until: seen.claimed_until.unwrap_or(seen.until),
                }
            }
            Ok(Claim::Closed) => {
                let breaker = state.circuits.get_mut(name);
                if let Some(breaker) = breaker.filter(|breaker| breaker.shared() == Some(opening)) {
                    breaker.close(now);
                    state.is_mirrored = false;
                }
                Gate::Closed
            }
            Err(error) => {
                tracing::warn!(error = %error, "a probe is made without a claim");
                self.set_away(true);
                self.wanted.notify_one();
                Gate::Probe
            }
        }
    }
}
