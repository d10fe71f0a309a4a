//! The local, durable list of usage records that are not in Postgres yet.
//!
//! A log of files: a record is appended when its request is admitted and again, in its final form, when it has ended. What
//! was written survives a killed process, for it is in the kernel's hands; nothing waits for the disk, so a power failure may
//! lose the last moments. An append is one system call on the way of the request, without a thread to wake and to wait for.
//! Only while the disk stalls are appends made elsewhere, one after the other, so that streams which do not need it go on: of
//! the runtime's threads a stall holds up the one that met it.
//! The flusher reads the files behind the writers, and files that nobody needs any more are removed.

mod frame;
mod log;
mod read;
mod recover;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use spillway_core::domain::usage::UsageRecord;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};

use self::frame::{Kind, decode, encode};
use self::log::{Log, SegmentId};
use self::read::Reader;
use crate::call::Closing;

/// An append that takes longer was not one to the kernel's memory: the disk stalls.
const STALLED: Duration = Duration::from_millis(20);

/// How many closed records are remembered: some seconds of a busy pod's.
const REMEMBERED: usize = 4096;

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The folder cannot be made, read or written.
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
    /// As many records as the spool may hold are waiting for Postgres.
    #[error("the spool is full")]
    Full,
    /// A file could not be written.
    #[error("the spool could not be written")]
    Unwritable,
    /// A file could not be read.
    #[error("the spool could not be read")]
    Unreadable(#[source] io::Error),
    /// A record could not be put into or out of its stored form.
    #[error("a usage record could not be encoded")]
    Encoding(#[from] serde_json::Error),
}

/// An open record's place.
#[derive(Debug)]
pub struct Slot {
    number: u64,
    segment: SegmentId,
}

/// A final record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its number, for [`Spool::remove`].
    pub number: u64,
    /// The record as it is in its file; empty where `record` is there.
    pub json: Vec<u8>,
    /// The record as it was closed, where this process did and it is given for the first time: then nothing need be decoded.
    pub record: Option<UsageRecord>,
}

/// The spool of one process.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
    next: AtomicU64,
    capacity: u64,
    _lock: File,
}

#[derive(Debug)]
struct Shared {
    log: Mutex<Files>,
    reader: Mutex<Reader>,
    /// Records that are open or not in Postgres.
    records: AtomicU64,
    /// The last append failed.
    failing: AtomicBool,
    /// The last append took long.
    stalled: AtomicBool,
    /// A record was closed.
    closed: Notify,
    /// The latest closed records that the flusher was not given yet.
    latest: Mutex<HashMap<u64, UsageRecord>>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug)]
struct Files {
    log: Log,
    /// Final records that could not be written. They come before all others, in their order.
    unwritten: VecDeque<Unwritten>,
}

#[derive(Debug)]
struct Unwritten {
    number: u64,
    opened_in: SegmentId,
    frame: Vec<u8>,
}

/// Appends that wait for a disk that stalls.
#[derive(Default)]
struct Waiting {
    appends: VecDeque<Append>,
    /// Whether a thread makes them.
    is_served: bool,
}

type Append = Box<dyn FnOnce(&mut Files, &Arc<Shared>) + Send>;

impl fmt::Debug for Waiting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiting")
            .field("appends", &self.appends.len())
            .finish_non_exhaustive()
    }
}

/// An open record on its way to who asked for it. Dropped on the way, it is cancelled: who asked has left, and no upstream was
/// asked.
struct Handed {
    shared: Arc<Shared>,
    slot: Option<Slot>,
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.shared.cancel(&slot);
        }
    }
}

