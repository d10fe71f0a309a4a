//! Leader election by a `coordination.k8s.io/v1` Lease.
//!
//! Every change of the Lease is a create or a replace at the resource version that was read, so the API server
//! decides between candidates. Clocks of different nodes are never compared: a candidate calls a leader dead when
//! the Lease has not changed for its duration by the candidate's own monotonic clock, and a leader gives up
//! [`Timing::renew_deadline`] after the *start* of its last successful renewal, well before that. What the lease
//! cannot rule out (a process that was frozen in between) is fenced in Postgres by the epoch row.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{debug, info, warn};

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

/// Attempts to take a Lease by force that its holder renews at the same time.
const SEIZE_ATTEMPTS: u32 = 20;

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

/// One attempt to read or change the Lease that came to nothing; the next one may succeed.
#[derive(Debug, thiserror::Error)]
enum AttemptError {
    #[error("the lease could not be read")]
    Read(#[source] kube::Error),
    #[error("the lease could not be written")]
    Write(#[source] kube::Error),
    #[error("the api server did not answer in time")]
    TimedOut,
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

/// What a candidate last saw in the Lease, and since when by its own clock.
#[derive(Debug, Clone)]
struct Observation {
    resource_version: Option<String>,
    unchanged_since: Instant,
}

/// A candidate of one election.
pub struct Elector {
    leases: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

impl Elector {
    /// A candidate called `identity`, unique to this process, for the Lease `name` in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        identity: String,
        timing: Timing,
    ) -> Self {
        Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity,
            timing,
        }
    }

    /// Waits until this candidate holds the Lease. Failures are logged and tried again; dropping the future gives up.
    pub async fn acquire(self) -> HeldLease {
        let mut seen: Option<Observation> = None;
        loop {
            let started = Instant::now();
            match self.within(self.attempt(&mut seen)).await {
                Ok(Some(lease)) => {
                    info!(
                        lease = self.name,
                        identity = self.identity,
                        "became the leader"
                    );
                    return HeldLease {
                        elector: self,
                        lease,
                        renewed_at: started,
                    };
                }
                Ok(None) => debug!(lease = self.name, "another replica leads"),
                Err(error) => warn!(
                    lease = self.name,
                    error = describe(&error),
                    "election attempt failed"
                ),
            }
            sleep(self.timing.retry_period).await;
        }
    }

    /// Takes the Lease whoever holds it, once, and does not renew it: its holder stops at its next renewal and nobody
    /// leads until the Lease has run out.
    pub async fn seize(&self) -> Result<(), SeizeError> {
        for _ in 0..SEIZE_ATTEMPTS {
            match self.within(self.seize_attempt()).await {
                Ok(Some(_)) => return Ok(()),
                Ok(None) => {}
                Err(AttemptError::TimedOut) => return Err(SeizeError::TimedOut),
                Err(AttemptError::Read(source) | AttemptError::Write(source)) => {
                    return Err(SeizeError::Attempt(source));
                }
            }
        }
        Err(SeizeError::Contended)
    }

    async fn seize_attempt(&self) -> Result<Option<Lease>, AttemptError> {
        match self
            .leases
            .get_opt(&self.name)
            .await
            .map_err(AttemptError::Read)?
        {
            Some(current) => {
                let wanted = self.taken(Some(&current));
                self.settle(
                    self.leases
                        .replace(&self.name, &PostParams::default(), &wanted)
                        .await,
                )
            }
            None => self.settle(
                self.leases
                    .create(&PostParams::default(), &self.taken(None))
                    .await,
            ),
        }
    }

    /// One look at the Lease, and the attempt to take it when it is free.
    async fn attempt(&self, seen: &mut Option<Observation>) -> Result<Option<Lease>, AttemptError> {
        let Some(current) = self
            .leases
            .get_opt(&self.name)
            .await
            .map_err(AttemptError::Read)?
        else {
            return self.settle(
                self.leases
                    .create(&PostParams::default(), &self.taken(None))
                    .await,
            );
        };
        let resource_version = current.metadata.resource_version.clone();
        let now = Instant::now();
        let unchanged_since = match seen {
            Some(observation) if observation.resource_version == resource_version => {
                observation.unchanged_since
            }
            _ => now,
        };
        *seen = Some(Observation {
            resource_version,
            unchanged_since,
        });
        if !self.is_free(&current, now - unchanged_since) {
            return Ok(None);
        }
        let wanted = self.taken(Some(&current));
        self.settle(
            self.leases
                .replace(&self.name, &PostParams::default(), &wanted)
                .await,
        )
    }

    /// Whether the Lease may be taken, having stayed as it is for `unchanged`.
    fn is_free(&self, lease: &Lease, unchanged: Duration) -> bool {
        let Some(spec) = &lease.spec else { return true };
        match spec.holder_identity.as_deref() {
            None | Some("") => true,
            Some(holder) if holder == self.identity => true,
            Some(_) => unchanged >= duration_of(spec).unwrap_or(self.timing.lease_duration),
        }
    }

    /// The Lease as this candidate writes it when it takes or renews it.
    fn taken(&self, current: Option<&Lease>) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = current.cloned().unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            ..Lease::default()
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions =
                Some(current.map_or(0, |_| spec.lease_transitions.unwrap_or(0) + 1));
        }
        spec.lease_duration_seconds =
            i32::try_from(self.timing.lease_duration.as_secs().max(1)).ok();
        spec.renew_time = Some(now);
        lease
    }

