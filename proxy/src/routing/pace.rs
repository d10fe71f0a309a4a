//! How long a stream may be silent, and what is done about it.

use std::future::Future as _;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// How long a stream may be silent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// When the first byte is due.
    pub(super) first_byte: Instant,
    /// The longest between two events that are no pings.
    pub(super) idle: Duration,
    /// After how much silence the client gets a ping; `None` if the upstream sends them.
    pub(super) ping: Option<Duration>,
}

/// Watches over a stream's silences. Deadlines move with every event while nobody looks: the timer is set anew only when it has
/// run out.
pub(super) struct Clock {
    pace: Pace,
    /// When there must have been progress.
    due: Instant,
    /// When the client was last sent anything.
    sent: Instant,
    begun: bool,
    sleep: Pin<Box<Sleep>>,
}

/// What a silence calls for.
pub(super) enum Silence {
    /// A ping for the client.
    Ping,
    /// The stream is to be given up.
    TooLong,
}

impl Clock {
    /// Begins to wait for the first byte.
    pub(super) fn new(pace: Pace) -> Self {
        let sleep = Box::pin(tokio::time::sleep_until(pace.first_byte));
        let (due, sent) = (pace.first_byte, Instant::now());
        let mut clock = Self {
            pace,
            due,
            sent,
            begun: false,
            sleep,
        };
        clock.set();
        clock
    }

    /// Notes that bytes were received, and whether there was anything but pings in them.
    pub(super) fn received(&mut self, progress: bool) {
        let is_first = !std::mem::replace(&mut self.begun, true);
        if progress || is_first {
            self.due = Instant::now() + self.pace.idle;
        }
        if is_first {
            // Later deadlines only move back, this one may come sooner than the first byte's.
            self.set();
        }
    }

    /// Notes that the client is sent something.
    pub(super) fn sent(&mut self) {
        if self.pace.ping.is_some() {
            self.sent = Instant::now();
        }
    }

    /// Waits until the silence calls for something.
    pub(super) fn poll_silence(&mut self, cx: &mut Context<'_>) -> Poll<Silence> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let now = Instant::now();
            if now >= self.due {
                return Poll::Ready(Silence::TooLong);
            }
            if self
                .pace
                .ping
                .is_some_and(|silence| now >= self.sent + silence)
            {
                self.sent = now;
                return Poll::Ready(Silence::Ping);
            }
            self.set();
        }
    }

    fn set(&mut self) {
        let next = self
            .pace
            .ping
            .map_or(self.due, |silence| self.due.min(self.sent + silence));
        self.sleep.as_mut().reset(next);
    }
}
