//! How streams end.

use spillway_core::domain::usage::FallbackReason;

use super::class::{self, Failure};
use crate::adapter::{BrokenReply, ErrorBody, chain};

/// What the client is told when the proxy ends before its answer does.
pub(super) const INTERRUPTED: &str = "this proxy is shutting down; try again";

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// The upstream ended it.
    Finished,
    /// It broke off.
    Broken(BrokenReply),
    /// An event was too large.
    TooLarge,
    /// Nothing came in time.
    Silent,
}

impl End {
    /// What the client is told when the answer is not complete.
    pub(super) fn error(&self) -> ErrorBody {
        match self {
            Self::Broken(BrokenReply::Reported(error)) => error.clone(),
            Self::Finished | Self::Broken(BrokenReply::Connection(_)) => {
                ErrorBody::new("api_error", "the upstream's answer broke off")
            }
            Self::TooLarge => {
                ErrorBody::new("api_error", "the upstream sent an event that is too large")
            }
            Self::Silent => ErrorBody::new("timeout_error", "the upstream stopped answering"),
        }
    }

    /// What kind of failure that is before any content.
    pub(super) fn failure(&self) -> Failure {
        match self {
            Self::Broken(BrokenReply::Reported(error)) => {
                class::of_event(&error.kind, &error.message)
            }
            Self::Silent => Failure::Upstream(FallbackReason::Timeout),
            _ => Failure::Upstream(FallbackReason::StreamBroken),
        }
    }

    /// Whether the upstream said itself that it failed.
    pub(super) fn is_reported(&self) -> bool {
        matches!(self, Self::Broken(BrokenReply::Reported(_)))
    }

    /// What happened, for the log.
    pub(super) fn why(&self) -> String {
        match self {
            Self::Finished => "the stream ended before the answer was complete".to_owned(),
            Self::Broken(broken) => chain(broken),
            Self::TooLarge => "an event was too large".to_owned(),
            Self::Silent => "nothing came in time".to_owned(),
        }
    }
}