impl Spool {
    /// Opens the spool in `dir`, which is this process's own until the spool is dropped, for `capacity` records. Records that
    /// an earlier process left open count as closed, in the form they were opened with (see [`super::record`]).
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn open(dir: &Path, capacity: u64) -> Result<Self, SpoolError> {
        let lock = lock(dir)?;
        let unusable = |source| SpoolError::Directory {
            path: dir.to_owned(),
            source,
        };
        let recovered = recover::recover(dir).map_err(unusable)?;
        if !recovered.interrupted.is_empty() {
            tracing::warn!(
                records = recovered.interrupted.len(),
                "requests of an earlier process were interrupted"
            );
        }
        let last_segment = recovered.segments.last().map_or(0, |(segment, _)| *segment);
        let mut log = Log::begin(dir, last_segment + 1).map_err(unusable)?;
        let mut records = 0;
        for (segment, unsent) in &recovered.segments {
            log.adopt(*segment, *unsent);
            records += unsent;
        }
        let first = recovered
            .segments
            .first()
            .map_or(last_segment + 1, |(segment, _)| *segment);
        let shared = Shared {
            log: Mutex::new(Files {
                log,
                unwritten: VecDeque::new(),
            }),
            reader: Mutex::new(Reader::new(dir, first, recovered.interrupted)),
            records: AtomicU64::new(records),
            failing: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            closed: Notify::new(),
            latest: Mutex::default(),
            waiting: Mutex::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            next: AtomicU64::new(recovered.last + 1),
            capacity,
            _lock: lock,
        })
    }

    /// Stores an open record. Resolves once it survives this process; dropped before, it leaves none.
    ///
    /// # Errors
    /// The spool is full or cannot be written: the request must not be served.
    pub async fn begin(&self, record: &UsageRecord) -> Result<Slot, SpoolError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let frame = encode(Kind::Open, number, |out| serde_json::to_writer(out, record))?;
        if self.shared.records.fetch_add(1, Ordering::Relaxed) >= self.capacity {
            self.shared.records.fetch_sub(1, Ordering::Relaxed);
            return Err(SpoolError::Full);
        }
        if let Some(mut files) = self.shared.files_at_once() {
            return self.shared.append_open(&mut files, number, &frame);
        }
        let (done, appended) = oneshot::channel();
        self.shared.hand_over(move |files, shared| {
            let handed = shared
                .append_open(files, number, &frame)
                .map(|slot| Handed {
                    shared: Arc::clone(shared),
                    slot: Some(slot),
                });
            // What nobody waits for is given back, and cancelled.
            let _ = done.send(handed);
        });
        let mut handed = appended.await.unwrap_or(Err(SpoolError::Unwritable))?;
        handed.slot.take().ok_or(SpoolError::Unwritable)
    }

    /// Replaces an open record by its final form. Takes effect without a later poll; what is returned resolves when the record
    /// survives this process.
    ///
    /// # Errors
    /// The record cannot be encoded.
    pub fn close(&self, slot: &Slot, record: UsageRecord) -> Result<Closing, SpoolError> {
        let frame = encode(Kind::Close, slot.number, |out| {
            serde_json::to_writer(out, &record)
        })?;
        let mut latest = self.shared.latest.lock();
        if latest.len() < REMEMBERED {
            latest.insert(slot.number, record);
        }
        drop(latest);
        let closed = Unwritten {
            number: slot.number,
            opened_in: slot.segment,
            frame,
        };
        if let Some(mut files) = self.shared.files_at_once() {
            self.shared.append_close(&mut files, closed);
            return Ok(Closing::done());
        }
        let (done, appended) = oneshot::channel();
        self.shared.hand_over(move |files, shared| {
            shared.append_close(files, closed);
            // Nobody need wait for it.
            let _ = done.send(());
        });
        Ok(Closing::after(appended))
    }

    /// The oldest closed records, at most `limit`: the same again until they are removed. Those that could not be written come
    /// last.
    ///
    /// # Errors
    /// A file cannot be read.
    pub async fn closed(&self, limit: usize) -> Result<Vec<Stored>, SpoolError> {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let mut reader = shared.reader.lock();
            reader
                .fill(limit, |segment| {
                    let files = shared.log.lock();
                    (files.log.extent(segment), files.log.next_after(segment))
                })
                .map_err(SpoolError::Unreadable)?;
            // The log may be held for as long as the disk stalls, `latest` by nobody who waits: calls that end need it.
            let mut stored = {
                let mut latest = shared.latest.lock();
                reader.first(limit, |number| latest.remove(&number))
            };
            drop(reader);
            let room = limit - stored.len();
            let files = shared.log.lock();
            let mut latest = shared.latest.lock();
            let unwritten = files.unwritten.iter().take(room);
            stored.extend(
                unwritten.filter_map(|closed| closed.stored(latest.remove(&closed.number))),
            );
            Ok(stored)
        })
        .await
        .unwrap_or(Err(SpoolError::Unwritable))
    }

    /// Forgets records that are in Postgres, and removes the files that nobody needs any more.
    pub async fn remove(&self, numbers: Vec<u64>) {
        let shared = Arc::clone(&self.shared);
        // It runs to its end though nobody may wait for it.
        let _ = tokio::task::spawn_blocking(move || shared.remove(&numbers)).await;
    }

    /// Writes what could not be written, or tries whether anything can: a pod that is not ready because its disk failed gets
    /// no requests that would show that it works again. Does nothing while the disk is well.
    pub async fn heal(&self) {
        if self.is_failing() || self.shared.stalled.load(Ordering::Relaxed) {
            let shared = Arc::clone(&self.shared);
            let _ = tokio::task::spawn_blocking(move || shared.probe()).await;
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
        self.records() >= self.capacity || self.is_failing()
    }

    fn is_failing(&self) -> bool {
        self.shared.failing.load(Ordering::Relaxed)
    }

    /// Resolves when a record has been closed since the last call.
    pub async fn wait_for_closed(&self) {
        self.shared.closed.notified().await;
    }
}

