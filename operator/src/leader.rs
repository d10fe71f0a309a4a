//! Leader election by a `coordination.k8s.io/v1` Lease.
//!
//! Every change of the Lease is a create or a replace at the resource version that was read, so the API server
//! decides between candidates. Clocks of different nodes are never compared: a candidate calls a leader dead when
//! the Lease has not changed for its duration by the candidate's own monotonic clock, and a leader gives up
//! [`Timing::renew_deadline`] after the *start* of its last successful renewal, well before that. What the lease
//! cannot rule out (a process that was frozen in between) is fenced in Postgres by the epoch row.

mod elector;
mod held;

use std::time::Duration;

pub use elector::Elector;
pub use held::HeldLease;

/// The periods of an election.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How long a Lease that nobody renews stays its holder's.
    pub lease_duration: Duration,
    /// How long after its last successful renewal a leader stops being one.
    pub renew_deadline: Duration,
    /// Pause between two renewals, and between two looks of a candidate.
    pub retry_period: Duration,
    /// Limit of one request to the API server.
    pub request_timeout: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(1),
            request_timeout: Duration::from_secs(3),
        }
    }
}

/// Why a leader is none any more. The process has to end: what it still does could meet its successor's work.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Somebody else holds the Lease.
    #[error("the lease is held by {holder:?}")]
    Taken {
        /// The identity in the Lease.
        holder: String,
    },
    /// No renewal succeeded in time.
    #[error("the lease was not renewed for {0:?}")]
    NotRenewed(Duration),
}

/// The Lease could not be taken by force.
#[derive(Debug, thiserror::Error)]
pub enum SeizeError {
    /// A request failed.
    #[error("the lease could not be taken")]
    Attempt(#[source] kube::Error),
    /// The API server did not answer.
    #[error("the api server did not answer in time")]
    TimedOut,
    /// The Lease changed each time it was about to be taken.
    #[error("the lease kept changing")]
    Contended,
}
