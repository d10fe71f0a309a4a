//! Limits how long a client may keep a connection waiting where nobody else does: before it says which protocol it speaks, and
//! while it takes nothing of what it is sent. Waits for heads and bodies have limits of their own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// What an HTTP/2 connection begins with. The protocol is known when this is complete or something else has come.
/// Source: RFC 9113, section 3.4.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long clients are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first look to the protocol's first bytes.
    pub(super) opening: Duration,
    /// Between two moments at which the client took something, while there is something to take.
    pub(super) sending: Duration,
}

/// A connection that fails with [`io::ErrorKind::TimedOut`] when its client is waited for too long. Timers exist only while
/// there is a wait.
pub(super) struct Patient<S> {
    stream: S,
    patience: Patience,
    /// What of the preface has not come, while nothing else has either.
    preface: Option<&'static [u8]>,
    opening: Option<Pin<Box<Sleep>>>,
    sending: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    pub(super) fn new(stream: S, patience: Patience) -> Self {
        Self {
            stream,
            patience,
            preface: Some(HTTP2_PREFACE),
            opening: None,
            sending: None,
        }
    }

    fn arrived(&mut self, bytes: &[u8]) {
        self.preface = self
            .preface
            .and_then(|expected| expected.strip_prefix(bytes))
            .filter(|left| !left.is_empty());
        if self.preface.is_none() {
            self.opening = None;
        }
    }

    /// Passes on how a write went, or that it waits too long.
    fn sent<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.sending = None;
            return polled;
        }
        let patience = self.patience.sending;
        let wait = self
            .sending
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(wait.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.preface.is_none() {
            return polled;
        }
        if polled.is_ready() {
            self.arrived(&buf.filled()[before..]);
            return polled;
        }
        let patience = self.patience.opening;
        let wait = self
            .opening
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(wait.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.sent(polled, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.sent(polled, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.sent(polled, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::*;

    const PATIENCE: Patience = Patience {
        opening: Duration::from_secs(75),
        sending: Duration::from_mins(5),
    };

    fn connection() -> (Patient<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(64);
        (Patient::new(server, PATIENCE), client)
    }

    /// How long a read is waited for.
    async fn wait(connection: &mut Patient<DuplexStream>) -> (io::Result<usize>, Duration) {
        let began = Instant::now();
        let mut buffer = [0; 64];
        (connection.read(&mut buffer).await, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_or_half_a_preface_is_given_up() {
        for said in [&b""[..], b"P", &HTTP2_PREFACE[..23]] {
            let (mut connection, mut client) = connection();
            client.write_all(said).await.unwrap();
            if !said.is_empty() {
                wait(&mut connection).await.0.unwrap();
            }
            let (read, waited) = wait(&mut connection).await;
            assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
            assert_eq!(waited, PATIENCE.opening, "{said:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_said_its_protocol_is_waited_for_by_others() {
        for said in [&b"POST"[..], b"\0", HTTP2_PREFACE] {
            let (mut connection, mut client) = connection();
            client.write_all(said).await.unwrap();
            wait(&mut connection).await.0.unwrap();
            let later = tokio::spawn(async move {
                sleep(PATIENCE.opening * 3).await;
                client.write_all(b"x").await.unwrap();
                client
            });
            let (read, waited) = wait(&mut connection).await;
            assert_eq!((read.unwrap(), waited), (1, PATIENCE.opening * 3));
            later.await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn trickling_the_preface_gains_no_time() {
        let (mut connection, mut client) = connection();
        let trickle = tokio::spawn(async move {
            for byte in HTTP2_PREFACE {
                sleep(Duration::from_secs(20)).await;
                if client.write_all(&[*byte]).await.is_err() {
                    break;
                }
            }
        });
        let began = Instant::now();
        let error = loop {
            if let Err(error) = wait(&mut connection).await.0 {
                break error;
            }
        };
        assert_eq!(
            (error.kind(), began.elapsed()),
            (io::ErrorKind::TimedOut, PATIENCE.opening)
        );
        drop(connection);
        trickle.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up_and_a_slow_one_is_not() {
        let (mut connection, mut client) = connection();
        let slow = tokio::spawn(async move {
            let mut buffer = [0; 16];
            for _ in 0..8 {
                sleep(PATIENCE.sending / 2).await;
                client.read_exact(&mut buffer).await.unwrap();
            }
            client
        });
        connection.write_all(&[0; 128]).await.unwrap();
        let _client = slow.await.unwrap();
        let began = Instant::now();
        let error = connection.write_all(&[0; 128]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed(), PATIENCE.sending);
    }
}
