//! Reads final records behind the writers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use spillway_core::domain::usage::UsageRecord;

use super::Stored;
use super::frame::{Kind, Unread, decode};
use super::log::{SegmentId, path};

/// What is read at a time, unless a frame is longer.
const PIECE: usize = 256 * 1024;

/// How far a segment reaches, if it may still grow, and whether it does; and the segment behind it.
pub(super) type Extent = ((Option<u64>, bool), Option<SegmentId>);

/// The place up to which records were read, and those of them that are not in Postgres.
#[derive(Debug)]
pub(super) struct Reader {
    dir: PathBuf,
    segment: SegmentId,
    offset: u64,
    file: Option<File>,
    pending: BTreeMap<u64, (SegmentId, Vec<u8>)>,
}

impl Reader {
    /// A reader that begins with `segment`, and with records that are in no file as closed.
    pub(super) fn new(
        dir: &Path,
        segment: SegmentId,
        interrupted: Vec<(SegmentId, Stored)>,
    ) -> Self {
        Self {
            dir: dir.to_owned(),
            segment,
            offset: 0,
            file: None,
            pending: interrupted
                .into_iter()
                .map(|(segment, stored)| (stored.number, (segment, stored.json)))
                .collect(),
        }
    }

    /// The segment that is read: files before it were read to their end.
    pub(super) fn segment(&self) -> SegmentId {
        self.segment
    }

    /// The pending records, at most `limit`, with what is remembered of them.
    pub(super) fn first(
        &self,
        limit: usize,
        mut remembered: impl FnMut(u64) -> Option<UsageRecord>,
    ) -> Vec<Stored> {
        self.pending
            .iter()
            .take(limit)
            .map(|(number, (_, json))| {
                let record = remembered(*number);
                Stored {
                    number: *number,
                    json: if record.is_some() {
                        Vec::new()
                    } else {
                        json.clone()
                    },
                    record,
                }
            })
            .collect()
    }

    /// Forgets a pending record and says in which segment it is.
    pub(super) fn take(&mut self, number: u64) -> Option<SegmentId> {
        self.pending.remove(&number).map(|(segment, _)| segment)
    }

    /// Reads on until `limit` records are pending or all are read. `extent` tells about a segment.
    pub(super) fn fill(
        &mut self,
        limit: usize,
        extent: impl Fn(SegmentId) -> Extent,
    ) -> io::Result<()> {
        let mut piece = PIECE;
        while self.pending.len() < limit {
            let ((end, grows), next) = extent(self.segment);
            let bytes = self.read(end, piece)?;
            let is_cut = bytes.len() == piece;
            let (read, damaged) = self.take_in(&bytes, limit);
            self.offset += read as u64;
            if read > 0 && !damaged {
                piece = PIECE;
            } else if is_cut && !damaged {
                piece *= 2;
            } else if let (false, Some(next)) = (grows, next) {
                (self.segment, self.offset, self.file) = (next, 0, None);
            } else {
                break;
            }
        }
        Ok(())
    }

    /// At most `piece` bytes from where reading stopped, and none behind `end`.
    fn read(&mut self, end: Option<u64>, piece: usize) -> io::Result<Vec<u8>> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(path(&self.dir, self.segment))?),
        };
        let left = end.map_or(piece, |end| {
            usize::try_from(end.saturating_sub(self.offset)).unwrap_or(usize::MAX)
        });
        let mut bytes = vec![0; left.min(piece)];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], self.offset + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Takes in whole frames. Returns how many bytes they have, and whether what follows is none.
    fn take_in(&mut self, bytes: &[u8], limit: usize) -> (usize, bool) {
        let mut at = 0;
        while self.pending.len() < limit {
            match decode(&bytes[at..]) {
                Ok(Some((frame, length))) => {
                    at += length;
                    if frame.kind == Kind::Close {
                        self.pending
                            .insert(frame.number, (self.segment, frame.payload.to_vec()));
                    }
                }
                Ok(None) | Err(Unread::Torn) => return (at, false),
                Err(Unread::Damaged) => return (at, true),
            }
        }
        (at, false)
    }
}
