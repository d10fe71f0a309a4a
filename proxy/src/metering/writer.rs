//! The one thread that writes the spool: everything that is queued goes into one transaction, so that under load many
//! requests share a commit, and without load nobody waits for a timer.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rusqlite::{Connection, Transaction};
use tokio::sync::oneshot;

use crate::metering::spool::{Shared, checkpoint};

/// The most commands of one transaction: bounds how long the first of them waits.
const LARGEST_BATCH: usize = 256;
/// How soon what could not be committed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// `user_version` of the file.
pub(super) const SCHEMA_VERSION: u32 = 1;

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Command {
    /// Insert an open record. `done` is dropped unanswered when it could not be committed.
    Open {
        seq: i64,
        json: Vec<u8>,
        done: oneshot::Sender<()>,
    },
    /// Replace an open record by its final form. Kept and tried again until it is committed.
    Close {
        seq: i64,
        json: Vec<u8>,
        done: Option<oneshot::Sender<()>>,
    },
    /// Delete records. Kept and tried again likewise, and answered only once it is committed: who believed it too early would
    /// send the same records again.
    Remove {
        seqs: Vec<i64>,
        done: Option<oneshot::Sender<()>>,
    },
    /// Move what is left of the write-ahead log into the file and cut it off.
    CutLog,
    /// Commit what is queued and end.
    Stop,
}

/// Writes until [`Command::Stop`], or until nobody can send any more.
pub(super) fn run(mut connection: Connection, queue: &Receiver<Command>, shared: &Shared) {
    let mut batch = Vec::with_capacity(LARGEST_BATCH);
    let mut stopping = false;
    while !stopping {
        let failing = shared.failing.load(Ordering::Relaxed);
        let received = if failing {
            queue.recv_timeout(RETRY)
        } else {
            queue.recv().map_err(RecvTimeoutError::from)
        };
        match received {
            Ok(command) => batch.push(command),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => stopping = true,
        }
        while batch.len() < LARGEST_BATCH {
            match queue.try_recv() {
                Ok(command) => batch.push(command),
                Err(_) => break,
            }
        }
        stopping |= batch.iter().any(|command| matches!(command, Command::Stop));
        let cut_log = batch
            .iter()
            .any(|command| matches!(command, Command::CutLog));
        match commit(&mut connection, &batch, failing) {
            Ok(removed) => {
                shared.failing.store(false, Ordering::Relaxed);
                shared.records.fetch_sub(removed, Ordering::Relaxed);
                acknowledge(&mut batch, shared);
            }
            Err(error) => {
                if !shared.failing.swap(true, Ordering::Relaxed) {
                    tracing::error!(error = %error, "spool cannot be written");
                }
                keep_what_must_not_be_lost(&mut batch, shared);
            }
        }
        if cut_log && let Err(error) = checkpoint(&connection, "TRUNCATE") {
            tracing::warn!(error = %error, "spool log could not be moved");
        }
    }
    if let Err(error) = checkpoint(&connection, "TRUNCATE") {
        tracing::warn!(error = %error, "spool log could not be moved");
    }
}

/// `probe` makes it write even when nothing is queued: a pod that is not ready because its disk failed gets no requests
/// that would show that it works again.
fn commit(
    connection: &mut Connection,
    batch: &[Command],
    probe: bool,
) -> Result<u64, rusqlite::Error> {
    let transaction = connection.transaction()?;
    if probe {
        transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
    }
    let mut removed = 0;
    for command in batch {
        removed += write(&transaction, command)?;
    }
    transaction.commit()?;
    Ok(removed)
}

/// Returns how many records that removed.
fn write(transaction: &Transaction<'_>, command: &Command) -> Result<u64, rusqlite::Error> {
    let mut removed = 0;
    match command {
        Command::Open { seq, json, .. } => {
            transaction
                .prepare_cached("INSERT INTO records (seq, closed, record) VALUES (?1, 0, ?2)")?
                .execute((seq, json))?;
        }
        Command::Close { seq, json, .. } => {
            transaction
                .prepare_cached("UPDATE records SET closed = 1, record = ?2 WHERE seq = ?1")?
                .execute((seq, json))?;
        }
        Command::Remove { seqs, .. } => {
            let mut delete = transaction.prepare_cached("DELETE FROM records WHERE seq = ?1")?;
            for seq in seqs {
                removed += delete.execute([seq])? as u64;
            }
        }
        Command::CutLog | Command::Stop => {}
    }
    Ok(removed)
}

fn acknowledge(batch: &mut Vec<Command>, shared: &Shared) {
    let mut closed = false;
    for command in batch.drain(..) {
        match command {
            Command::Open { done, .. } => {
                // Who asked may have left meanwhile: then a `Remove` follows.
                let _ = done.send(());
            }
            Command::Close { done, .. } => {
                closed = true;
                answer(done);
            }
            Command::Remove { done, .. } => answer(done),
            Command::CutLog | Command::Stop => {}
        }
    }
    if closed {
        shared.closed.notify_one();
    }
}

/// Opens are refused by dropping their `done`, and no client is kept waiting for a close.
fn keep_what_must_not_be_lost(batch: &mut Vec<Command>, shared: &Shared) {
    batch.retain_mut(|command| match command {
        Command::Close { done, .. } => {
            done.take();
            true
        }
        Command::Remove { .. } => true,
        Command::Open { .. } => {
            shared.records.fetch_sub(1, Ordering::Relaxed);
            false
        }
        Command::CutLog | Command::Stop => false,
    });
}

fn answer(done: Option<oneshot::Sender<()>>) {
    if let Some(done) = done {
        let _ = done.send(());
    }
}
