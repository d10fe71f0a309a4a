//! An upstream's end of a connection, byte by byte.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::wire::find;

/// Answers each connection's one request as it was told to, and with 529 when it was told nothing.
pub(crate) struct RawUpstream {
    pub(crate) url: String,
    told: Arc<Mutex<VecDeque<Told>>>,
    sent: Arc<AtomicU64>,
}

/// What to send.
#[derive(Clone)]
pub(crate) struct Told {
    first: Vec<u8>,
    then: Then,
}

/// What to do then.
#[derive(Clone)]
enum Then {
    Close,
    /// Say nothing more and wait for the proxy to hang up.
    Hold,
    /// Send this over and over.
    Repeat(Vec<u8>, Duration),
}

impl Told {
    pub(crate) fn close(first: impl Into<Vec<u8>>) -> Self {
        let (first, then) = (first.into(), Then::Close);
        Self { first, then }
    }

    pub(crate) fn hold(first: impl Into<Vec<u8>>) -> Self {
        let (first, then) = (first.into(), Then::Hold);
        Self { first, then }
    }

    /// Without end, and as fast as it is taken.
    pub(crate) fn endless(first: impl Into<Vec<u8>>, piece: impl Into<Vec<u8>>) -> Self {
        Self::trickle(first, piece, Duration::ZERO)
    }

    pub(crate) fn trickle(
        first: impl Into<Vec<u8>>,
        piece: impl Into<Vec<u8>>,
        pause: Duration,
    ) -> Self {
        let (first, then) = (first.into(), Then::Repeat(piece.into(), pause));
        Self { first, then }
    }
}

impl RawUpstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (told, sent) = (Arc::<Mutex<VecDeque<Told>>>::default(), Arc::default());
        let upstream = Self {
            url,
            told: Arc::clone(&told),
            sent: Arc::clone(&sent),
        };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&told), Arc::clone(&sent)));
            }
        });
        upstream
    }

    /// Answers the next request so.
    pub(crate) fn next(&self, told: Told) {
        self.told.lock().push_back(told);
    }

    /// How many bytes were taken from it so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

async fn serve(
    mut socket: TcpStream,
    told: Arc<Mutex<VecDeque<Told>>>,
    sent: Arc<AtomicU64>,
) -> Option<()> {
    read_request(&mut socket).await?;
    let busy = "HTTP/1.1 529 x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";
    let told = told.lock().pop_front();
    let Told { first, then } = told.unwrap_or_else(|| Told::close(busy));
    socket.write_all(&first).await.ok()?;
    sent.fetch_add(first.len() as u64, Ordering::Relaxed);
    match then {
        Then::Close => {
            socket.shutdown().await.ok()?;
            // Whoever closes with bytes unread resets, and what was sent is lost.
            read_to_end(&mut socket).await;
        }
        Then::Hold => read_to_end(&mut socket).await,
        Then::Repeat(piece, pause) => loop {
            let length = socket.write(&piece).await.ok()?;
            sent.fetch_add(length as u64, Ordering::Relaxed);
            socket.write_all(&piece[length..]).await.ok()?;
            sent.fetch_add((piece.len() - length) as u64, Ordering::Relaxed);
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        },
    }
    Some(())
}

async fn read_request(socket: &mut TcpStream) -> Option<()> {
    let mut read = Vec::new();
    let (mut head, mut length) = (None, 0);
    loop {
        if head.is_none()
            && let Some(end) = find(&read, b"\r\n\r\n")
        {
            head = Some(end);
            let text = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
            length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
        }
        if head.is_some_and(|end| read.len() >= end + length) {
            return Some(());
        }
        if socket.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

async fn read_to_end(socket: &mut TcpStream) {
    let mut buffer = [0; 1024];
    while matches!(socket.read(&mut buffer).await, Ok(1..)) {}
}

/// The head of an answer without a length, of this content type.
pub(crate) fn head(content_type: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\nrequest-id: req_raw\r\nconnection: close\r\n\r\n"
    )
}
