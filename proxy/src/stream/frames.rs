//! Cuts a byte stream into the frames of an AWS event stream.
//!
//! Format: <https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html>, which Bedrock's
//! `application/vnd.amazon.eventstream` shares. A frame is its length, the length of its headers, a checksum of both, headers,
//! payload, a checksum of all; numbers are big-endian, checksums CRC-32.

use bytes::{Bytes, BytesMut};

const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;

/// Why a stream is no event stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A frame grew past the reader's limit.
    #[error("a frame of {length} bytes is larger than {limit}")]
    TooLarge {
        /// What the frame says of itself.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Bytes were changed on the way.
    #[error("a frame's checksum does not match")]
    Checksum,
    /// Lengths or headers contradict each other.
    #[error("a frame is malformed")]
    Malformed,
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    headers: &'a [u8],
    /// What it carries.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The text of the header `name`; `None` if there is none, or it is not a text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.headers;
        while let Some(header) = next_header(&mut rest) {
            if header.name == name.as_bytes() {
                return header.text.and_then(|text| std::str::from_utf8(text).ok());
            }
        }
        None
    }
}

struct Header<'a> {
    name: &'a [u8],
    text: Option<&'a [u8]>,
}

/// Takes the header that `bytes` begin with; `None` at their end or where they make no sense.
fn next_header<'a>(bytes: &mut &'a [u8]) -> Option<Header<'a>> {
    const TEXT: u8 = 7;
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(length))?;
    let (&kind, rest) = rest.split_first()?;
    let (length, rest) = match kind {
        // true, false
        0 | 1 => (0, rest),
        // Whole numbers of one, two, four and eight bytes, a time, a UUID.
        2 => (1, rest),
        3 => (2, rest),
        4 => (4, rest),
        5 | 8 => (8, rest),
        9 => (16, rest),
        // Bytes and text.
        6 | TEXT => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *bytes = rest;
    Some(Header {
        name,
        text: (kind == TEXT).then_some(value),
    })
}

/// Splits chunks, cut anywhere, into frames. A frame that lies within one chunk is not copied.
#[derive(Debug)]
pub struct FrameReader {
    /// What has come and was not looked at.
    fresh: Bytes,
    /// The frame that has begun and not ended, when it reaches over chunks.
    begun: BytesMut,
    /// The frame that was handed out last.
    current: Bytes,
    limit: usize,
}

impl FrameReader {
    /// A reader that refuses frames of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            fresh: Bytes::new(),
            begun: BytesMut::new(),
            current: Bytes::new(),
            limit,
        }
    }

    /// Takes the next chunk. The frames of the one before it should have been taken out, for else it is copied.
    pub fn push(&mut self, chunk: Bytes) {
        if self.fresh.is_empty() {
            self.fresh = chunk;
        } else {
            let mut both = BytesMut::from(std::mem::take(&mut self.fresh));
            both.extend_from_slice(&chunk);
            self.fresh = both.freeze();
        }
    }

    /// The next frame, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FrameError`]; nothing that follows can be read then.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, FrameError> {
        let whole = if self.begun.is_empty() {
            self.take_whole()?
        } else {
            self.complete()?
        };
        if !whole {
            return Ok(None);
        }
        parse(&self.current).map(Some)
    }

    /// The bytes of the frame that was handed out last.
    pub fn current(&self) -> &Bytes {
        &self.current
    }

    /// Whether a frame has begun and not ended.
    pub fn is_within_frame(&self) -> bool {
        !self.begun.is_empty() || !self.fresh.is_empty()
    }

    /// Takes a frame out of the chunk, if all of it is there; else keeps its beginning.
    fn take_whole(&mut self) -> Result<bool, FrameError> {
        if let Some(prelude) = self.fresh.first_chunk() {
            let length = self.length(prelude)?;
            if self.fresh.len() >= length {
                self.current = self.fresh.split_to(length);
                return Ok(true);
            }
        }
        self.begun.extend_from_slice(&self.fresh);
        self.fresh = Bytes::new();
        Ok(false)
    }

    /// Adds to the frame that has begun what it lacks.
    fn complete(&mut self) -> Result<bool, FrameError> {
        self.fill(PRELUDE);
        let Some(prelude) = self.begun.first_chunk() else {
            return Ok(false);
        };
        let length = self.length(prelude)?;
        self.fill(length);
        if self.begun.len() < length {
            return Ok(false);
        }
        self.current = self.begun.split().freeze();
        Ok(true)
    }

    fn fill(&mut self, length: usize) {
        let lacking = length
            .saturating_sub(self.begun.len())
            .min(self.fresh.len());
        self.begun.extend_from_slice(&self.fresh.split_to(lacking));
    }

    /// The length of the frame that begins so.
    fn length(&self, prelude: &[u8; PRELUDE]) -> Result<usize, FrameError> {
        if crc32fast::hash(&prelude[..8]) != number(&prelude[8..]) {
            return Err(FrameError::Checksum);
        }
        let length = usize::try_from(number(prelude)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(FrameError::TooLarge {
                length,
                limit: self.limit,
            });
        }
        if length < PRELUDE + CHECKSUM {
            return Err(FrameError::Malformed);
        }
        Ok(length)
    }
}

