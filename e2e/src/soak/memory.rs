//! Whether memory grows.

use std::io;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::bench::resident;

const INTERVAL: Duration = Duration::from_secs(5);

/// Memory at one time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Since the start.
    pub(super) at: Duration,
    /// Resident, in bytes.
    pub(super) bytes: u64,
}

/// Samples a process into `samples` for ever.
pub(super) async fn watch(pid: u32, samples: &mut Vec<Sample>) -> io::Error {
    let begun = Instant::now();
    loop {
        match resident(pid) {
            Ok(bytes) => samples.push(Sample {
                at: begun.elapsed(),
                bytes,
            }),
            Err(error) => return error,
        }
        sleep(INTERVAL).await;
    }
}

/// The medians of the second and of the last fifth: the first is warming up.
pub(super) fn early_and_late(samples: &[Sample]) -> (u64, u64) {
    let fifth = samples.len() / 5;
    let median = |part: &[Sample]| {
        let mut bytes: Vec<u64> = part.iter().map(|sample| sample.bytes).collect();
        bytes.sort_unstable();
        bytes.get(bytes.len() / 2).copied().unwrap_or_default()
    };
    (
        median(&samples[fifth..2 * fifth]),
        median(&samples[samples.len() - fifth..]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growth_is_told_from_warming_up() {
        let samples = |bytes: &[u64]| -> Vec<Sample> {
            let at = Duration::ZERO;
            bytes.iter().map(|&bytes| Sample { at, bytes }).collect()
        };
        assert_eq!(
            early_and_late(&samples(&[1, 5, 9, 9, 9, 9, 9, 9, 9, 9])),
            (9, 9)
        );
        assert_eq!(
            early_and_late(&samples(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10])),
            (4, 10)
        );
    }
}