    /// Turns "somebody was faster" into a plain `None`.
    fn settle(&self, written: Result<Lease, kube::Error>) -> Result<Option<Lease>, AttemptError> {
        match written {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                debug!(lease = self.name, "another replica was faster");
                Ok(None)
            }
            Err(error) => Err(AttemptError::Write(error)),
        }
    }

    async fn within<T>(
        &self,
        attempt: impl Future<Output = Result<T, AttemptError>>,
    ) -> Result<T, AttemptError> {
        timeout(self.timing.request_timeout, attempt)
            .await
            .unwrap_or(Err(AttemptError::TimedOut))
    }
}

/// A Lease that this process holds.
pub struct HeldLease {
    elector: Elector,
    lease: Lease,
    renewed_at: Instant,
}

impl HeldLease {
    /// Renews the Lease until `stop` completes (the Lease is then still held) or the leadership is lost.
    pub async fn hold(mut self, stop: impl Future<Output = ()>) -> Result<Self, Lost> {
        tokio::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => return Ok(self),
                () = sleep(self.elector.timing.retry_period) => {}
            }
            self.renew().await?;
        }
    }

    /// One renewal: returns when it succeeded or failed harmlessly, with an error when the leadership is over.
    async fn renew(&mut self) -> Result<(), Lost> {
        let deadline = self.renewed_at + self.elector.timing.renew_deadline;
        let started = Instant::now();
        if started >= deadline {
            // The process was frozen, or starved: somebody else may lead by now.
            return Err(Lost::NotRenewed(self.renewed_at.elapsed()));
        }
        let attempt = self.elector.within(self.elector.renew_attempt(&self.lease));
        match timeout_at(deadline, attempt).await {
            Ok(Ok(Renewal::Renewed(lease))) if Instant::now() < deadline => {
                self.lease = lease;
                self.renewed_at = started;
                return Ok(());
            }
            Ok(Ok(Renewal::Changed(lease))) => match lease
                .spec
                .as_ref()
                .and_then(|s| s.holder_identity.as_deref())
            {
                Some(holder) if holder == self.elector.identity => self.lease = lease,
                holder => {
                    return Err(Lost::Taken {
                        holder: holder.unwrap_or_default().to_owned(),
                    });
                }
            },
            Ok(Err(error)) => warn!(
                lease = self.elector.name,
                error = describe(&error),
                "lease renewal failed"
            ),
            Ok(Ok(Renewal::Renewed(_))) | Err(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(Lost::NotRenewed(self.renewed_at.elapsed()));
        }
        Ok(())
    }

    /// Gives the Lease up, so that the next leader need not wait for its end. A failure is only logged: the Lease
    /// then ends by itself.
    pub async fn release(mut self) {
        let spec = self.lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = None;
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let leases = &self.elector.leases;
        let replaced = self.elector.within(async {
            leases
                .replace(&self.elector.name, &PostParams::default(), &self.lease)
                .await
                .map_err(AttemptError::Write)
        });
        match replaced.await {
            Ok(_) => info!(lease = self.elector.name, "released the lease"),
            Err(error) => warn!(
                lease = self.elector.name,
                error = describe(&error),
                "the lease could not be released"
            ),
        }
    }
}

/// What came of one renewal that the API server answered.
enum Renewal {
    Renewed(Lease),
    /// The Lease is not as this process left it.
    Changed(Lease),
}

impl Elector {
    async fn renew_attempt(&self, held: &Lease) -> Result<Renewal, AttemptError> {
        let wanted = self.taken(Some(held));
        match self
            .leases
            .replace(&self.name, &PostParams::default(), &wanted)
            .await
        {
            Ok(lease) => Ok(Renewal::Renewed(lease)),
            Err(kube::Error::Api(status)) if status.is_conflict() => Ok(Renewal::Changed(
                self.leases
                    .get(&self.name)
                    .await
                    .map_err(AttemptError::Read)?,
            )),
            // Somebody deleted the Lease: make it again, or learn who was faster.
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                match self.settle(
                    self.leases
                        .create(&PostParams::default(), &self.taken(None))
                        .await,
                )? {
                    Some(lease) => Ok(Renewal::Renewed(lease)),
                    None => Ok(Renewal::Changed(
                        self.leases
                            .get(&self.name)
                            .await
                            .map_err(AttemptError::Read)?,
                    )),
                }
            }
            Err(error) => Err(AttemptError::Write(error)),
        }
    }
}

fn duration_of(spec: &LeaseSpec) -> Option<Duration> {
    spec.lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map(Duration::from_secs)
}

/// The error and its sources in one line.
fn describe(error: &AttemptError) -> String {
    crate::report::chain(error)
}
