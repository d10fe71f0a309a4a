//! Connections that wait for their next request.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::Origin;
use super::connection::Connection;

/// Idle connections by origin, the last used first.
pub(super) struct Pool {
    idle: Mutex<HashMap<Origin, Vec<Idle>>>,
    max_idle: usize,
    timeout: Duration,
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

impl Pool {
    pub(super) fn new(max_idle: usize, timeout: Duration) -> Self {
        Self {
            idle: Mutex::default(),
            max_idle,
            timeout,
        }
    }

    /// A connection that its upstream has not closed.
    pub(super) fn take(&self, origin: &Origin) -> Option<Box<Connection>> {
        loop {
            let mut idle = self.idle.lock().get_mut(origin)?.pop()?;
            if idle.is_usable(self.timeout) {
                return Some(idle.connection);
            }
        }
    }

    /// Keeps a connection whose answer is read, unless there are enough.
    pub(super) fn put(&self, origin: Origin, mut connection: Box<Connection>) {
        if !connection.is_quiet() {
            return;
        }
        connection.shrink();
        let since = Instant::now();
        let mut all = self.idle.lock();
        let idle = all.entry(origin).or_default();
        if idle.len() < self.max_idle {
            idle.push(Idle { connection, since });
        }
    }

    pub(super) fn has(&self, origin: &Origin) -> bool {
        let all = self.idle.lock();
        all.get(origin).is_some_and(|idle| !idle.is_empty())
    }

    /// Closes what has waited too long or was closed by the upstream.
    fn tidy(&self) {
        let mut over = Vec::new();
        let mut all = self.idle.lock();
        all.retain(|_, idle| {
            over.extend(idle.extract_if(.., |one| !one.is_usable(self.timeout)));
            !idle.is_empty()
        });
        drop(all);
    }
}

impl Idle {
    fn is_usable(&mut self, timeout: Duration) -> bool {
        self.since.elapsed() < timeout && self.connection.is_quiet()
    }
}

/// Tidies the pool now and then, until it is dropped.
pub(super) fn reap(pool: Weak<Pool>, timeout: Duration) {
    tokio::spawn(async move {
        let mut ticks = interval(timeout / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(pool) = pool.upgrade() else { return };
            pool.tidy();
        }
    });
}
