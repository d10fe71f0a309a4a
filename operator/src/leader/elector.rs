//! A candidate: looks at the Lease, and takes it when it is free.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{HeldLease, SeizeError, Timing};
use crate::report::chain;

/// Attempts to take a Lease by force that its holder renews at the same time.
const SEIZE_ATTEMPTS: u32 = 20;

/// One attempt to read or change the Lease that came to nothing; the next one may succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum AttemptError {
    #[error("the lease could not be read")]
    Read(#[source] kube::Error),
    #[error("the lease could not be written")]
    Write(#[source] kube::Error),
    #[error("the api server did not answer in time")]
    TimedOut,
}

/// What a candidate last saw in the Lease, and since when by its own clock.
#[derive(Debug, Clone)]
struct Observation {
    resource_version: Option<String>,
    unchanged_since: Instant,
}

/// A candidate of one election.
pub struct Elector {
    pub(super) leases: Api<Lease>,
    pub(super) name: String,
    pub(super) identity: String,
    pub(super) timing: Timing,
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
                    return HeldLease::new(self, lease, started);
                }
                Ok(None) => debug!(lease = self.name, "another replica leads"),
                Err(error) => warn!(
                    lease = self.name,
                    error = chain(&error),
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
    pub(super) fn taken(&self, current: Option<&Lease>) -> Lease {
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
    pub(super) fn settle(
        &self,
        written: Result<Lease, kube::Error>,
    ) -> Result<Option<Lease>, AttemptError> {
        match written {
            Ok(lease) => Ok(Some(lease)),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                debug!(lease = self.name, "another replica was faster");
                Ok(None)
            }
            Err(error) => Err(AttemptError::Write(error)),
        }
    }

    pub(super) async fn within<T>(
        &self,
        attempt: impl Future<Output = Result<T, AttemptError>>,
    ) -> Result<T, AttemptError> {
        timeout(self.timing.request_timeout, attempt)
            .await
            .unwrap_or(Err(AttemptError::TimedOut))
    }
}

fn duration_of(spec: &LeaseSpec) -> Option<Duration> {
    spec.lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok())
        .map(Duration::from_secs)
}
