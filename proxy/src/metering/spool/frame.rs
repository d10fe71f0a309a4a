//! The form of a spool's files: frames one after another. Pure.
//!
//! A frame is its payload's length and a CRC-32 of everything behind it (both 4 bytes, little endian), a byte that says
//! what it is, the record's number (8 bytes, little endian), and the payload. A process that is killed while it writes
//! leaves an incomplete frame at most, and that at the end.

/// Bytes before a payload.
const HEAD: usize = 4 + 4 + 1 + 8;
/// No record is nearly as large: a longer one is damage.
const MAX_PAYLOAD: usize = 4 * 1024 * 1024;

/// What a frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A record as it is to be if its process is killed.
    Open,
    /// The final form of an open record.
    Close,
    /// An open record that is to be forgotten, or with number 0 nothing at all.
    Cancel,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Close => 2,
            Self::Cancel => 3,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Open, Self::Close, Self::Cancel]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) payload: &'a [u8],
}

/// Why no more frames can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unread {
    /// The last frame is incomplete.
    Torn,
    /// These bytes were never written as a frame.
    Damaged,
}

/// A frame whose payload `write` appends.
pub(super) fn encode<E>(
    kind: Kind,
    number: u64,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Vec<u8>, E> {
    let mut frame = Vec::with_capacity(1024);
    frame.extend_from_slice(&[0; 8]);
    frame.push(kind.code());
    frame.extend_from_slice(&number.to_le_bytes());
    write(&mut frame)?;
    let length = u32::try_from(frame.len() - HEAD).unwrap_or(u32::MAX);
    let checksum = crc32fast::hash(&frame[8..]);
    frame[..4].copy_from_slice(&length.to_le_bytes());
    frame[4..8].copy_from_slice(&checksum.to_le_bytes());
    Ok(frame)
}

/// The first frame of `bytes` and how long it is; `None` at their end.
pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Frame<'_>, usize)>, Unread> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let word = |at: usize| {
        let bytes: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    };
    let (Some(length), Some(checksum)) = (word(0), word(4)) else {
        return Err(Unread::Torn);
    };
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > MAX_PAYLOAD {
        return Err(Unread::Damaged);
    }
    let frame = bytes.get(..HEAD + length).ok_or(Unread::Torn)?;
    if crc32fast::hash(&frame[8..]) != checksum {
        return Err(Unread::Damaged);
    }
    let kind = Kind::of(frame[8]).ok_or(Unread::Damaged)?;
    let number: [u8; 8] = frame[9..HEAD].try_into().map_err(|_| Unread::Damaged)?;
    let decoded = Frame {
        kind,
        number: u64::from_le_bytes(number),
        payload: &frame[HEAD..],
    };
    Ok(Some((decoded, frame.len())))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: Kind, number: u64, payload: &[u8]) -> Vec<u8> {
        let encoded = encode(kind, number, |out| {
            out.extend_from_slice(payload);
            Ok::<_, Infallible>(())
        });
        encoded.unwrap()
    }

    #[test]
    fn frames_are_read_back_in_order() {
        let mut bytes = frame(Kind::Open, 1, b"one");
        bytes.extend(frame(Kind::Close, 1, b""));
        let (first, length) = decode(&bytes).unwrap().unwrap();
        assert_eq!(
            (first.kind, first.number, first.payload),
            (Kind::Open, 1, &b"one"[..])
        );
        let (second, rest) = decode(&bytes[length..]).unwrap().unwrap();
        assert_eq!(
            (second.kind, second.number, second.payload),
            (Kind::Close, 1, &b""[..])
        );
        assert_eq!(decode(&bytes[length + rest..]), Ok(None));
    }

    proptest! {
        #[test]
        fn a_frame_that_was_cut_off_is_torn(payload in proptest::collection::vec(any::<u8>(), 0..64), cut in 1_usize..60) {
            let whole = frame(Kind::Close, 7, &payload);
            let cut = cut.min(whole.len() - 1);
            prop_assert_eq!(decode(&whole[..whole.len() - cut]), Err(Unread::Torn));
        }

        #[test]
        fn a_changed_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 1..64), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = frame(Kind::Close, 7, &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_end_in_a_frame_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes);
        }
    }
}
