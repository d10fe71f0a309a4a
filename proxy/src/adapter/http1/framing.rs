//! How an answer's body ends, and its bytes without what frames them. Wire format: RFC 9112, 6 and 7.

use bytes::{Buf as _, Bytes, BytesMut};
use memchr::memchr;

/// The longest line between chunks, extensions included, and the most bytes of trailers.
const MAX_LINE: usize = 16 * 1024;
const CRLF: &[u8] = b"\r\n";

/// What ends a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// A chunk of no length.
    Chunked,
    /// The connection's end.
    Close,
}

/// What was made of the bytes so far.
#[derive(Debug, PartialEq, Eq)]
pub enum Decoded {
    /// Bytes of the body.
    Data(Bytes),
    /// More is needed.
    More,
    /// The body is whole.
    End,
}

/// The body is not framed as its head says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the body's chunks are malformed")]
pub struct BadChunk;

/// Takes a body out of its frame.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug, Clone, Copy)]
enum State {
    /// So many bytes are left of the body.
    Length(u64),
    /// So many bytes are left of the chunk.
    Chunk(u64),
    /// A chunk's closing line end comes next.
    ChunkEnd,
    /// A chunk's size comes next.
    Size,
    /// Trailers come next, after so many bytes of them.
    Trailers(usize),
    /// Everything belongs to the body.
    Close,
    End,
}

