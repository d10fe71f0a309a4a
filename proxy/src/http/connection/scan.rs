//! Where a head of HTTP/1.1 ends, and whether it says its body's length twice.

use memchr::memchr;

/// Looks for a head's end as hyper does: at an empty line, lines ending in LF or CRLF, after any empty ones before its first.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// Where the line begins that has not ended.
    line: usize,
    begun: bool,
}

impl HeadScan {
    /// The length of the head that `bytes` begin with, which are those given before and more; `None` until its end has come.
    pub fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(length) = memchr(b'\n', &bytes[self.line..]) {
            let line = &bytes[self.line..self.line + length];
            self.line += length + 1;
            let is_empty = matches!(line, b"" | b"\r");
            if is_empty && self.begun {
                return Some(self.line);
            }
            self.begun |= !is_empty;
        }
        None
    }
}

/// Whether a head has both Content-Length and Transfer-Encoding.
pub fn says_length_twice(head: &[u8]) -> bool {
    let (mut length, mut encoding) = (false, false);
    for line in head.split(|byte| *byte == b'\n').skip(1) {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        length |= name.eq_ignore_ascii_case(b"content-length");
        encoding |= name.eq_ignore_ascii_case(b"transfer-encoding");
    }
    length && encoding
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn both_are_found_whatever_lines_end_in_and_come_before(
            empty in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n"]), 0..4),
            ends in prop::collection::vec(prop::sample::select(vec!["\n", "\r\n"]), 5),
        ) {
            let lines = ["POST / HTTP/1.1", "host: x", "content-length: 5", "transfer-encoding: chunked", ""];
            let mut head = empty.concat();
            for (line, end) in lines.iter().zip(ends) {
                head.push_str(line);
                head.push_str(end);
            }
            let sent = format!("{head}0\r\n\r\n");
            prop_assert_eq!(HeadScan::default().end(sent.as_bytes()), Some(head.len()));
            prop_assert!(says_length_twice(head.as_bytes()));
        }
    }
}
