//! One circuit as a pure state machine: time comes in, decisions go out.

use std::time::{Duration, Instant};

use spillway_core::repository::circuits::{FORGOTTEN_AFTER, PROBE_CLAIM};
use uuid::Uuid;

use crate::call::CircuitSettings;

/// The parts that a window is counted in: what has left it is forgotten within a twelfth of its length.
const BUCKETS: usize = 12;
/// How far what is read again about an opening may be off, by the time that reading takes.
const SAME: Duration = Duration::from_secs(1);
/// The shortest time a circuit stays open.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// What a circuit says to a new attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Go ahead.
    Closed,
    /// Go ahead as the one that finds out whether the upstream is well again.
    Probe,
    /// Don't, until then.
    Open {
        /// When the next probe may go.
        until: Instant,
    },
}

/// How an attempt ended that was let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The upstream is well.
    Success,
    /// It is not, and asks to be left alone so long.
    Failure {
        /// How long to stay open, before it is clamped to the settings.
        pause: Duration,
        /// Whether this one failure is enough.
        decisive: bool,
    },
    /// Nothing was learnt.
    Nothing,
}

/// What a report did to a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It opened, or opened again after a probe.
    Opened,
    /// It closed; so the opening that it ended was known to others.
    Closed(Option<Uuid>),
    /// Its probe was given back.
    Freed,
}

/// A circuit that another process opened, or this one before it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    /// Identifies the opening.
    pub(super) opening: Uuid,
    /// When it opened.
    pub(super) since: Instant,
    /// When the next probe may go.
    pub(super) until: Instant,
    /// Until when another process has claimed the probe.
    pub(super) claimed_until: Option<Instant>,
}

/// A circuit.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    buckets: [Bucket; BUCKETS],
    /// The start of time, as far as `buckets` go.
    epoch: Instant,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Which twelfth since the epoch this counts.
    number: u64,
    attempts: u32,
    failures: u32,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    since: Instant,
    /// When it opened, opened again, or was heard of: what was let through before tells nothing of the time since.
    failed_at: Instant,
    until: Instant,
    probe: Option<Probe>,
    /// Identifies the opening to other processes, once they are told of it.
    opening: Option<Uuid>,
}

#[derive(Debug, Clone, Copy)]
struct Probe {
    /// When it is given to another.
    until: Instant,
    /// Whether this process makes it.
    is_own: bool,
}

