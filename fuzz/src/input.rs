//! Inputs cut into pieces, and packed into frames.

use bytes::Bytes;

/// The input behind its first byte, in pieces of a size that the byte says.
pub fn in_pieces(data: &[u8]) -> (Bytes, Vec<Bytes>) {
    let Some((&size, rest)) = data.split_first() else {
        return (Bytes::new(), Vec::new());
    };
    let whole = Bytes::copy_from_slice(rest);
    let pieces = pieces(&whole, usize::from(size).max(1));
    (whole, pieces)
}

/// Pieces of `size` bytes.
pub fn pieces(whole: &Bytes, size: usize) -> Vec<Bytes> {
    (0..whole.len())
        .step_by(size)
        .map(|from| whole.slice(from..whole.len().min(from + size)))
        .collect()
}

/// The input as the frames of an event stream, which no fuzzer finds the checksums of. Each line is a frame: what stands
/// before the first blank is its message type and event or exception type, with a colon between, the rest its payload.
pub fn framed(text: &[u8]) -> Bytes {
    text.split(|byte| *byte == b'\n')
        .flat_map(|line| {
            let (kind, payload) = split_at(line, b' ');
            let (message, event) = split_at(kind, b':');
            let name: &[u8] = if message == b"exception" {
                b":exception-type"
            } else {
                b":event-type"
            };
            frame(&[(b":message-type", message), (name, event)], payload)
        })
        .collect()
}

fn split_at(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|byte| *byte == separator) {
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
        None => (bytes, &[]),
    }
}

fn frame(headers: &[(&[u8], &[u8])], payload: &[u8]) -> Vec<u8> {
    const TEXT: u8 = 7;
    let mut encoded = Vec::new();
    for (name, value) in headers {
        let value = &value[..value.len().min(1000)];
        encoded.push(name.len() as u8);
        encoded.extend_from_slice(name);
        encoded.push(TEXT);
        encoded.extend_from_slice(&(value.len() as u16).to_be_bytes());
        encoded.extend_from_slice(value);
    }
    let length = encoded.len() + payload.len() + 16;
    let mut frame = (length as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&(encoded.len() as u32).to_be_bytes());
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame.extend_from_slice(&encoded);
    frame.extend_from_slice(payload);
    frame.extend_from_slice(&crc32fast::hash(&frame).to_be_bytes());
    frame
}
