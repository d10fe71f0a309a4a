//! Waiting for a condition, never for a time.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long something that has to happen may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Asks again and again until the answer is `Ok`; panics with the last `Err` after [`PATIENCE`].
pub async fn eventually<T, E: Display>(what: &str, ask: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(PATIENCE, what, ask).await
}

/// As [`eventually`], with a limit of its own.
pub async fn within<T, E: Display>(
    limit: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(reason) if Instant::now() >= deadline => {
                panic!("not within {limit:?}: {what}: {reason}")
            }
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}
