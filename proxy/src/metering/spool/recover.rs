//! What an earlier process left behind.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

use super::Stored;
use super::frame::{Kind, Unread, decode};
use super::log::{SegmentId, path, segments};

/// The content of an earlier process's segments.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Each segment, with how many final records it has: those whose process was killed count as such.
    pub(super) segments: Vec<(SegmentId, u64)>,
    /// Records that were open when their process ended, in the form that they must have now.
    pub(super) interrupted: Vec<(SegmentId, Stored)>,
    /// The highest record number.
    pub(super) last: u64,
}

/// Reads all segments in `dir`. One that cannot be read to its end is kept beside the others for somebody to look at.
pub(super) fn recover(dir: &Path) -> io::Result<Recovered> {
    let mut recovered = Recovered::default();
    let mut open: HashMap<u64, (SegmentId, Vec<u8>)> = HashMap::new();
    let mut finals: Vec<(SegmentId, u64)> = Vec::new();
    for segment in segments(dir)? {
        let file = path(dir, segment);
        let bytes = fs::read(&file)?;
        let (mut at, mut closed) = (0, 0);
        loop {
            match decode(&bytes[at..]) {
                Ok(None) => break,
                Ok(Some((frame, length))) => {
                    at += length;
                    recovered.last = recovered.last.max(frame.number);
                    match frame.kind {
                        Kind::Open => {
                            open.insert(frame.number, (segment, frame.payload.to_vec()));
                        }
                        Kind::Close => {
                            open.remove(&frame.number);
                            closed += 1;
                        }
                        Kind::Cancel => {
                            open.remove(&frame.number);
                        }
                    }
                }
                Err(Unread::Torn) => {
                    tracing::warn!(file = %file.display(), bytes = bytes.len() - at, "the last usage record was not written to its end");
                    break;
                }
                Err(Unread::Damaged) => {
                    let aside = file.with_extension("damaged");
                    tracing::error!(file = %file.display(), kept_as = %aside.display(), at, "spool file is damaged: what is behind this place is kept aside");
                    // Where there is no room for it the proxy goes on without.
                    if let Err(error) = fs::copy(&file, &aside) {
                        tracing::error!(error = %error, file = %aside.display(), "damaged spool file cannot be kept aside");
                    }
                    break;
                }
            }
        }
        finals.push((segment, closed));
    }
    recovered.interrupted = open
        .into_iter()
        .map(|(number, (segment, json))| {
            (
                segment,
                Stored {
                    number,
                    json,
                    record: None,
                },
            )
        })
        .collect();
    recovered
        .interrupted
        .sort_by_key(|(_, stored)| stored.number);
    recovered.segments = finals
        .into_iter()
        .map(|(segment, closed)| {
            let interrupted = recovered
                .interrupted
                .iter()
                .filter(|(of, _)| *of == segment);
            (segment, closed + interrupted.count() as u64)
        })
        .collect();
    Ok(recovered)
}