impl Shared {
    /// The files, unless the disk stalls.
    fn files_at_once(&self) -> Option<MutexGuard<'_, Files>> {
        if self.stalled.load(Ordering::Relaxed) {
            return None;
        }
        let files = self.log.try_lock_for(STALLED);
        if files.is_none() {
            self.stalled.store(true, Ordering::Relaxed);
        }
        files
    }

    /// Has an append made by the one thread that waits for the disk, behind those that came before it.
    fn hand_over(self: &Arc<Self>, append: impl FnOnce(&mut Files, &Arc<Self>) + Send + 'static) {
        let Ok(runtime) = Handle::try_current() else {
            return append(&mut self.log.lock(), self);
        };
        let mut waiting = self.waiting.lock();
        waiting.appends.push_back(Box::new(append));
        if !std::mem::replace(&mut waiting.is_served, true) {
            let shared = Arc::clone(self);
            runtime.spawn_blocking(move || shared.serve_waiting());
        }
    }

    fn serve_waiting(self: &Arc<Self>) {
        loop {
            let append = {
                let mut waiting = self.waiting.lock();
                let next = waiting.appends.pop_front();
                waiting.is_served = next.is_some();
                next
            };
            let Some(append) = append else { return };
            append(&mut self.log.lock(), self);
        }
    }

    fn append_open(
        &self,
        files: &mut Files,
        number: u64,
        frame: &[u8],
    ) -> Result<Slot, SpoolError> {
        let Some(segment) = self.append(files, frame, Log::opened) else {
            self.records.fetch_sub(1, Ordering::Relaxed);
            return Err(SpoolError::Unwritable);
        };
        Ok(Slot { number, segment })
    }

    /// What cannot be written is kept and written later: an ended request must not be forgotten.
    fn append_close(&self, files: &mut Files, closed: Unwritten) {
        let appended = self.append(files, &closed.frame, |log, segment| {
            log.closed(segment);
            log.ended(closed.opened_in);
        });
        if appended.is_none() {
            files.unwritten.push_back(closed);
        }
        self.closed.notify_one();
    }

    fn cancel(self: &Arc<Self>, slot: &Slot) {
        let segment = slot.segment;
        if let Ok(frame) = encode(Kind::Cancel, slot.number, |_| Ok::<_, io::Error>(())) {
            self.hand_over(move |files, shared| {
                let cancelled = shared.append(files, &frame, |log, _| log.ended(segment));
                if cancelled.is_none() {
                    // Its file goes with the others in it, which is as good.
                    files.log.ended(segment);
                }
                shared.records.fetch_sub(1, Ordering::Relaxed);
            });
        }
    }

    /// Appends a frame, behind all that waited for it, and notes in the log what it is. `None` when nothing can be written.
    fn append(
        &self,
        files: &mut Files,
        frame: &[u8],
        note: impl FnOnce(&mut Log, SegmentId),
    ) -> Option<SegmentId> {
        let begun = Instant::now();
        let appended = files
            .write_unwritten()
            .and_then(|()| files.log.append(frame))
            .inspect(|segment| note(&mut files.log, *segment));
        let stalled = begun.elapsed() > STALLED;
        // Read first: a store would take the cache line from the other threads for each request.
        if self.stalled.load(Ordering::Relaxed) != stalled {
            self.stalled.store(stalled, Ordering::Relaxed);
        }
        match appended {
            Ok(segment) => {
                if self.failing.load(Ordering::Relaxed)
                    && self.failing.swap(false, Ordering::Relaxed)
                {
                    tracing::info!("spool can be written again");
                }
                Some(segment)
            }
            Err(error) => {
                if !self.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(error = %error, "spool cannot be written");
                }
                None
            }
        }
    }

    fn probe(&self) {
        if let Ok(nothing) = encode(Kind::Cancel, 0, |_| Ok::<_, io::Error>(())) {
            self.append(&mut self.log.lock(), &nothing, |_, _| {});
        }
    }

    fn remove(&self, numbers: &[u64]) {
        let mut reader = self.reader.lock();
        let mut files = self.log.lock();
        for number in numbers {
            if let Some(segment) = reader.take(*number) {
                files.log.sent(segment);
                self.records.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let sent: HashSet<u64> = if files.unwritten.is_empty() {
            HashSet::new()
        } else {
            numbers.iter().copied().collect()
        };
        self.records
            .fetch_sub(files.forget_unwritten(&sent), Ordering::Relaxed);
        let needless = files.log.take_needless(reader.segment());
        drop((files, reader));
        for file in needless {
            if let Err(error) = fs::remove_file(&file) {
                tracing::warn!(error = %error, file = %file.display(), "spool file cannot be removed");
            }
        }
    }
}

impl Files {
    fn write_unwritten(&mut self) -> io::Result<()> {
        while let Some(closed) = self.unwritten.front() {
            let segment = self.log.append(&closed.frame)?;
            self.log.closed(segment);
            self.log.ended(closed.opened_in);
            self.unwritten.pop_front();
        }
        Ok(())
    }

    /// Forgets final records that are in Postgres and need not be written any more. Returns how many.
    fn forget_unwritten(&mut self, sent: &HashSet<u64>) -> u64 {
        let before = self.unwritten.len();
        let log = &mut self.log;
        self.unwritten.retain(|closed| {
            let is_wanted = !sent.contains(&closed.number);
            if !is_wanted {
                log.ended(closed.opened_in);
            }
            is_wanted
        });
        (before - self.unwritten.len()) as u64
    }
}

impl Unwritten {
    fn stored(&self, record: Option<UsageRecord>) -> Option<Stored> {
        let json = if record.is_some() {
            Vec::new()
        } else {
            decode(&self.frame).ok()??.0.payload.to_vec()
        };
        Some(Stored {
            number: self.number,
            json,
            record,
        })
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

#[cfg(test)]
mod tests;
