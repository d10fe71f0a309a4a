//! Refuses HTTP/1.1 requests that say their length twice. A body framed by both Content-Length and Transfer-Encoding is how
//! requests are smuggled past proxies that read one of them; hyper drops the former before anybody can see it. So heads are
//! looked at on their way from the socket.
//!
//! Where a head begins is known for a connection's first, and for one that comes after the body before it has ended, with
//! nothing behind that body. A client that sends on before it is answered may be served, but its heads are not looked at any
//! more: those with a Transfer-Encoding are refused from then on.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use parking_lot::Mutex;

use super::HTTP2_PREFACE;
use super::scan::{HeadScan, says_length_twice};

/// How the length of a request's body is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// Once, or not at all.
    Clear,
    /// By both headers.
    SaidTwice,
    /// By Transfer-Encoding, in a head that nobody looked at.
    Unseen,
}

/// What a connection's reader and its service tell each other.
#[derive(Debug)]
pub(in crate::http) struct Framing(Mutex<State>);

#[derive(Debug)]
struct State {
    longest_head: usize,
    /// The next bytes to arrive begin a head, or are a part of one.
    at_head: bool,
    /// What arrived of a head so far, where it comes in pieces.
    pieces: Vec<u8>,
    scan: HeadScan,
    /// Whether the head that nobody has asked about yet says its length twice.
    verdict: Option<bool>,
    /// What arrived since that head's end.
    since: Since,
    /// The length of the current body; `None` when it is chunked.
    declared: Option<u64>,
    /// A request was answered whose body had not ended, or a head grew beyond the longest, which is somebody else's to refuse.
    is_unread: bool,
    /// Where heads begin is not known any more.
    is_lost: bool,
}

/// Bytes behind a head.
#[derive(Debug, Default)]
struct Since {
    count: u64,
    tail: [u8; 3],
}

impl Since {
    fn add(&mut self, bytes: &[u8]) {
        self.count += bytes.len() as u64;
        for byte in &bytes[bytes.len().saturating_sub(self.tail.len())..] {
            self.tail.rotate_left(1);
            self.tail[2] = *byte;
        }
    }

    fn ends_in_an_empty_line(&self) -> bool {
        matches!(self.tail, [b'\n', b'\r', b'\n'] | [_, b'\n', b'\n'])
    }
}

impl Framing {
    /// Of a connection that nothing has arrived on.
    pub(in crate::http) fn new(longest_head: usize) -> Self {
        Self(Mutex::new(State {
            longest_head,
            at_head: true,
            pieces: Vec::new(),
            scan: HeadScan::default(),
            verdict: None,
            since: Since::default(),
            declared: None,
            is_unread: false,
            is_lost: false,
        }))
    }

    /// Notes what arrived. Copies only heads that arrive in pieces.
    pub(in crate::http) fn arrived(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if state.at_head {
            state.look_at(bytes);
        } else {
            state.since.add(bytes);
        }
    }

    /// Begins the HTTP/1.1 request with these headers.
    pub(in crate::http) fn begin(&self, headers: &HeaderMap) -> Length {
        let mut state = self.0.lock();
        let verdict = state.verdict.take();
        state.is_lost |= verdict.is_none();
        let is_chunked = headers.contains_key(TRANSFER_ENCODING);
        let length = headers
            .get(CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        state.declared = (!is_chunked).then(|| length.unwrap_or(0));
        match verdict {
            // hyper has dropped a second length, so this is the only one.
            _ if !is_chunked => Length::Clear,
            Some(false) => Length::Clear,
            Some(true) => Length::SaidTwice,
            None => Length::Unseen,
        }
    }

    /// Notes that the current body was read to its end: what comes next is another head, if nothing came already.
    pub(in crate::http) fn ended(&self) {
        let mut state = self.0.lock();
        // The last line of a chunked body is empty. So is that of a whole head behind it, but hyper has that one, reads
        // nothing more before it, and it is missed when it begins.
        let is_all = match state.declared {
            Some(length) => state.since.count == length,
            None => state.since.ends_in_an_empty_line(),
        };
        state.is_lost |= !is_all;
        state.at_head = !state.is_lost;
        state.since = Since::default();
    }

    /// Notes that nobody reads the current body to its end.
    pub(in crate::http) fn left_unread(&self) {
        self.0.lock().is_unread = true;
    }

    /// Whether the connection must end with the current answer, for what comes next is no head.
    pub(in crate::http) fn is_unread(&self) -> bool {
        self.0.lock().is_unread
    }

    /// Whether its client may not have stopped sending what nobody will read.
    pub(in crate::http) fn expects_more(&self) -> bool {
        let state = self.0.lock();
        // A head that nobody asked about was refused by hyper.
        state.is_unread || !state.pieces.is_empty() || state.verdict.is_some()
    }
}

impl State {
    fn look_at(&mut self, arrived: &[u8]) {
        if self.pieces.is_empty() {
            match self.scan.end(arrived) {
                Some(end) => self.judge(arrived, end),
                None => self.pieces.extend_from_slice(arrived),
            }
        } else {
            let mut pieces = std::mem::take(&mut self.pieces);
            pieces.extend_from_slice(arrived);
            match self.scan.end(&pieces) {
                Some(end) => self.judge(&pieces, end),
                None => self.pieces = pieces,
            }
        }
        if self.pieces.len() > self.longest_head {
            self.pass();
            self.is_unread = true;
        }
    }

