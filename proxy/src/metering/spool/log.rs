//! The spool's files: segments that are appended to, and removed when nothing in them is needed any more.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// How large a segment grows before the next one is begun.
const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;
const EXTENSION: &str = "usage";

/// The number of a segment: later ones are higher.
pub(super) type SegmentId = u64;

/// What a segment is still needed for.
#[derive(Debug, Default, Clone, Copy)]
struct Need {
    /// Records that were opened there and are not closed.
    open: u64,
    /// Final records that are not in Postgres.
    unsent: u64,
}

/// All segments, with the one that is appended to.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    needs: BTreeMap<SegmentId, Need>,
    active: SegmentId,
    file: File,
    length: u64,
}

impl Log {
    /// Begins a segment of this number, which is higher than those of all others in `dir`.
    pub(super) fn begin(dir: &Path, number: SegmentId) -> io::Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            needs: BTreeMap::from([(number, Need::default())]),
            active: number,
            file: create(dir, number)?,
            length: 0,
        })
    }

    /// Takes over a segment of an earlier process with so many final records.
    pub(super) fn adopt(&mut self, segment: SegmentId, unsent: u64) {
        self.needs.insert(segment, Need { open: 0, unsent });
    }

    /// Appends a frame and returns the segment that it went to. What a failed attempt left behind is overwritten by the next.
    pub(super) fn append(&mut self, frame: &[u8]) -> io::Result<SegmentId> {
        if self.length >= SEGMENT_BYTES {
            // Where no file can be made, the present one goes on.
            if let Ok(file) = create(&self.dir, self.active + 1) {
                self.active += 1;
                self.needs.insert(self.active, Need::default());
                self.file = file;
                self.length = 0;
            }
        }
        self.file.write_all_at(frame, self.length)?;
        self.length += frame.len() as u64;
        Ok(self.active)
    }

    /// Notes a record that was opened in `segment`.
    pub(super) fn opened(&mut self, segment: SegmentId) {
        self.needs.entry(segment).or_default().open += 1;
    }

    /// Notes that a record of `segment` is not open any more.
    pub(super) fn ended(&mut self, segment: SegmentId) {
        if let Some(need) = self.needs.get_mut(&segment) {
            need.open = need.open.saturating_sub(1);
        }
    }

    /// Notes a final record in `segment`.
    pub(super) fn closed(&mut self, segment: SegmentId) {
        self.needs.entry(segment).or_default().unsent += 1;
    }

    /// Notes that a final record of `segment` is in Postgres.
    pub(super) fn sent(&mut self, segment: SegmentId) {
        if let Some(need) = self.needs.get_mut(&segment) {
            need.unsent = need.unsent.saturating_sub(1);
        }
    }

    /// Up to where `segment` is written, and whether it may still grow.
    pub(super) fn extent(&self, segment: SegmentId) -> (Option<u64>, bool) {
        if segment == self.active {
            (Some(self.length), true)
        } else {
            (None, false)
        }
    }

    /// The first segment behind `segment`.
    pub(super) fn next_after(&self, segment: SegmentId) -> Option<SegmentId> {
        self.needs.range(segment + 1..).next().map(|(id, _)| *id)
    }

    /// The segments before `reader`'s that nothing needs any more. They are forgotten here; their files are the caller's to remove.
    pub(super) fn take_needless(&mut self, reader: SegmentId) -> Vec<PathBuf> {
        let needless: Vec<SegmentId> = self
            .needs
            .range(..reader.min(self.active))
            .filter(|(_, need)| need.open == 0 && need.unsent == 0)
            .map(|(id, _)| *id)
            .collect();
        needless
            .iter()
            .map(|id| {
                self.needs.remove(id);
                path(&self.dir, *id)
            })
            .collect()
    }
}

#[cfg(test)]
impl Log {
    /// Makes all further writes fail.
    pub(super) fn refuse_writes(&mut self) {
        self.file = File::open(path(&self.dir, self.active)).unwrap();
    }
}

fn create(dir: &Path, number: SegmentId) -> io::Result<File> {
    File::options()
        .create_new(true)
        .write(true)
        .open(path(dir, number))
}

/// The file of a segment.
pub(super) fn path(dir: &Path, segment: SegmentId) -> PathBuf {
    dir.join(format!("{segment:020}.{EXTENSION}"))
}

/// The segments in `dir`, the oldest first.
pub(super) fn segments(dir: &Path) -> io::Result<Vec<SegmentId>> {
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == EXTENSION)
            && let Some(number) = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok())
        {
            segments.push(number);
        }
    }
    segments.sort_unstable();
    Ok(segments)
}
