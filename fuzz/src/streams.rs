//! Streams of upstreams: the same whatever pieces they come in, and whole events out of them.

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use spillway_proxy::adapter::bedrock_converse;
use spillway_proxy::adapter::bedrock_invoke;
use spillway_proxy::adapter::bedrock_relay::{Operation, on_frame};
use spillway_proxy::stream::{FrameError, FrameReader, SseReader, UsageTap};

use super::input::{framed, in_pieces, pieces};

/// Far below what a fuzzer may send, so that it is reached.
const LIMIT: usize = 512;
const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";

/// Events as name and data, the bytes handed on, and what the usage tap made of them.
type Read = (Vec<(Vec<u8>, Vec<u8>)>, Vec<u8>, String);

/// Server-sent events of the Messages API, and the usage read beside them.
pub fn sse(data: &[u8]) {
    let (whole, cut) = in_pieces(data);
    let (events, bytes, tap) = read_sse(std::slice::from_ref(&whole), usize::MAX);
    assert_eq!(bytes, whole, "every byte is handed on");
    for pieces in [cut, pieces(&whole, 1)] {
        let (again, bytes, again_tap) = read_sse(&pieces, usize::MAX);
        assert_eq!((&again, &again_tap), (&events, &tap));
        assert_eq!(bytes, whole);
        let (few, bytes, _) = read_sse(&pieces, LIMIT);
        assert!(events.starts_with(&few));
        assert!(whole.starts_with(&bytes));
    }
}

fn read_sse(pieces: &[Bytes], limit: usize) -> Read {
    let (mut reader, mut tap) = (SseReader::new(limit), UsageTap::default());
    let (mut events, mut whole) = (Vec::new(), VecDeque::new());
    for piece in pieces {
        let fits = reader.push(piece.clone(), &mut whole, |event| {
            if let Some(data) = event.data() {
                events.push((event.name().to_vec(), data.to_vec()));
            }
            tap.on_event(event);
        });
        if fits.is_err() {
            assert!(limit < usize::MAX);
            break;
        }
    }
    let mut bytes: Vec<u8> = whole.into_iter().flatten().collect();
    let rest = reader.rest();
    assert!(rest.len() <= limit);
    if limit == usize::MAX {
        bytes.extend_from_slice(&rest);
    }
    (events, bytes, told(&tap))
}

/// Everything that a tap says.
fn told(tap: &UsageTap) -> String {
    format!(
        "{:?} {} {} {:?}",
        tap.tokens(4_000),
        tap.has_content(),
        tap.is_complete(),
        tap.failure()
    )
}

/// Frames of AWS's event streams, as they come and with checksums put right, and the usage read beside them.
pub fn event_stream(data: &[u8]) {
    let (whole, cut) = in_pieces(data);
    frames_of(&whole, &cut);
    let packed = framed(&whole);
    let size = data.first().map_or(1, |size| usize::from(*size).max(1));
    let (frames, error) = frames_of(&packed, &pieces(&packed, size));
    let lines = whole.split(|byte| *byte == b'\n').count();
    assert!(error.is_some() || frames == lines, "{frames} of {lines}");
}

fn frames_of(whole: &Bytes, cut: &[Bytes]) -> (usize, Option<FrameError>) {
    let expected = read_frames(std::slice::from_ref(whole));
    for pieces in [cut, &pieces(whole, 1)] {
        assert_eq!(read_frames(pieces), expected);
    }
    (expected.0.len(), expected.2)
}

/// Frames, what the taps of all kinds of streams say of them, and the error that ends them.
fn read_frames(pieces: &[Bytes]) -> (Vec<Bytes>, Vec<String>, Option<FrameError>) {
    let mut reader = FrameReader::new(LIMIT);
    let mut taps = [Operation::InvokeStream, Operation::ConverseStream]
        .map(|operation| (operation, UsageTap::default()));
    let (mut frames, mut error) = (Vec::new(), None);
    'pieces: for piece in pieces {
        reader.push(piece.clone());
        loop {
            match reader.next_frame() {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= LIMIT);
                    for (operation, tap) in &mut taps {
                        on_frame(tap, *operation, &frame);
                    }
                    frames.push(reader.current().clone());
                }
                Err(bad) => {
                    error = Some(bad);
                    break 'pieces;
                }
            }
        }
    }
    let taps = taps.iter().map(|(_, tap)| told(tap)).collect();
    (frames, taps, error)
}

/// `InvokeModel`'s stream as server-sent events.
pub fn invoke_stream(data: &[u8]) {
    translated(data, |pieces| {
        bedrock_invoke::messages_events(pieces.iter().cloned())
    });
}

/// Converse's stream as server-sent events.
pub fn converse_stream(data: &[u8]) {
    translated(data, |pieces| {
        bedrock_converse::messages_events_of(pieces.iter().cloned(), MODEL)
    });
}

fn translated(data: &[u8], translate: impl Fn(&[Bytes]) -> Vec<u8>) {
    let (whole, _) = in_pieces(data);
    let packed = framed(&whole);
    let size = data.first().map_or(1, |size| usize::from(*size).max(1));
    for answer in [whole, packed] {
        let events = translate(std::slice::from_ref(&answer));
        assert_eq!(translate(&pieces(&answer, size)), events);
        assert_eq!(translate(&pieces(&answer, 1)), events);
        assert_are_events(&events);
    }
}

/// Asserts that bytes are whole events, each of JSON that says the event's name. Texts in it are the upstream's own, bad UTF-8
/// and halves of surrogate pairs included, and values as deep as it likes.
fn assert_are_events(bytes: &[u8]) {
    let (mut reader, mut whole) = (SseReader::new(usize::MAX), VecDeque::new());
    let read = reader.push(Bytes::copy_from_slice(bytes), &mut whole, |event| {
        let data = event.data().expect("an event has data");
        let Ok(text) = std::str::from_utf8(&data) else {
            return;
        };
        serde_json::from_str::<&RawValue>(text).expect("data is JSON");
        if let Ok(data) = serde_json::from_str::<Map<String, Value>>(text) {
            let name = std::str::from_utf8(event.name()).expect("a name is text");
            assert_eq!(data.get("type").and_then(Value::as_str), Some(name));
        }
    });
    assert!(read.is_ok() && reader.rest().is_empty());
}
