//! One server-sent event, and what it means in a Messages stream.

use std::borrow::Cow;

use memchr::memchr2;

/// The bytes of one event with its line ends; fields are found when asked for.
#[derive(Debug, Clone, Copy)]
pub struct RawEvent<'a>(&'a [u8]);

impl<'a> RawEvent<'a> {
    /// An event of these bytes.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The last `event` field, empty if there is none.
    pub fn name(&self) -> &'a [u8] {
        self.fields()
            .filter(|(field, _)| *field == b"event")
            .last()
            .map_or(&[], |(_, value)| value)
    }

    /// The `data` fields joined by line feeds; `None` if there is none, as in a comment. Borrowed where there is one.
    pub fn data(&self) -> Option<Cow<'a, [u8]>> {
        let mut lines = self
            .fields()
            .filter(|(field, _)| *field == b"data")
            .map(|(_, value)| value);
        let mut data = Cow::Borrowed(lines.next()?);
        for line in lines {
            let joined = data.to_mut();
            joined.push(b'\n');
            joined.extend_from_slice(line);
        }
        Some(data)
    }

    /// Field names and values, comments left out.
    fn fields(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            while !rest.is_empty() {
                let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
                let line = &rest[..end];
                rest = rest.get(end + 1..).unwrap_or_default();
                if let Some(colon) = line.iter().position(|&byte| byte == b':') {
                    let value = &line[colon + 1..];
                    return Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)));
                }
                if !line.is_empty() {
                    return Some((line, &[][..]));
                }
            }
            None
        })
    }
}

/// The events of a Messages stream that metering and failing over tell apart, by their SSE name.
/// Source: <https://docs.anthropic.com/en/docs/build-with-claude/streaming#event-types>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEvent {
    /// `message_start`.
    MessageStart,
    /// `content_block_start`.
    ContentBlockStart,
    /// `content_block_delta`.
    ContentBlockDelta,
    /// `message_delta`.
    MessageDelta,
    /// `message_stop`.
    MessageStop,
    /// `error`.
    Error,
    /// `ping`.
    Ping,
    /// Any other name, known to the client alone.
    Other,
}

impl StreamEvent {
    /// The kind of an event by its name.
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"content_block_delta" => Self::ContentBlockDelta,
            b"content_block_start" => Self::ContentBlockStart,
            b"message_start" => Self::MessageStart,
            b"message_delta" => Self::MessageDelta,
            b"message_stop" => Self::MessageStop,
            b"error" => Self::Error,
            b"ping" => Self::Ping,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_follow_the_specification() {
        for (text, name, data) in [
            ("event: ping\ndata: {}\n\n", "ping", Some("{}")),
            (
                "event:ping\ndata:  two spaces\n\n",
                "ping",
                Some(" two spaces"),
            ),
            (
                "data: 1\r\nid: 7\r\nevent: a\r\nevent: b\r\n\r\n",
                "b",
                Some("1"),
            ),
            ("data\ndata\n\n", "", Some("\n")),
            (": comment: data: 1\n\n", "", None),
            (
                "\ndata: after a late line feed\n\n",
                "",
                Some("after a late line feed"),
            ),
            ("retry: 10\n\n", "", None),
        ] {
            let event = RawEvent::new(text.as_bytes());
            assert_eq!(event.name(), name.as_bytes(), "{text:?}");
            assert_eq!(event.data().as_deref(), data.map(str::as_bytes), "{text:?}");
        }
    }

    #[test]
    fn a_single_data_line_is_borrowed() {
        assert!(matches!(
            RawEvent::new(b"data: 1\n\n").data(),
            Some(Cow::Borrowed(b"1"))
        ));
    }
}
