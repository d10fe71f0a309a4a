//! Cuts a byte stream into whole server-sent events.
//!
//! Format: <https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream>. Lines end in LF, CRLF
//! or CR, an empty line ends an event.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use memchr::memchr2;

use super::event::RawEvent;

/// An event grew past the reader's limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event is larger than {limit} bytes")]
pub struct EventTooLarge {
    /// The limit in bytes.
    pub limit: usize,
}

/// Splits chunks, cut anywhere, at the ends of events. Chunks that hold whole events are handed on without copying.
///
/// A CR at the very end of a chunk ends its line at once; should an LF follow, it counts to the same line end and travels at
/// the head of what comes next. So nothing waits for a byte that may never come, and the bytes stay the same in sum.
#[derive(Debug)]
pub struct SseReader {
    /// The event that has begun and not ended, when it reaches over chunks.
    pending: BytesMut,
    limit: usize,
    line: Line,
    begun: bool,
}

/// May stand before the first event.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Where in a line the scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// At its first byte: a line end here ends the event.
    Start,
    /// Behind a CR that ended a line, at the first byte of the next one unless an LF comes.
    AfterCr,
    /// Behind a CR that ended an event: an LF here belongs to it.
    AfterLastCr,
    /// Somewhere inside.
    Middle,
}

