//! Answers of upstreams as they come from the wire.

use bytes::BytesMut;
use http::Method;
use spillway_proxy::adapter::http1::{Decoded, Decoder, read_head};

use super::input::in_pieces;

/// An answer's head and body are the same however they arrive, or refused however they arrive; of no body more is made than came.
pub fn answer(data: &[u8]) {
    let (whole, pieces) = in_pieces(data);
    let read = read([&whole[..]]);
    let in_pieces = read_in(&pieces);
    assert_eq!(in_pieces, read);
    if let Ok(Some((_, body, _))) = read {
        assert!(body.len() <= whole.len());
    }
}

/// Head, body, and whether that is all of it; `None` while the head has no end.
type Answer = Result<Option<(String, Vec<u8>, bool)>, String>;

fn read_in(pieces: &[bytes::Bytes]) -> Answer {
    read(pieces.iter().map(|piece| &piece[..]))
}

fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Answer {
    let (mut input, mut searched) = (BytesMut::new(), 0);
    let mut pieces = pieces.into_iter();
    let head = loop {
        let head = read_head(&mut input, &mut searched, &Method::POST);
        if let Some(head) = head.map_err(|error| error.to_string())? {
            break head;
        }
        match pieces.next() {
            Some(piece) => input.extend_from_slice(piece),
            None => return Ok(None),
        }
    };
    let (mut decoder, mut body) = (Decoder::new(head.framing), Vec::new());
    let is_whole = loop {
        match decoder
            .decode(&mut input)
            .map_err(|error| error.to_string())?
        {
            Decoded::Data(data) => body.extend_from_slice(&data),
            Decoded::End => break true,
            Decoded::More => match pieces.next() {
                Some(piece) => input.extend_from_slice(piece),
                None => break decoder.may_close(),
            },
        }
    };
    Ok(Some((format!("{head:?}"), body, is_whole)))
}
