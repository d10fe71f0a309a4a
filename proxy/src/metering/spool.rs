//! The local, durable list of usage records that are not in Postgres yet.
//!
//! `SQLite` in WAL mode with `synchronous=NORMAL`: a committed record survives a killed process (the WAL is in the kernel's
//! hands), without an fsync per request. A power failure may lose the last moments, and never damages the file.
//! One thread writes (see [`super::writer`]); the flusher reads over a connection of its own, which in WAL mode waits for nobody.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use spillway_core::domain::usage::UsageRecord;
use tokio::sync::{Notify, oneshot};

use crate::call::Closing;
use crate::metering::writer::{self, Command};

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder cannot be made or written.
    #[error("PROXY_SPOOL_DIR: cannot use {}: {source}", path.display())]
    Directory {
        /// What could not be used.
        path: PathBuf,
        /// The operating system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process holds the folder.
    #[error("PROXY_SPOOL_DIR: {} is in use by another process: give each proxy a folder of its own", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// `SQLite` refused.
    #[error("the spool's database failed")]
    Database(#[from] rusqlite::Error),
    /// The writer thread could not be started.
    #[error("the spool's writer could not be started")]
    Thread(#[source] io::Error),
    /// As many records as the spool may hold are waiting for Postgres.
    #[error("the spool is full")]
    Full,
    /// The writer could not commit, or has ended.
    #[error("the spool could not be written")]
    Unwritable,
    /// A record could not be put into or out of its stored form.
    #[error("a usage record could not be encoded")]
    Encoding(#[from] serde_json::Error),
}

/// What the writer and its users know of each other.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Records in the file or on their way into it. Counted up by who opens one, and down by the writer alone, which knows
    /// what became of it.
    pub(super) records: AtomicU64,
    /// The last commit failed.
    pub(super) failing: AtomicBool,
    /// A record was closed.
    pub(super) closed: Notify,
}

/// The spool of one process. Dropping it ends the writer after what is queued.
#[derive(Debug)]
pub struct Spool {
    commands: Sender<Command>,
    writer: Mutex<Option<JoinHandle<()>>>,
    reader: Arc<Mutex<Connection>>,
    shared: Arc<Shared>,
    next: AtomicI64,
    capacity: u64,
    file: PathBuf,
    _lock: File,
}

/// A record whose commit is awaited. When the client leaves meanwhile, no upstream was asked and the record must go.
struct Opening<'a> {
    spool: &'a Spool,
    seq: i64,
    settled: bool,
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if !self.settled {
            let _ = self.spool.commands.send(Command::Remove {
                seqs: vec![self.seq],
                done: None,
            });
        }
    }
}

/// The place of one open record.
#[derive(Debug)]
pub struct Slot(i64);

/// A closed record as it is stored.
#[derive(Debug)]
pub struct Stored {
    /// Its place, for [`Spool::remove`].
    pub seq: i64,
    /// The record as JSON.
    pub json: Vec<u8>,
}

impl Spool {
    /// Opens or makes the spool in `dir`, for this process alone. Records that an earlier process left open are closed as
    /// they stand, which is as `interrupted` (see [`super::record`]).
    ///
    /// # Errors
    /// The folder or the file cannot be used, or another process uses it.
    pub fn open(dir: &Path, capacity: u64) -> Result<Self, SpoolError> {
        let lock = lock(dir)?;
        let file = dir.join("spool.db");
        let connection = match prepare(&file) {
            Err(error) if is_damaged(&error) => {
                let aside = dir.join(format!(
                    "spool.db.damaged-{}",
                    chrono::Utc::now().timestamp()
                ));
                tracing::error!(kept_as = %aside.display(), error = %error, "spool file is damaged: put aside");
                fs::rename(&file, &aside).map_err(|source| SpoolError::Directory {
                    path: aside,
                    source,
                })?;
                prepare(&file)?
            }
            other => other?,
        };
        let interrupted =
            connection.execute("UPDATE records SET closed = 1 WHERE closed = 0", [])?;
        if interrupted > 0 {
            tracing::warn!(
                records = interrupted,
                "requests of an earlier process were interrupted"
            );
        }
        let (count, last): (i64, i64) = connection.query_row(
            "SELECT count(*), coalesce(max(seq), 0) FROM records",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        let reader = Connection::open(&file)?;
        let shared = Arc::new(Shared {
            records: AtomicU64::new(count.unsigned_abs()),
            ..Shared::default()
        });
        let (commands, queue) = channel();
        let writer = {
            let shared = Arc::clone(&shared);
            std::thread::Builder::new()
                .name("spool-writer".to_owned())
                .spawn(move || writer::run(connection, &queue, &shared))
                .map_err(SpoolError::Thread)?
        };
        Ok(Self {
            commands,
            writer: Mutex::new(Some(writer)),
            reader: Arc::new(Mutex::new(reader)),
            shared,
            next: AtomicI64::new(last + 1),
            capacity,
            file,
            _lock: lock,
        })
    }

    /// Stores an open record. Resolves once it survives this process.
    ///
    /// # Errors
    /// The spool is full or cannot be written: the request must not be served.
    pub async fn begin(&self, record: &UsageRecord) -> Result<Slot, SpoolError> {
        let json = serde_json::to_vec(record)?;
        if self.shared.records.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.shared.records.fetch_sub(1, Ordering::Relaxed);
            return Err(SpoolError::Full);
        }
        let mut opening = Opening {
            spool: self,
            seq: self.next.fetch_add(1, Ordering::Relaxed),
            settled: false,
        };
        let (done, committed) = oneshot::channel();
        let open = Command::Open {
            seq: opening.seq,
            json,
            done,
        };
        let written = self.commands.send(open).is_ok() && committed.await.is_ok();
        opening.settled = true;
        if written {
            Ok(Slot(opening.seq))
        } else {
            Err(SpoolError::Unwritable)
        }
    }

