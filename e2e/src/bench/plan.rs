//! What is sent in a round.

use std::time::Duration;

use super::client::request;
use super::load::Load;
use super::payload::{self, Size};

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scenario {
    /// Answers of one piece to small requests.
    Small,
    /// Answers of one piece to requests as large as Claude Code's.
    Large,
    /// Streams of [`payload::CHUNKS`] chunks.
    Stream,
}

/// Between the chunks of a stream: what a fast model takes for a token.
const GAP: Duration = Duration::from_millis(10);
/// For streams that are to stay open.
const NEVER: Duration = Duration::from_mins(10);

impl Scenario {
    pub(super) const ALL: [Self; 3] = [Self::Small, Self::Large, Self::Stream];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Small => "1 KB request",
            Self::Large => "100 KB request",
            Self::Stream => "stream of 20 chunks",
        }
    }

    /// The load on `path`, for about `seconds`.
    pub(super) fn load(self, path: &str, seconds: u32) -> Load {
        let (size, gap, rate) = match self {
            Self::Small => (Size::Small, None, 500),
            Self::Large => (Size::Large, None, 200),
            Self::Stream => (Size::Small, Some(GAP), 100),
        };
        let body = payload::request(size, gap.is_some());
        Load {
            request: request(path, &body, gap),
            rate,
            count: rate * seconds,
        }
    }
}

/// A request for a stream that goes on after its first chunk for longer than anybody looks.
pub(super) fn open_stream(path: &str) -> bytes::Bytes {
    request(path, &payload::request(Size::Small, true), Some(NEVER))
}

/// A request with a short answer.
pub(super) fn first(path: &str) -> bytes::Bytes {
    request(path, &payload::request(Size::Small, false), None)
}
