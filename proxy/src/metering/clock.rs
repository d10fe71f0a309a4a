//! Admission times: this machine's clock, corrected by its measured offset to the database's, so that the rows of all pods
//! fall into the same windows.

use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};

/// The corrected clock. Uncorrected until the offset was measured for the first time.
#[derive(Debug, Default)]
pub struct Clock {
    offset_micros: AtomicI64,
}

impl Clock {
    /// Now, in whole microseconds.
    pub fn now(&self) -> DateTime<Utc> {
        let offset = TimeDelta::microseconds(self.offset_micros.load(Ordering::Relaxed));
        (Utc::now() + offset).trunc_subsecs(6)
    }

    /// Takes over a measurement: the database said `theirs` to a question asked at `asked` and answered at `answered`, both
    /// by this machine's clock. Its answer is taken to be of half-way between.
    pub fn correct(&self, asked: DateTime<Utc>, theirs: DateTime<Utc>, answered: DateTime<Utc>) {
        let middle = asked + (answered - asked) / 2;
        if let Some(offset) = (theirs - middle).num_microseconds() {
            self.offset_micros.store(offset, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measured_offset_is_applied_and_times_are_whole_microseconds() {
        let clock = Clock::default();
        let asked = Utc::now();
        clock.correct(
            asked,
            asked + TimeDelta::milliseconds(90_010),
            asked + TimeDelta::milliseconds(20),
        );
        let ahead = clock.now() - Utc::now();
        assert!(
            (ahead - TimeDelta::seconds(90)).abs() < TimeDelta::milliseconds(500),
            "{ahead}"
        );
        assert_eq!(clock.now().timestamp_subsec_nanos() % 1000, 0);
    }
}
