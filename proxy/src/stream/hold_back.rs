//! When a stream that could still fall over to another upstream is shown to the client.

use std::time::{Duration, Instant};

/// The most bytes that are held back.
const MAX_HELD: usize = 64 * 1024;

/// Decides when a held stream is let go: at its first content, or when it has been held long or large enough.
#[derive(Debug, Clone)]
pub struct HoldBack {
    longest: Duration,
    first_byte: Option<Instant>,
    held: usize,
    content: bool,
}

impl HoldBack {
    /// Holds for `longest` after the first byte at most.
    pub fn new(longest: Duration) -> Self {
        Self {
            longest,
            first_byte: None,
            held: 0,
            content: false,
        }
    }

    /// Notes that `bytes` more are held, whole events or not.
    pub fn hold(&mut self, bytes: usize, now: Instant) {
        self.first_byte.get_or_insert(now);
        self.held = self.held.saturating_add(bytes);
    }

    /// Notes that the stream has shown content.
    pub fn content(&mut self) {
        self.content = true;
    }

    /// Whether the stream is to be let go.
    pub fn is_released(&self, now: Instant) -> bool {
        self.content
            || self.held >= MAX_HELD
            || self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// When the stream is let go even if nothing more comes; `None` before the first byte.
    pub fn deadline(&self) -> Option<Instant> {
        self.first_byte.map(|first| first + self.longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn content_lets_go_at_once() {
        let now = Instant::now();
        let mut hold = HoldBack::new(SECOND * 10);
        assert!(
            !hold.is_released(now + SECOND * 100),
            "nothing to let go before the first byte"
        );
        hold.hold(10, now);
        assert!(!hold.is_released(now));
        hold.content();
        assert!(hold.is_released(now));
    }

    #[test]
    fn time_runs_from_the_first_byte() {
        let now = Instant::now();
        let mut hold = HoldBack::new(SECOND * 10);
        assert_eq!(hold.deadline(), None);
        hold.hold(1, now);
        hold.hold(1, now + SECOND * 9);
        assert_eq!(hold.deadline(), Some(now + SECOND * 10));
        assert!(!hold.is_released(now + SECOND * 9));
        assert!(hold.is_released(now + SECOND * 10));
    }

    #[test]
    fn size_lets_go() {
        let now = Instant::now();
        let mut hold = HoldBack::new(SECOND * 10);
        hold.hold(MAX_HELD - 1, now);
        assert!(!hold.is_released(now));
        hold.hold(1, now);
        assert!(hold.is_released(now));
    }
}