impl Decoder {
    /// For a body framed so.
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(0) => State::End,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
            Framing::Close => State::Close,
        })
    }

    /// Whether the body is whole.
    pub fn is_end(&self) -> bool {
        matches!(self.0, State::End)
    }

    /// What is left of the body, where its head said how long it is.
    pub fn left(&self) -> Option<u64> {
        match self.0 {
            State::Length(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Whether the connection's end is the body's.
    pub fn may_close(&self) -> bool {
        matches!(self.0, State::Close | State::End)
    }

    /// Takes what it can off the front of `input`, without copying it.
    ///
    /// # Errors
    /// A chunk is malformed; nothing more can be read.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Decoded, BadChunk> {
        loop {
            self.0 = match self.0 {
                State::End => return Ok(Decoded::End),
                _ if input.is_empty() => return Ok(Decoded::More),
                State::Close => return Ok(Decoded::Data(input.split().freeze())),
                State::Length(left) => {
                    let (data, left) = take(input, left);
                    self.0 = if left == 0 {
                        State::End
                    } else {
                        State::Length(left)
                    };
                    return Ok(Decoded::Data(data));
                }
                State::Chunk(left) => {
                    let (data, left) = take(input, left);
                    self.0 = if left == 0 {
                        State::ChunkEnd
                    } else {
                        State::Chunk(left)
                    };
                    return Ok(Decoded::Data(data));
                }
                State::ChunkEnd if input.starts_with(CRLF) => {
                    input.advance(CRLF.len());
                    State::Size
                }
                State::ChunkEnd if CRLF.starts_with(input) => return Ok(Decoded::More),
                State::ChunkEnd => return Err(BadChunk),
                State::Size => {
                    let Some(line) = line(input, MAX_LINE)? else {
                        return Ok(Decoded::More);
                    };
                    let size = size(line)?;
                    let length = line.len() + CRLF.len();
                    input.advance(length);
                    match size {
                        0 => State::Trailers(0),
                        size => State::Chunk(size),
                    }
                }
                State::Trailers(read) => {
                    let Some(line) = line(input, MAX_LINE.saturating_sub(read))? else {
                        return Ok(Decoded::More);
                    };
                    let length = line.len() + CRLF.len();
                    input.advance(length);
                    if length == CRLF.len() {
                        State::End
                    } else {
                        State::Trailers(read + length)
                    }
                }
            }
        }
    }
}

/// At most `left` bytes of `input`, and how many are left then.
fn take(input: &mut BytesMut, left: u64) -> (Bytes, u64) {
    let taken = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
    let data = input.split_to(taken).freeze();
    (data, left - u64::try_from(taken).unwrap_or(left))
}

/// The line that `input` begins with, without its end; `None` until that has come, at most `longest` bytes.
fn line(input: &[u8], longest: usize) -> Result<Option<&[u8]>, BadChunk> {
    match memchr(b'\n', input) {
        Some(end) if end <= longest => input[..end].strip_suffix(b"\r").map(Some).ok_or(BadChunk),
        None if input.len() <= longest => Ok(None),
        _ => Err(BadChunk),
    }
}

/// The size that a chunk begins with; its extensions mean nothing to anybody.
fn size(line: &[u8]) -> Result<u64, BadChunk> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    match line[digits..].trim_ascii_start() {
        [] | [b';', ..] => {}
        _ => return Err(BadChunk),
    }
    let digits = std::str::from_utf8(&line[..digits]).map_err(|_| BadChunk)?;
    u64::from_str_radix(digits, 16).map_err(|_| BadChunk)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What comes of bytes that arrive in pieces of `size`.
    fn decoded(framing: Framing, sent: &[u8], size: usize) -> Result<(Vec<u8>, Decoded), BadChunk> {
        let (mut decoder, mut input, mut body) =
            (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut pieces = sent.chunks(size);
        loop {
            match decoder.decode(&mut input)? {
                Decoded::Data(data) => body.extend_from_slice(&data),
                Decoded::More => match pieces.next() {
                    Some(piece) => input.extend_from_slice(piece),
                    None => return Ok((body, Decoded::More)),
                },
                Decoded::End => return Ok((body, Decoded::End)),
            }
        }
    }

    fn chunked(chunks: &[Vec<u8>]) -> Vec<u8> {
        let mut sent = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            sent.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
            sent.extend_from_slice(chunk);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(b"0\r\ntrailer: x\r\n\r\n");
        sent
    }

    proptest! {
        #[test]
        fn chunks_are_read_however_they_arrive(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..6),
            size in 1usize..64,
        ) {
            let (body, last) = decoded(Framing::Chunked, &chunked(&chunks), size).unwrap();
            prop_assert_eq!(body, chunks.concat());
            prop_assert_eq!(last, Decoded::End);
        }

        #[test]
        fn what_is_cut_off_is_not_whole(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..4),
            cut in 1usize..20,
        ) {
            let sent = chunked(&chunks);
            let kept = sent.len().saturating_sub(cut);
            prop_assert_eq!(decoded(Framing::Chunked, &sent[..kept], 7).unwrap().1, Decoded::More);
        }

        #[test]
        fn nothing_makes_it_panic_and_every_split_says_the_same(
            sent in prop::collection::vec(prop::sample::select(b"0a\r\n;f x".to_vec()), 0..60),
            size in 1usize..60,
        ) {
            prop_assert_eq!(decoded(Framing::Chunked, &sent, size), decoded(Framing::Chunked, &sent, 60));
        }
    }

    #[test]
    fn a_length_ends_the_body_and_leaves_the_rest() {
        let mut input = BytesMut::from(&b"abcdef"[..]);
        let mut decoder = Decoder::new(Framing::Length(4));
        assert_eq!(
            decoder.decode(&mut input),
            Ok(Decoded::Data(Bytes::from("abcd")))
        );
        assert!(decoder.is_end());
        assert_eq!(decoder.decode(&mut input), Ok(Decoded::End));
        assert_eq!(input, "ef");
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for sent in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\na\r\n",
            "1\na\r\n",
            "1 2\r\n",
            "10000000000000000\r\n",
            "1\r\nab",
            "1\r\na\n",
            "0\r\n\n",
        ] {
            assert_eq!(
                decoded(Framing::Chunked, sent.as_bytes(), 3),
                Err(BadChunk),
                "{sent:?}"
            );
        }
    }

    #[test]
    fn endless_lines_are_refused() {
        let extension = format!("1;{}", "x".repeat(2 * MAX_LINE));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(MAX_LINE));
        for sent in [extension, trailers] {
            assert_eq!(
                decoded(Framing::Chunked, sent.as_bytes(), 1000),
                Err(BadChunk)
            );
        }
    }
}