/// The frame of these bytes, whose length is known to be right.
fn parse(bytes: &[u8]) -> Result<Frame<'_>, FrameError> {
    let (content, checksum) = bytes
        .split_last_chunk::<CHECKSUM>()
        .ok_or(FrameError::Malformed)?;
    if crc32fast::hash(content) != number(checksum) {
        return Err(FrameError::Checksum);
    }
    let (prelude, content) = content
        .split_first_chunk::<PRELUDE>()
        .ok_or(FrameError::Malformed)?;
    let headers = usize::try_from(number(&prelude[4..])).unwrap_or(usize::MAX);
    let (headers, payload) = content
        .split_at_checked(headers)
        .ok_or(FrameError::Malformed)?;
    let mut rest = headers;
    while !rest.is_empty() {
        next_header(&mut rest).ok_or(FrameError::Malformed)?;
    }
    Ok(Frame { headers, payload })
}

fn number(bytes: &[u8]) -> u32 {
    bytes
        .first_chunk()
        .map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use aws_smithy_eventstream::frame::write_message_to;
    use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1024;

    /// A frame as AWS's own library writes it, with a header of every type.
    fn frame(event: &str, payload: &[u8]) -> Vec<u8> {
        let header = |name: &'static str, value| Header::new(name, value);
        let message = Message::new(payload.to_vec())
            .add_header(header("yes", HeaderValue::Bool(true)))
            .add_header(header("byte", HeaderValue::Byte(1)))
            .add_header(header("short", HeaderValue::Int16(2)))
            .add_header(header("int", HeaderValue::Int32(3)))
            .add_header(header("long", HeaderValue::Int64(4)))
            .add_header(header(
                "bytes",
                HeaderValue::ByteArray(Bytes::from_static(b"ab")),
            ))
            .add_header(header(
                "time",
                HeaderValue::Timestamp(aws_smithy_types::DateTime::from_secs(5)),
            ))
            .add_header(header("uuid", HeaderValue::Uuid(6)))
            .add_header(header(
                ":event-type",
                HeaderValue::String(event.to_owned().into()),
            ));
        let mut out = Vec::new();
        write_message_to(&message, &mut out).unwrap();
        out
    }

    fn read(
        chunks: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<Vec<(String, Vec<u8>)>, FrameError> {
        let mut reader = FrameReader::new(LIMIT);
        let mut seen = Vec::new();
        for chunk in chunks {
            reader.push(chunk.into());
            while let Some(frame) = reader.next_frame()? {
                let event = frame.header(":event-type").unwrap_or_default();
                seen.push((event.to_owned(), frame.payload.to_vec()));
            }
        }
        Ok(seen)
    }

    proptest! {
        #[test]
        fn where_the_bytes_are_split_does_not_matter(
            payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 1..5),
            cuts in proptest::collection::vec(0_usize..2000, 0..12),
        ) {
            let bytes: Vec<u8> = payloads.iter().flat_map(|payload| frame("e", payload)).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([bytes.len()]).collect();
            cuts.sort_unstable();
            let mut from = 0;
            let chunks: Vec<Vec<u8>> = cuts
                .into_iter()
                .map(|to| bytes[std::mem::replace(&mut from, to)..to].to_vec())
                .collect();
            let expected: Vec<_> = payloads.into_iter().map(|payload| ("e".to_owned(), payload)).collect();
            prop_assert_eq!(read(chunks), Ok(expected));
        }

        #[test]
        fn a_changed_bit_is_found(payload in proptest::collection::vec(any::<u8>(), 0..100), at in any::<proptest::sample::Index>(), bit in 0_u8..8) {
            let mut bytes = frame("e", &payload);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(!matches!(read([bytes]), Ok(seen) if !seen.is_empty()));
        }

        #[test]
        fn any_bytes_end_in_frames_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read([bytes]);
        }
    }

    #[test]
    fn headers_are_found_behind_those_of_other_types() {
        let bytes = frame("messageStart", b"{}");
        let mut reader = FrameReader::new(LIMIT);
        reader.push(bytes.into());
        let found = reader.next_frame().unwrap().unwrap();
        assert_eq!(found.header(":event-type"), Some("messageStart"));
        assert_eq!((found.header("int"), found.header("none")), (None, None));
        assert_eq!(found.payload, b"{}");
        assert!(!reader.is_within_frame());
    }

    #[test]
    fn half_a_frame_is_none_and_can_be_told() {
        let bytes = frame("e", b"payload");
        let mut reader = FrameReader::new(LIMIT);
        reader.push(bytes[..9].to_vec().into());
        assert_eq!(reader.next_frame(), Ok(None));
        assert!(reader.is_within_frame());
    }

    #[test]
    fn what_a_frame_says_of_its_length_is_not_believed_beyond_the_limit() {
        let mut bytes = 0xffff_ffff_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&0_u32.to_be_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
        assert_eq!(
            read([bytes]),
            Err(FrameError::TooLarge {
                length: 0xffff_ffff,
                limit: LIMIT
            })
        );
    }

    #[test]
    fn lengths_that_contradict_each_other_are_malformed() {
        for (length, headers) in [(15_u32, 0_u32), (16, 1), (20, 100)] {
            let mut bytes = length.to_be_bytes().to_vec();
            bytes.extend_from_slice(&headers.to_be_bytes());
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            bytes.resize(usize::try_from(length).unwrap().max(16) - 4, 0);
            bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
            assert_eq!(
                read([bytes]),
                Err(FrameError::Malformed),
                "{length} {headers}"
            );
        }
    }
}
