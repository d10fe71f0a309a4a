//! Limits how long a client may keep a connection waiting where nobody else does: before it says which protocol it speaks, and
//! while it takes nothing of what it is sent. Waits for heads and bodies have limits of their own.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep};

use super::HTTP2_PREFACE;

/// How long clients are waited for.
#[derive(Debug, Clone, Copy)]
pub(in crate::http) struct Patience {
    /// From the first look to the protocol's first bytes.
    pub(in crate::http) opening: Duration,
    /// Between two moments at which the client took something, while there is something to take.
    pub(in crate::http) sending: Duration,
}

/// The waits of a connection, which fail with [`io::ErrorKind::TimedOut`] when they take too long. Timers exist only while
/// there is a wait.
pub(super) struct Waits {
    patience: Patience,
    /// What of HTTP/2's preface has not come, while nothing else has either: the protocol is known when there is none.
    preface: Option<&'static [u8]>,
    opening: Option<Pin<Box<Sleep>>>,
    sending: Option<Pin<Box<Sleep>>>,
}

impl Waits {
    pub(super) fn new(patience: Patience) -> Self {
        Self {
            patience,
            preface: Some(HTTP2_PREFACE),
            opening: None,
            sending: None,
        }
    }

    /// Passes on how a read went that brought `arrived`, or that it waits too long.
    pub(super) fn read(
        &mut self,
        polled: Poll<io::Result<()>>,
        arrived: &[u8],
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(expected) = self.preface else {
            return polled;
        };
        if polled.is_ready() {
            self.preface = expected
                .strip_prefix(arrived)
                .filter(|left| !left.is_empty());
            if self.preface.is_none() {
                self.opening = None;
            }
            return polled;
        }
        let patience = self.patience.opening;
        let wait = self
            .opening
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(wait.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Passes on how a write went, or that it waits too long.
    pub(super) fn wrote<T>(
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
    use tokio::time::Instant;

    use super::super::ClientStream;
    use super::*;

    const PATIENCE: Patience = Patience {
        opening: Duration::from_secs(75),
        sending: Duration::from_mins(5),
    };

    fn connection() -> (ClientStream<DuplexStream>, DuplexStream) {
        let (server, client) = duplex(64);
        (ClientStream::new(server, PATIENCE, 1024), client)
    }

    /// How long a read is waited for.
    async fn wait(connection: &mut ClientStream<DuplexStream>) -> (io::Result<usize>, Duration) {
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
