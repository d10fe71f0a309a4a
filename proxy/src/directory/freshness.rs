//! How far what is in memory can be trusted.
//!
//! Every load and every answered probe of the listener proves that memory was current when it began, unless a change was
//! announced that is not loaded yet. Times are milliseconds since this was made, so that the hot path reads one atomic.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// After this long without proof, keys are checked in Postgres.
pub(super) const UNPROVEN_AFTER: Duration = Duration::from_secs(1);
/// After this long without proof, nothing in memory is believed any more.
pub(super) const EXPIRED_AFTER: Duration = Duration::from_hours(1);

/// What memory is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    /// Changes arrive within a second.
    Current,
    /// Changes may have been missed.
    Unproven,
    /// Nothing was heard for too long.
    Expired,
}

/// Knows when memory was last proven to be current, and which announced changes it holds.
#[derive(Debug)]
pub(super) struct Proof {
    epoch: Instant,
    proven_millis: AtomicI64,
    announced: AtomicU64,
    loaded: AtomicU64,
}

impl Proof {
    /// Nothing is proven yet.
    pub(super) fn new() -> Self {
        Self {
            epoch: Instant::now(),
            proven_millis: AtomicI64::new(i64::MIN / 2),
            // Ahead of `loaded`: nothing is proven before the first load.
            announced: AtomicU64::new(1),
            loaded: AtomicU64::new(0),
        }
    }

    /// What memory is worth now.
    pub(super) fn freshness(&self) -> Freshness {
        let age = self.millis(Instant::now()) - self.proven_millis.load(Ordering::Acquire);
        match u64::try_from(age).map_or(Duration::ZERO, Duration::from_millis) {
            age if age <= UNPROVEN_AFTER => Freshness::Current,
            age if age <= EXPIRED_AFTER => Freshness::Unproven,
            _ => Freshness::Expired,
        }
    }

    /// Whether what is in memory may be relied on at all.
    pub(super) fn is_usable(&self) -> bool {
        self.freshness() != Freshness::Expired
    }

    /// A change was announced, or may have been missed.
    pub(super) fn announce(&self) {
        self.announced.fetch_add(1, Ordering::AcqRel);
    }

    /// The number of changes announced so far: to be taken before a load begins.
    pub(super) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }

    /// Whether every announced change is in memory.
    pub(super) fn is_up_to_date(&self) -> bool {
        self.announced() == self.loaded.load(Ordering::Acquire)
    }

    /// A load that began at `began`, with `announced` changes, was put into memory.
    pub(super) fn loaded(&self, began: Instant, announced: u64) {
        self.loaded.store(announced, Ordering::Release);
        self.answered(began);
    }

    /// The listener answered a probe that was sent at `asked`.
    pub(super) fn answered(&self, asked: Instant) {
        if self.is_up_to_date() {
            self.proven_millis
                .fetch_max(self.millis(asked), Ordering::AcqRel);
        }
    }

    /// What is in memory now was last proven `age` ago, by another process: never current, for this one heard nothing yet.
    pub(super) fn inherited(&self, age: Duration) {
        let age = age.max(UNPROVEN_AFTER + Duration::from_millis(1));
        let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX / 4);
        self.proven_millis
            .fetch_max(self.millis(Instant::now()) - age, Ordering::AcqRel);
    }

    /// Milliseconds since this was made.
    pub(super) fn millis(&self, at: Instant) -> i64 {
        i64::try_from(at.saturating_duration_since(self.epoch).as_millis()).unwrap_or(i64::MAX / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_proven_before_the_first_load() {
        let proof = Proof::new();
        proof.answered(Instant::now());
        assert_eq!(proof.freshness(), Freshness::Expired);
        proof.loaded(Instant::now(), proof.announced());
        assert_eq!(proof.freshness(), Freshness::Current);
    }

    #[test]
    fn an_announced_change_that_is_not_loaded_proves_nothing() {
        let proof = Proof::new();
        let begun_before = proof.announced();
        proof.announce();
        proof.loaded(Instant::now(), begun_before);
        proof.answered(Instant::now());
        assert_eq!(proof.freshness(), Freshness::Expired);
        proof.loaded(Instant::now(), proof.announced());
        assert_eq!(proof.freshness(), Freshness::Current);
    }

    #[test]
    fn what_another_process_proved_counts_by_its_age() {
        for (age, freshness) in [
            (Duration::from_millis(10), Freshness::Unproven),
            (Duration::from_secs(2), Freshness::Unproven),
            (EXPIRED_AFTER + Duration::from_secs(2), Freshness::Expired),
        ] {
            let proof = Proof::new();
            proof.inherited(age);
            assert_eq!(proof.freshness(), freshness, "{age:?}");
        }
    }
}
