//! Writes frames of AWS's event streams. The format is described beside their reader.

use bytes::{BufMut as _, Bytes, BytesMut};

/// A header's type that says it is text.
const TEXT: u8 = 7;

/// The frame of an exception that ends a stream, of this kind and JSON payload.
pub fn exception_frame(kind: &str, payload: &[u8]) -> Bytes {
    let mut headers = BytesMut::new();
    for (name, value) in [
        (":exception-type", kind),
        (":content-type", "application/json"),
        (":message-type", "exception"),
    ] {
        // Names are these three; a kind that is longer than any would be cut.
        let value = &value.as_bytes()[..value.len().min(255)];
        headers.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        headers.put_slice(name.as_bytes());
        headers.put_u8(TEXT);
        headers.put_u16(u16::try_from(value.len()).unwrap_or(u16::MAX));
        headers.put_slice(value);
    }
    // Two lengths, their checksum, the checksum of it all.
    let length = headers.len() + payload.len() + 16;
    let mut frame = BytesMut::with_capacity(length);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    frame.put_u32(u32::try_from(headers.len()).unwrap_or(u32::MAX));
    frame.put_u32(crc32fast::hash(&frame));
    frame.put_slice(&headers);
    frame.put_slice(payload);
    frame.put_u32(crc32fast::hash(&frame));
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::FrameReader;

    #[test]
    fn what_is_written_reads_back() {
        let mut reader = FrameReader::new(1024);
        reader.push(exception_frame("throttlingException", b"{}"));
        let frame = reader.next_frame().unwrap().unwrap();
        assert_eq!(frame.header(":message-type"), Some("exception"));
        assert_eq!(frame.header(":exception-type"), Some("throttlingException"));
        assert_eq!(frame.header(":content-type"), Some("application/json"));
        assert_eq!(frame.payload, b"{}");
    }
}
