//! A leader: renews the Lease until it is asked to stop, or is a leader no more.

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use super::Lost;
use super::elector::{AttemptError, Elector};
use crate::report::chain;

/// A Lease that this process holds.
pub struct HeldLease {
    elector: Elector,
    lease: Lease,
    renewed_at: Instant,
}

impl HeldLease {
    /// The Lease as it was taken by a request that was sent at `renewed_at`.
    pub(super) fn new(elector: Elector, lease: Lease, renewed_at: Instant) -> Self {
        Self {
            elector,
            lease,
            renewed_at,
        }
    }

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
                error = chain(&error),
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
                error = chain(&error),
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