    fn judge(&mut self, arrived: &[u8], end: usize) {
        self.pass();
        let (head, rest) = arrived.split_at(end);
        // HTTP/2 has frames, and nothing to confuse.
        if !HTTP2_PREFACE.starts_with(head) {
            self.verdict = Some(says_length_twice(head));
            self.since.add(rest);
        }
    }

    /// What comes next is no head.
    fn pass(&mut self) {
        self.pieces = Vec::new();
        self.scan = HeadScan::default();
        self.since = Since::default();
        self.at_head = false;
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const BOTH: &str =
        "POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 5\r\ntransfer-encoding: chunked\r\n\r\n";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    const DECLARED: &str = "POST / HTTP/1.1\r\nhost: x\r\nContent-Length: 9\r\n\r\n";

    fn chunked() -> HeaderMap {
        HeaderMap::from_iter([(TRANSFER_ENCODING, HeaderValue::from_static("chunked"))])
    }

    fn declared(length: u64) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_LENGTH, HeaderValue::from(length))])
    }

    fn arrived(pieces: &[&str]) -> Framing {
        let framing = Framing::new(1024);
        for piece in pieces {
            framing.arrived(piece.as_bytes());
        }
        framing
    }

    proptest! {
        #[test]
        fn both_are_found_however_the_head_arrives(size in 1usize..120) {
            for (head, expected) in [(BOTH, Length::SaidTwice), (CHUNKED, Length::Clear)] {
                let framing = Framing::new(1024);
                let sent = format!("{head}5\r\ncontent-length: 1\r\n\r\n0\r\n\r\n");
                for piece in sent.as_bytes().chunks(size) {
                    framing.arrived(piece);
                }
                prop_assert_eq!(framing.begin(&chunked()), expected);
            }
        }
    }

    #[test]
    fn nothing_of_a_body_is_taken_for_a_head() {
        let framing = arrived(&[DECLARED]);
        assert_eq!(framing.begin(&declared(9)), Length::Clear);
        framing.left_unread();
        framing.arrived(BOTH.as_bytes());
        assert_eq!(framing.begin(&declared(9)), Length::Clear);
        assert!(framing.is_unread() && framing.expects_more());
    }

    #[test]
    fn each_head_of_a_connection_is_looked_at() {
        let framing = arrived(&[DECLARED, "123456789"]);
        assert_eq!(framing.begin(&declared(9)), Length::Clear);
        framing.ended();
        framing.arrived(format!("{CHUNKED}1\r\n").as_bytes());
        assert_eq!(framing.begin(&chunked()), Length::Clear);
        framing.arrived(b"x\r\n0\r");
        framing.arrived(b"\n\r\n");
        framing.ended();
        framing.arrived(BOTH.as_bytes());
        assert_eq!(framing.begin(&chunked()), Length::SaidTwice);
    }

    #[test]
    fn what_was_sent_ahead_may_have_one_length_only() {
        for (body, next) in [
            // A whole head behind the body, and a part of one.
            ("123456789", CHUNKED),
            ("123456789", "POST / HTTP/1.1\r\nContent-Le"),
        ] {
            let framing = arrived(&[DECLARED, &format!("{body}{next}")]);
            assert_eq!(framing.begin(&declared(9)), Length::Clear);
            framing.ended();
            framing.arrived(b"ngth: 5\r\ntransfer-encoding: chunked\r\n\r\n");
            assert_eq!(framing.begin(&chunked()), Length::Unseen);
            framing.ended();
            framing.arrived(CHUNKED.as_bytes());
            assert_eq!(framing.begin(&chunked()), Length::Unseen);
            framing.ended();
            assert_eq!(framing.begin(&declared(9)), Length::Clear);
        }
    }

    #[test]
    fn what_was_sent_ahead_of_a_chunked_bodys_end_is_missed_too() {
        let framing = arrived(&[CHUNKED, &format!("0\r\n\r\n{BOTH}")]);
        assert_eq!(framing.begin(&chunked()), Length::Clear);
        framing.ended();
        assert_eq!(framing.begin(&chunked()), Length::Unseen);
        let framing = arrived(&[CHUNKED, "0\r\n\r\nPOST / HTTP/1.1\r\n"]);
        assert_eq!(framing.begin(&chunked()), Length::Clear);
        framing.ended();
        framing.arrived(BOTH.as_bytes());
        assert_eq!(framing.begin(&chunked()), Length::Unseen);
    }

    #[test]
    fn nothing_is_collected_of_http2_and_of_endless_heads() {
        let framing = arrived(&["PRI * HTTP/2.0\r\n\r\n", "SM\r\n\r\n", BOTH]);
        assert!(framing.0.lock().pieces.is_empty() && !framing.expects_more());
        let framing = arrived(&[&"x".repeat(4096)]);
        assert!(framing.0.lock().pieces.is_empty() && framing.expects_more());
    }
}