    /// Replaces an open record by its final form. Takes effect at once and without a later poll; what is returned resolves
    /// when the record survives this process.
    ///
    /// # Errors
    /// The record cannot be encoded.
    pub fn close(&self, slot: &Slot, record: &UsageRecord) -> Result<Closing, SpoolError> {
        let json = serde_json::to_vec(record)?;
        let (done, committed) = oneshot::channel();
        self.commands
            .send(Command::Close {
                seq: slot.0,
                json,
                done: Some(done),
            })
            .map_err(|_| SpoolError::Unwritable)?;
        Ok(Closing::after(committed))
    }

    /// The oldest closed records, at most `limit`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn closed(&self, limit: u32) -> Result<Vec<Stored>, SpoolError> {
        let reader = Arc::clone(&self.reader);
        tokio::task::spawn_blocking(move || {
            let reader = reader.lock();
            let mut statement = reader.prepare_cached(
                "SELECT seq, record FROM records WHERE closed = 1 ORDER BY seq LIMIT ?1",
            )?;
            let rows = statement.query_map([limit], |row| {
                Ok(Stored {
                    seq: row.get(0)?,
                    json: row.get(1)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
        .unwrap_or(Err(SpoolError::Unwritable))
    }

    /// Forgets records that are in Postgres. Resolves once that is committed.
    pub async fn remove(&self, seqs: Vec<i64>) {
        let (done, committed) = oneshot::channel();
        if self
            .commands
            .send(Command::Remove {
                seqs,
                done: Some(done),
            })
            .is_ok()
        {
            // An error means that the writer has ended: then the rows are sent again at the next start, and known there.
            let _ = committed.await;
        }
    }

    /// Moves the write-ahead log into the file when it has grown. The bulk is moved beside the writer; what remains, by it.
    pub async fn tidy(&self) {
        const LARGE: u64 = 16 * 1024 * 1024;
        let log = self.file.with_extension("db-wal");
        if fs::metadata(log).is_ok_and(|log| log.len() > LARGE) {
            let reader = Arc::clone(&self.reader);
            let moved =
                tokio::task::spawn_blocking(move || checkpoint(&reader.lock(), "PASSIVE")).await;
            if matches!(moved, Ok(Ok(()))) {
                let _ = self.commands.send(Command::CutLog);
            }
        }
    }

    /// Records waiting here, open ones included.
    pub fn records(&self) -> u64 {
        self.shared.records.load(Ordering::Relaxed)
    }

    /// The most records that may wait here.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Whether new requests must be refused.
    pub fn is_blocked(&self) -> bool {
        self.records() >= self.capacity || self.shared.failing.load(Ordering::Relaxed)
    }

    /// Resolves when a record has been closed since the last call.
    pub async fn wait_for_closed(&self) {
        self.shared.closed.notified().await;
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
        if let Some(writer) = self.writer.get_mut().take() {
            let _ = writer.join();
        }
    }
}

fn lock(dir: &Path) -> Result<File, SpoolError> {
    let unusable = |path: &Path| {
        let path = path.to_owned();
        move |source| SpoolError::Directory { path, source }
    };
    fs::create_dir_all(dir).map_err(unusable(dir))?;
    let path = dir.join("lock");
    let lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(unusable(&path))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SpoolError::Locked {
            path: dir.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(SpoolError::Directory { path, source }),
    }
}

fn prepare(file: &Path) -> Result<Connection, rusqlite::Error> {
    let connection = Connection::open(file)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    // Moving the log into the file costs an fsync: `tidy` decides when.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))?;
    connection.pragma_update(None, "user_version", writer::SCHEMA_VERSION)?;
    connection.execute_batch(
        "PRAGMA synchronous = NORMAL;
         CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, closed INTEGER NOT NULL, record BLOB NOT NULL) STRICT;",
    )?;
    Ok(connection)
}

pub(super) fn checkpoint(connection: &Connection, mode: &str) -> Result<(), rusqlite::Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_| Ok(()))
}

fn is_damaged(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
    )
}

#[cfg(test)]
mod tests;
