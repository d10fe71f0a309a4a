//! Between a client and the proxy: passes bytes on both ways as they come, and keeps the requests.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use spillway_e2e::upstream::sha256_hex;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// A request as the client sent it, over HTTP/1.1 with a Content-Length, as all of these clients send theirs.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case and values, in order.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Sent {
    /// First value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// Lower-case hex of SHA-256 over the body.
    pub fn body_sha256(&self) -> String {
        sha256_hex(&self.body)
    }
}

/// A tap. Dropping it closes its port.
pub struct Tap {
    pub address: SocketAddr,
    sent: Arc<Mutex<Vec<Sent>>>,
    listener: AbortHandle,
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

impl Tap {
    /// Opens a port that leads to `target`, who may not listen yet.
    pub async fn open(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let sent = Arc::new(Mutex::default());
        let requests = Arc::clone(&sent);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(connect(client, target, Arc::clone(&requests)));
            }
        });
        Self {
            address,
            sent,
            listener: task.abort_handle(),
        }
    }

    /// What clients sent so far, in the order in which each request was complete.
    pub fn sent(&self) -> Vec<Sent> {
        self.sent.lock().clone()
    }
}

async fn connect(client: TcpStream, target: SocketAddr, sent: Arc<Mutex<Vec<Sent>>>) {
    let Ok(proxy) = TcpStream::connect(target).await else {
        return;
    };
    for stream in [&client, &proxy] {
        stream.set_nodelay(true).unwrap();
    }
    let (from_client, to_client) = client.into_split();
    let (from_proxy, to_proxy) = proxy.into_split();
    let mut reader = Requests::default();
    let upward = pass(from_client, to_proxy, |bytes| {
        sent.lock().extend(reader.push(bytes));
    });
    tokio::join!(upward, pass(from_proxy, to_client, |_| {}));
}

/// Copies until one side ends, then ends the other.
async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut look: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(size @ 1..) = from.read(&mut buffer).await {
        look(&buffer[..size]);
        if to.write_all(&buffer[..size]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

/// Takes requests out of a connection's bytes.
#[derive(Default)]
struct Requests(Vec<u8>);

impl Requests {
    fn push(&mut self, bytes: &[u8]) -> Vec<Sent> {
        self.0.extend_from_slice(bytes);
        std::iter::from_fn(|| self.next()).collect()
    }

    fn next(&mut self) -> Option<Sent> {
        let end = self.0.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&self.0[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let mut first = lines.next()?.split(' ');
        let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let value = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v);
        assert_eq!(value("transfer-encoding"), None, "a tap reads lengths only");
        let length = value("content-length").map_or(0, |length| length.parse().unwrap());
        let body = self.0.get(end + 4..end + 4 + length)?.to_vec();
        self.0.drain(..end + 4 + length);
        Some(Sent {
            method,
            target,
            headers,
            body,
        })
    }
}
