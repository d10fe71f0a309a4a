//! An upstream that costs next to nothing: it reads requests by their length and writes answers that were made beforehand.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use super::client::{Head, header_end};
use super::payload;

/// Milliseconds between the chunks of a streamed answer, as a request header.
pub(super) const GAP_HEADER: &str = "x-bench-gap";

struct Answers {
    whole: Bytes,
    stream_head: Bytes,
    chunks: Vec<Bytes>,
}

/// Serves on a free port until the local task set ends.
pub(super) async fn start() -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let body = payload::answer();
    let mut whole = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    whole.extend_from_slice(&body);
    let answers = Rc::new(Answers {
        whole: whole.into(),
        stream_head: Bytes::from_static(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nrequest-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        chunks: payload::chunks().iter().map(|chunk| framed(chunk)).collect(),
    });
    spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            spawn_local(serve(stream, Rc::clone(&answers)));
        }
    });
    Ok(address)
}

fn framed(chunk: &[u8]) -> Bytes {
    let mut out = format!("{:x}\r\n", chunk.len()).into_bytes();
    out.extend_from_slice(chunk);
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// Whoever is measured may close at any time; that is no failure of the upstream's.
async fn serve(mut stream: TcpStream, answers: Rc<Answers>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4096);
    loop {
        let end = loop {
            if let Some(end) = header_end(&buffer) {
                break end;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let head = Head::read(&buffer[..end]);
        let mut missing = (end + head.content_length.unwrap_or(0)).saturating_sub(buffer.len());
        buffer.clear();
        while missing > 0 {
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
            missing = missing.saturating_sub(buffer.len());
            buffer.clear();
        }
        match head.gap {
            None => stream.write_all(&answers.whole).await?,
            Some(gap) => write_stream(&mut stream, &answers, gap).await?,
        }
    }
}

async fn write_stream(stream: &mut TcpStream, answers: &Answers, gap: Duration) -> io::Result<()> {
    stream.write_all(&answers.stream_head).await?;
    for (at, chunk) in answers.chunks.iter().enumerate() {
        if at > 0 {
            sleep(gap).await;
        }
        stream.write_all(chunk).await?;
    }
    stream.write_all(b"0\r\n\r\n").await
}
