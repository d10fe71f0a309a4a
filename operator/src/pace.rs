//! How fast status may be written that follows the traffic and not the resources.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// The most such writes in a second, all resources together.
const STATUS_WRITES_PER_SECOND: u32 = 10;

/// Gives turns; those who share it wait for each other.
#[derive(Debug, Clone)]
pub struct Pace(Arc<Mutex<Interval>>);

impl Pace {
    /// Ten turns a second.
    pub fn of_status_writes() -> Self {
        let mut turns = interval(Duration::from_secs(1) / STATUS_WRITES_PER_SECOND);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Arc::new(Mutex::new(turns)))
    }

    /// Waits for the next turn.
    pub async fn turn(&self) {
        self.0.lock().await.tick().await;
    }
}