impl SseReader {
    /// A reader that refuses events of more than `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            pending: BytesMut::new(),
            limit,
            line: Line::Start,
            begun: false,
        }
    }

    /// Takes the next chunk: calls `on_event` for each event that is now whole, in order, and appends their bytes to `whole`.
    /// What follows the last whole event is kept.
    ///
    /// # Errors
    /// [`EventTooLarge`] at the first event that has outgrown the limit; whole events before it were handed on, and nothing
    /// that follows can be read.
    pub fn push(
        &mut self,
        mut chunk: Bytes,
        whole: &mut VecDeque<Bytes>,
        mut on_event: impl FnMut(RawEvent<'_>),
    ) -> Result<(), EventTooLarge> {
        if !self.pending.is_empty() {
            let Some(end) = self.next_end(&chunk) else {
                return self.keep(&chunk);
            };
            self.check(self.pending.len() + end)?;
            self.pending.extend_from_slice(&chunk.split_to(end));
            let event = self.pending.split().freeze();
            on_event(self.event(&event));
            whole.push_back(event);
        }
        let mut done = 0;
        let mut fits = Ok(());
        while let Some(length) = self.next_end(&chunk[done..]) {
            fits = self.check(length);
            if fits.is_err() {
                break;
            }
            on_event(self.event(&chunk[done..done + length]));
            done += length;
        }
        if done > 0 {
            whole.push_back(chunk.split_to(done));
        }
        fits?;
        self.keep(&chunk)
    }

    /// The bytes after the last whole event. Line ends alone are no event and lose nothing when they are forwarded.
    pub fn rest(&mut self) -> Bytes {
        self.pending.split().freeze()
    }

    fn event<'a>(&mut self, bytes: &'a [u8]) -> RawEvent<'a> {
        let is_first = !std::mem::replace(&mut self.begun, true);
        RawEvent::new(
            bytes
                .strip_prefix(BYTE_ORDER_MARK)
                .filter(|_| is_first)
                .unwrap_or(bytes),
        )
    }

    fn keep(&mut self, rest: &[u8]) -> Result<(), EventTooLarge> {
        self.check(self.pending.len() + rest.len())?;
        self.pending.extend_from_slice(rest);
        Ok(())
    }

    fn check(&self, length: usize) -> Result<(), EventTooLarge> {
        if length > self.limit {
            return Err(EventTooLarge { limit: self.limit });
        }
        Ok(())
    }

    /// The length of `bytes` up to and with the next event's end, or `None` with the scan's state moved past them all.
    fn next_end(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        while at < bytes.len() {
            match self.line {
                Line::AfterCr | Line::AfterLastCr if bytes[at] == b'\n' => {
                    at += 1;
                    self.line = Line::Start;
                }
                Line::Start | Line::AfterCr | Line::AfterLastCr => match bytes[at] {
                    b'\n' => {
                        self.line = Line::Start;
                        return Some(at + 1);
                    }
                    b'\r' => {
                        if bytes.get(at + 1) == Some(&b'\n') {
                            self.line = Line::Start;
                            return Some(at + 2);
                        }
                        self.line = Line::AfterLastCr;
                        return Some(at + 1);
                    }
                    _ => self.line = Line::Middle,
                },
                Line::Middle => match memchr2(b'\n', b'\r', &bytes[at..]) {
                    None => return None,
                    Some(offset) => {
                        at += offset + 1;
                        self.line = if bytes[at - 1] == b'\r' {
                            Line::AfterCr
                        } else {
                            Line::Start
                        };
                    }
                },
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An event's name and data.
    type Event = (Vec<u8>, Vec<u8>);

    /// What a reader makes of `chunks`: events as name and data, and all bytes it handed on.
    fn read(chunks: &[&[u8]]) -> (Vec<Event>, Vec<u8>, Vec<u8>) {
        let (mut reader, mut whole, mut events) =
            (SseReader::new(1 << 20), VecDeque::new(), Vec::new());
        for chunk in chunks {
            reader
                .push(Bytes::copy_from_slice(chunk), &mut whole, |event| {
                    if let Some(data) = event.data() {
                        events.push((event.name().to_vec(), data.to_vec()));
                    }
                })
                .unwrap();
        }
        (
            events,
            whole.iter().flatten().copied().collect(),
            reader.rest().to_vec(),
        )
    }

    fn event(name: &str, data: &str) -> (Vec<u8>, Vec<u8>) {
        (name.into(), data.into())
    }

    #[test]
    fn every_line_end_ends_lines_and_events() {
        for end in ["\n", "\r\n", "\r"] {
            let text = [
                "event: a",
                "data: 1",
                "",
                ": comment",
                "",
                "event:b",
                "data: 2",
                "data:3",
                "",
                "",
            ]
            .join(end);
            let (events, whole, rest) = read(&[text.as_bytes()]);
            assert_eq!(events, [event("a", "1"), event("b", "2\n3")], "{end:?}");
            assert_eq!(whole.len() + rest.len(), text.len());
            assert!(rest.is_empty(), "{end:?} {rest:?}");
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_first_event() {
        assert_eq!(
            read(&[b"\xef\xbb", b"\xbfdata: 1\n\ndata: 2\n\n"]).0,
            [event("", "1"), event("", "2")]
        );
    }

    #[test]
    fn a_chunk_of_whole_events_is_not_copied() {
        let chunk = Bytes::from_static(b"data: 1\n\ndata: 2\n\n");
        let (mut reader, mut whole) = (SseReader::new(64), VecDeque::new());
        reader.push(chunk.clone(), &mut whole, |_| ()).unwrap();
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].as_ptr(), chunk.as_ptr());
    }

    #[test]
    fn an_event_that_has_not_ended_is_kept_back() {
        let (events, whole, rest) = read(&[b"data: 1\n\nevent: x\ndata: {\"ty"]);
        assert_eq!(
            (events.len(), whole.as_slice()),
            (1, b"data: 1\n\n".as_slice())
        );
        assert_eq!(rest, b"event: x\ndata: {\"ty");
    }

    #[test]
    fn an_endless_event_is_an_error_and_not_memory() {
        let (mut reader, mut whole) = (SseReader::new(100), VecDeque::new());
        let result = (0..1000)
            .try_for_each(|_| reader.push(Bytes::from_static(b"data: xxxxxx"), &mut whole, |_| ()));
        assert_eq!(result, Err(EventTooLarge { limit: 100 }));
        assert!(reader.rest().len() <= 100);
    }

    prop_compose! {
        /// Text of the characters that matter, weighted towards real events.
        fn stream_text()(parts in prop::collection::vec(prop_oneof![
            Just("data: {\"a\":1}"), Just("event: message_delta"), Just(":"), Just("data"), Just("data:"), Just("x"),
            Just("\n"), Just("\r"), Just("\r\n"), Just("\n\n"), Just("\r\n\r\n"), Just("\u{fc}"), Just("\u{feff}"),
        ], 0..60)) -> String {
            parts.concat()
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events_and_bytes(text in stream_text(), cuts in prop::collection::vec(0_usize..400, 0..12)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            let (events, mut whole, rest) = read(&[bytes]);
            let (split_events, mut split_whole, split_rest) = read(&chunks);
            let (single_events, ..) = read(&single);
            prop_assert_eq!(&split_events, &events);
            prop_assert_eq!(&single_events, &events);
            whole.extend(rest);
            split_whole.extend(split_rest);
            prop_assert_eq!(whole.as_slice(), bytes);
            prop_assert_eq!(split_whole.as_slice(), bytes);
        }

        #[test]
        fn whole_bytes_end_where_an_event_ends(text in stream_text()) {
            let (events, whole, _) = read(&[text.as_bytes()]);
            let (again, _, rest) = read(&[&whole]);
            prop_assert_eq!(again, events);
            prop_assert!(rest.is_empty());
        }
    }
}
