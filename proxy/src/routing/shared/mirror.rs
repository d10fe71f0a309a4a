//! The open circuits on disk, so that a process which starts while Postgres is away leaves alone what its predecessor did.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use spillway_core::repository::circuits::CircuitName;
use uuid::Uuid;

use super::{Shared, State, Word};
use crate::call::CircuitSettings;
use crate::routing::breaker::Seen;

/// Raised when the form changes: a mirror of another form is not read.
const FORM: u32 = 1;
/// Larger than any mirror.
const MAX_SIZE: u64 = 8 * 1024 * 1024;

/// What the file holds. Times are by this machine's clock, which alone reads them again.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Content {
    form: u32,
    pool_id: Uuid,
    resets: Option<i64>,
    open: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    credential: Uuid,
    model: Option<String>,
    opening: Uuid,
    since_ms: u64,
    until_ms: u64,
    /// Why it opened, where Postgres was not told yet.
    untold: Option<String>,
}

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Mirror(PathBuf);

impl Mirror {
    pub(super) fn new(dir: &Path) -> Self {
        Self(dir.join("circuits.json"))
    }

    /// What is to be written of a pool's circuits.
    pub(super) fn content(state: &mut State, pool_id: Uuid, now: Instant) -> Content {
        let wall = wall_ms();
        let at = |time: Instant| {
            let ahead = i128::try_from(time.saturating_duration_since(now).as_millis());
            let behind = i128::try_from(now.saturating_duration_since(time).as_millis());
            let off = ahead.unwrap_or(0) - behind.unwrap_or(0);
            u64::try_from(i128::from(wall) + off).unwrap_or(0)
        };
        let mut open = Vec::new();
        for circuit in state.circuits.open(now) {
            let name = CircuitName {
                credential: circuit.credential,
                model: circuit.model,
            };
            let untold = match state.outbox.get(&name) {
                Some(Word::Opened { reason }) => Some(reason.clone()),
                _ => None,
            };
            let opening = state.circuits.get_mut(&name).and_then(|it| it.shared());
            if let Some(opening) = opening {
                open.push(Entry {
                    credential: name.credential,
                    model: name.model,
                    opening,
                    since_ms: at(circuit.since),
                    until_ms: at(circuit.until),
                    untold,
                });
            }
        }
        Content {
            form: FORM,
            pool_id,
            resets: state.resets,
            open,
        }
    }

    /// Replaces the file as a whole, readable by this user only.
    pub(super) fn write(&self, content: &Content) -> io::Result<()> {
        let json = serde_json::to_vec(content)?;
        let new = self.0.with_extension("json.new");
        let mut file = File::options()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(&json)?;
        fs::rename(&new, &self.0)
    }

    /// What was written of this pool; nothing when there is no file or it cannot be used.
    pub(super) fn read(&self, pool_id: Uuid) -> Content {
        let read = || -> io::Result<Content> {
            if fs::metadata(&self.0)?.len() > MAX_SIZE {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            Ok(serde_json::from_slice(&fs::read(&self.0)?)?)
        };
        match read() {
            Ok(content) if content.form == FORM && content.pool_id == pool_id => content,
            Ok(_) => Content::default(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(error = %error, "the mirror of circuits is not used");
                }
                Content::default()
            }
        }
    }
}

impl Shared {
    /// Puts what the mirror holds into memory. A pause ends no later than the settings allow, whatever became of the clock.
    pub(super) fn restore(&self, content: Content, settings: &CircuitSettings) {
        let (now, wall) = (Instant::now(), wall_ms());
        let before = |ms: u64| {
            let by = Duration::from_millis(wall.saturating_sub(ms));
            now.checked_sub(by).unwrap_or(now)
        };
        let mut state = self.state.lock();
        state.resets = content.resets;
        for entry in content.open {
            let left = Duration::from_millis(entry.until_ms.saturating_sub(wall));
            let until = if left.is_zero() {
                before(entry.until_ms)
            } else {
                now + left.min(settings.reset_timeout)
            };
            let name = CircuitName {
                credential: entry.credential,
                model: entry.model,
            };
            let seen = Seen {
                opening: entry.opening,
                since: before(entry.since_ms),
                until,
                claimed_until: None,
            };
            state.circuits.adopt(&name, seen, settings, now);
            if let Some(reason) = entry.untold {
                state.outbox.insert(name, Word::Opened { reason });
            }
        }
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
