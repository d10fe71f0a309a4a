//! Usage out of answers that came encoded, though none is asked to. Their bytes pass as they are.

use std::collections::VecDeque;
use std::io::{self, Read};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use super::relay::MAX_EVENT;
use crate::stream::{SseReader, UsageTap};

/// How much of an answer is decoded.
const MAX_DECODED: u64 = 64 * 1024 * 1024;
const PIECE: usize = 16 * 1024;

/// Reads a whole answer into `tap`. One in another encoding than gzip tells nothing, and is estimated.
pub(super) fn read_usage(tap: &mut UsageTap, headers: &HeaderMap, body: &[u8]) {
    let is = |name, value: &str| {
        headers.get(name).is_some_and(|found: &http::HeaderValue| {
            let found = found.as_bytes();
            found.len() >= value.len()
                && found[..value.len()].eq_ignore_ascii_case(value.as_bytes())
        })
    };
    if !is(CONTENT_ENCODING, "gzip") && !is(CONTENT_ENCODING, "x-gzip") {
        return tap.on_message(body);
    }
    let decoded = MultiGzDecoder::new(body).take(MAX_DECODED);
    let read = if is(CONTENT_TYPE, "text/event-stream") {
        read_events(tap, decoded)
    } else {
        read_message(tap, decoded)
    };
    if let Err(error) = read {
        tracing::warn!(error = %error, "the usage of an encoded answer cannot be read");
    }
}

fn read_message(tap: &mut UsageTap, mut decoded: impl Read) -> io::Result<()> {
    let mut message = Vec::new();
    decoded.read_to_end(&mut message)?;
    tap.on_message(&message);
    Ok(())
}

fn read_events(tap: &mut UsageTap, mut decoded: impl Read) -> io::Result<()> {
    let (mut reader, mut passed) = (SseReader::new(MAX_EVENT), VecDeque::new());
    let mut piece = vec![0; PIECE];
    loop {
        let length = decoded.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        reader
            .push(
                Bytes::copy_from_slice(&piece[..length]),
                &mut passed,
                |event| tap.on_event(event),
            )
            .map_err(io::Error::other)?;
        passed.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use http::HeaderValue;

    use super::*;

    fn gzip(plain: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(plain).unwrap();
        encoder.finish().unwrap()
    }

    fn read(coding: Option<&'static str>, kind: &'static str, body: &[u8]) -> UsageTap {
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
        }
        let mut tap = UsageTap::default();
        read_usage(&mut tap, &headers, body);
        tap
    }

    const MESSAGE: &[u8] = br#"{"usage":{"input_tokens":3,"output_tokens":5}}"#;

    #[test]
    fn messages_and_streams_are_read_through_gzip() {
        let events = b"event: message_start\ndata: {\"message\":{\"usage\":{\"input_tokens\":3}}}\n\nevent: message_delta\ndata: {\"usage\":{\"output_tokens\":5}}\n\nevent: message_stop\ndata: {}\n\n";
        for tap in [
            read(None, "application/json", MESSAGE),
            read(Some("GZIP"), "application/json", &gzip(MESSAGE)),
            read(
                Some("gzip"),
                "text/event-stream; charset=utf-8",
                &gzip(events),
            ),
        ] {
            let (tokens, estimated) = tap.tokens(0);
            assert_eq!((tokens.input, tokens.output, estimated), (3, 5, false));
        }
    }

    #[test]
    fn what_cannot_be_read_is_estimated() {
        let mut damaged = gzip(MESSAGE);
        damaged.truncate(20);
        for tap in [
            read(Some("br"), "application/json", b"\x0b"),
            read(Some("gzip"), "application/json", &damaged),
            read(Some("gzip"), "text/event-stream", MESSAGE),
        ] {
            assert!(tap.tokens(400).1);
        }
    }
}
