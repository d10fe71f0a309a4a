//! A client's end of a connection, byte by byte.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Proxy, within};

/// A connection.
pub(crate) struct Wire {
    pub(crate) socket: TcpStream,
    read: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// `error.type`, or Bedrock's.
    pub(crate) fn error(&self) -> String {
        if let Some((_, kind)) = self.head.split_once("x-amzn-errortype: ") {
            return kind.lines().next().unwrap().to_owned();
        }
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["type"].as_str().unwrap_or("none").to_owned()
    }
}

impl Wire {
    pub(crate) async fn open(proxy: &Proxy) -> Self {
        let socket = TcpStream::connect(proxy.address()).await.unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            socket,
            read: Vec::new(),
        }
    }

    /// Sends, as far as the proxy takes it.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = timeout(within(), self.socket.write_all(bytes.as_ref()));
        sent.await.expect("the proxy takes nothing").is_ok()
    }

    /// Sends in pieces of `size` bytes that arrive one by one.
    pub(crate) async fn send_slowly(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            self.send(piece).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The next answer; `None` when the proxy hung up before one.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let head_end = self.until(|read| find(read, b"\r\n\r\n")).await?;
        let head = String::from_utf8(self.read.drain(..head_end).collect()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        self.until(|read| (read.len() >= length).then_some(length))
            .await?;
        Some(Answer {
            status,
            head,
            body: self.read.drain(..length).collect(),
        })
    }

    /// Whether the proxy hangs up without saying anything more.
    pub(crate) async fn is_hung_up(&mut self) -> bool {
        self.until(|read| (!read.is_empty()).then_some(0))
            .await
            .is_none()
    }

    /// Reads until `found`; `None` at the end.
    pub(crate) async fn until(&mut self, found: impl Fn(&[u8]) -> Option<usize>) -> Option<usize> {
        loop {
            if let Some(at) = found(&self.read) {
                return Some(at);
            }
            let read = timeout(within(), self.socket.read_buf(&mut self.read))
                .await
                .expect("the proxy neither answers nor hangs up");
            if matches!(read, Ok(0) | Err(_)) {
                return None;
            }
        }
    }
}

/// The end of the first `needle`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
        .map(|at| at + needle.len())
}

/// The beginning of a messages request's head, with a key and without its last line.
pub(crate) fn post(key: &str) -> String {
    format!(
        "POST /v1/messages HTTP/1.1\r\nhost: x\r\nanthropic-version: 2023-06-01\r\nx-api-key: {key}\r\n"
    )
}

/// A whole messages request.
pub(crate) fn request(key: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("{}content-length: {}\r\n\r\n", post(key), body.len());
    [head.as_bytes(), body].concat()
}
