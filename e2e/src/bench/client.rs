//! A client of HTTP/1.1 that costs little itself: requests are bytes, answers are looked at only for where they end.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::upstream::GAP_HEADER;

/// Behind the last chunk of a chunked body.
const LAST_CHUNK: &[u8] = b"\r\n0\r\n\r\n";

/// What framing needs of a head.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) ok: bool,
    pub(super) content_length: Option<usize>,
    pub(super) gap: Option<Duration>,
}

impl Head {
    pub(super) fn read(head: &[u8]) -> Self {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let mut read = Self {
            ok: lines.next().is_some_and(|line| line.contains(" 200 ")),
            ..Self::default()
        };
        for line in lines {
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            if name.eq_ignore_ascii_case("content-length") {
                read.content_length = value.trim().parse().ok();
            } else if name.eq_ignore_ascii_case(GAP_HEADER) {
                read.gap = value.trim().parse().ok().map(Duration::from_millis);
            }
        }
        read
    }
}

/// Where a head ends, if it is whole.
pub(super) fn header_end(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, b"\r\n\r\n").map(|at| at + 4)
}

/// A request as it goes over the wire.
pub(super) fn request(path: &str, body: &[u8], gap: Option<Duration>) -> Bytes {
    let gap = gap.map_or_else(String::new, |gap| {
        format!("{GAP_HEADER}: {}\r\n", gap.as_millis())
    });
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\naccept: application/json\r\nanthropic-version: 2023-06-01\r\nanthropic-beta: claude-code-20250219,interleaved-thinking-2025-05-14\r\nuser-agent: claude-cli/2.1.280 (external, cli)\r\nx-app: cli\r\nx-stainless-lang: js\r\nx-stainless-retry-count: 0\r\n{gap}content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes.into()
}

/// When what came, from the moment that the request was sent.
#[derive(Debug, Default, Clone)]
pub(super) struct Timing {
    /// The first byte of the body.
    pub(super) first: Duration,
    /// The last one.
    pub(super) whole: Duration,
    /// Between pieces of the body.
    pub(super) gaps: Vec<Duration>,
}

/// A connection that is kept open.
pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(super) async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(4096),
        })
    }

    /// Sends a request and waits until the first bytes of the answer's body are here.
    pub(super) async fn begin(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(end) = header_end(&self.buffer) {
                if !Head::read(&self.buffer[..end]).ok {
                    return Err(failed(&self.buffer));
                }
                if self.buffer.len() > end {
                    return Ok(());
                }
            }
        }
    }

    /// Sends a request and reads its answer to the end.
    pub(super) async fn exchange(&mut self, request: &[u8]) -> io::Result<Timing> {
        let begun = Instant::now();
        let mut timing = Timing::default();
        let mut last = None;
        let mut expected: Option<Option<usize>> = None;
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = begun.elapsed();
            let mut body = true;
            if expected.is_none() {
                let Some(end) = header_end(&self.buffer) else {
                    continue;
                };
                let head = Head::read(&self.buffer[..end]);
                if !head.ok {
                    return Err(failed(&self.buffer));
                }
                expected = Some(head.content_length.map(|length| end + length));
                body = self.buffer.len() > end;
            }
            if body {
                match last.replace(now) {
                    None => timing.first = now,
                    Some(before) => timing.gaps.push(now.saturating_sub(before)),
                }
            }
            let is_whole = match expected.flatten() {
                Some(length) => self.buffer.len() >= length,
                None => self.buffer.ends_with(LAST_CHUNK),
            };
            if is_whole {
                timing.whole = now;
                return Ok(timing);
            }
        }
    }
}

fn failed(answer: &[u8]) -> io::Error {
    let text: String = String::from_utf8_lossy(answer).chars().take(400).collect();
    io::Error::other(format!("the answer is no 200: {text}"))
}