impl Breaker {
    /// A closed circuit that has seen nothing.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            buckets: [Bucket::default(); BUCKETS],
            epoch: now,
            open: None,
        }
    }

    /// Asks to make an attempt. A probe is claimed by asking and must be settled with `probe` set, or is given to another
    /// after a minute.
    pub(super) fn admit(&mut self, now: Instant) -> Gate {
        let Some(open) = &mut self.open else {
            return Gate::Closed;
        };
        if now < open.until {
            return Gate::Open { until: open.until };
        }
        if now >= open.until + FORGOTTEN_AFTER {
            *self = Self::new(now);
            return Gate::Closed;
        }
        match open.probe {
            Some(probe) if now < probe.until => Gate::Open { until: probe.until },
            _ => {
                open.probe = Some(Probe {
                    until: now + PROBE_CLAIM,
                    is_own: true,
                });
                Gate::Probe
            }
        }
    }

    /// Reports how an attempt ended that was let through at `admitted_at`. Returns what that did to the circuit.
    pub(super) fn settle(
        &mut self,
        finding: Finding,
        admitted_at: Instant,
        probe: bool,
        settings: &CircuitSettings,
        now: Instant,
    ) -> Option<Turn> {
        match (finding, &mut self.open) {
            (Finding::Nothing, Some(open)) if probe => {
                if open.probe.is_some_and(|probe| probe.is_own) {
                    open.probe = None;
                    return Some(Turn::Freed);
                }
            }
            (Finding::Nothing, _) => {}
            // A success is as good as a probe's, whoever made the attempt, unless it is older than the failure.
            (Finding::Success, Some(open)) => {
                if admitted_at >= open.failed_at {
                    let opening = open.opening;
                    *self = Self::new(now);
                    return Some(Turn::Closed(opening));
                }
            }
            (Finding::Success, None) => self.count(settings, now).attempts += 1,
            (Finding::Failure { pause, .. }, Some(_)) => {
                if probe {
                    self.open(pause, settings, now);
                    return Some(Turn::Opened);
                }
            }
            (Finding::Failure { pause, decisive }, None) => {
                let bucket = self.count(settings, now);
                bucket.attempts += 1;
                bucket.failures += 1;
                if decisive || self.is_failing(settings, now) {
                    self.open(pause, settings, now);
                    return Some(Turn::Opened);
                }
            }
        }
        None
    }

    /// Since when and until when the circuit is open, or was before it became half-open; `None` when it is closed.
    pub(super) fn opening(&self, now: Instant) -> Option<(Instant, Instant)> {
        self.open
            .filter(|open| now < open.until + FORGOTTEN_AFTER)
            .map(|open| (open.since, open.until))
    }

    /// The opening that other processes know of, or are about to.
    pub(super) fn shared(&self) -> Option<Uuid> {
        self.open?.opening
    }

    /// Names the opening, to be told to other processes; `None` keeps it to this one.
    pub(super) fn share(&mut self, opening: Option<Uuid>) {
        if let Some(open) = &mut self.open {
            open.opening = opening;
        }
    }

    /// Whether this process makes the probe.
    #[cfg(test)]
    pub(super) fn is_probing(&self) -> bool {
        self.open
            .and_then(|open| open.probe)
            .is_some_and(|probe| probe.is_own)
    }

    /// Takes over what another process found. Returns whether that is news.
    pub(super) fn adopt(&mut self, seen: Seen, now: Instant) -> bool {
        let known = self.open.filter(|open| open.opening == Some(seen.opening));
        let probe = match (seen.claimed_until, known.and_then(|open| open.probe)) {
            (Some(until), _) => Some(Probe {
                until,
                is_own: false,
            }),
            (None, probe) => probe.filter(|probe| probe.is_own),
        };
        // Read again, it is the same but for the time that reading took.
        let off = |known: Open| known.until.max(seen.until) - known.until.min(seen.until);
        if let Some(known) = known.filter(|known| off(*known) < SAME) {
            self.open = Some(Open { probe, ..known });
            return false;
        }
        if known.is_none() {
            *self = Self::new(now);
        }
        self.open = Some(Open {
            since: seen.since,
            failed_at: known.map_or(now, |known| known.failed_at),
            until: seen.until,
            probe,
            opening: Some(seen.opening),
        });
        true
    }

    /// Gives up an own probe that is not this process's to make.
    pub(super) fn release(&mut self) {
        if let Some(open) = &mut self.open {
            open.probe = open.probe.filter(|probe| !probe.is_own);
        }
    }

    /// Ends its pause at `latest`, for the settings allow no more.
    pub(super) fn shorten(&mut self, latest: Instant) {
        if let Some(open) = &mut self.open {
            open.until = open.until.min(latest);
        }
    }

    /// Closes it, since others found that it is well or that it is not wanted.
    pub(super) fn close(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Whether it is closed and remembers nothing.
    pub(super) fn is_idle(&self, settings: &CircuitSettings, now: Instant) -> bool {
        self.opening(now).is_none() && self.counts(settings, now) == (0, 0)
    }

    fn open(&mut self, pause: Duration, settings: &CircuitSettings, now: Instant) {
        let pause = pause.min(settings.reset_timeout).max(MIN_PAUSE);
        let since = self.open.map_or(now, |open| open.since);
        self.buckets = [Bucket::default(); BUCKETS];
        self.open = Some(Open {
            since,
            failed_at: now,
            until: now + pause,
            probe: None,
            opening: None,
        });
    }

    fn is_failing(&self, settings: &CircuitSettings, now: Instant) -> bool {
        let (attempts, failures) = self.counts(settings, now);
        failures >= settings.failure_threshold.max(1)
            && u64::from(failures) * 100 >= u64::from(attempts) * u64::from(settings.failure_rate)
    }

    /// Attempts and failures within the window.
    fn counts(&self, settings: &CircuitSettings, now: Instant) -> (u32, u32) {
        let current = self.number(settings, now);
        self.buckets
            .iter()
            .filter(|bucket| current.saturating_sub(bucket.number) < BUCKETS as u64)
            .fold((0, 0), |(attempts, failures), bucket| {
                (
                    attempts.saturating_add(bucket.attempts),
                    failures.saturating_add(bucket.failures),
                )
            })
    }

    fn count(&mut self, settings: &CircuitSettings, now: Instant) -> &mut Bucket {
        let number = self.number(settings, now);
        let at = usize::try_from(number % BUCKETS as u64).unwrap_or(0);
        let bucket = &mut self.buckets[at];
        if bucket.number != number {
            *bucket = Bucket {
                number,
                ..Bucket::default()
            };
        }
        bucket
    }

    fn number(&self, settings: &CircuitSettings, now: Instant) -> u64 {
        let width = (settings.failure_window / u32::try_from(BUCKETS).unwrap_or(1))
            .as_nanos()
            .max(1);
        u64::try_from(now.saturating_duration_since(self.epoch).as_nanos() / width)
            .unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
