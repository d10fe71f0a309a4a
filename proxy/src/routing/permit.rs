//! The right to ask the Plan once, and the duty to say how it went.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use spillway_core::domain::usage::FallbackReason;
use spillway_core::repository::circuits::CircuitName;
use uuid::Uuid;

use super::breaker::{Finding, Gate};
use super::circuits::{Admittance, CircuitStore, Report};
use super::class::Failure;
use crate::call::CircuitSettings;

/// The pause after a 429 that names none.
const RATE_LIMIT_PAUSE: Duration = Duration::from_mins(1);

/// One attempt at the Plan. Dropped unsettled it has found out nothing, and frees the probe it may be.
pub(super) struct Permit {
    circuits: Arc<dyn CircuitStore>,
    credential: Uuid,
    model: Box<str>,
    settings: CircuitSettings,
    admitted_at: Instant,
    probe: Option<Admittance>,
    settled: bool,
}

impl Permit {
    /// A permit of what the circuits answered; one that is open is passed by.
    pub(super) fn new(
        circuits: &Arc<dyn CircuitStore>,
        credential: Uuid,
        model: &str,
        settings: CircuitSettings,
        admittance: Admittance,
    ) -> Self {
        let probe = (admittance.gate == Gate::Probe).then_some(admittance);
        Self {
            circuits: Arc::clone(circuits),
            credential,
            model: model.into(),
            settings,
            admitted_at: Instant::now(),
            probe,
            settled: false,
        }
    }

    /// Makes sure that a probe is this process's to make; without a database it is. Says whether the Plan may be asked.
    pub(super) async fn claim(&mut self, admittance: Admittance) -> Gate {
        let Some(probe) = self.probe else {
            return admittance.gate;
        };
        let name = CircuitName {
            credential: self.credential,
            model: (!probe.whole_credential).then(|| self.model.to_string()),
        };
        let gate = self.circuits.claim(name).await;
        if gate != Gate::Probe {
            self.probe = None;
        }
        gate
    }

    /// The Plan is well.
    pub(super) fn succeed(&mut self) {
        self.settle(Finding::Success, None, false);
    }

    /// The Plan failed; its answer's headers, if it gave one, say for how long.
    pub(super) fn fail(&mut self, failure: Failure, headers: &HeaderMap) {
        let finding = match failure {
            Failure::Upstream(reason) => Finding::Failure {
                pause: self.pause(reason, headers),
                decisive: false,
            },
            Failure::Account => Finding::Failure {
                pause: self.settings.reset_timeout,
                decisive: true,
            },
            // Any answer is what a probe asks for; of other attempts these are not counted.
            Failure::Feature | Failure::Client if self.probe.is_some() => Finding::Success,
            Failure::Feature | Failure::Client | Failure::Spent => Finding::Nothing,
        };
        self.settle(finding, failure.reason(), failure == Failure::Account);
    }

    fn pause(&self, reason: FallbackReason, headers: &HeaderMap) -> Duration {
        if reason != FallbackReason::RateLimited {
            return self.settings.reset_timeout;
        }
        headers
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map_or(RATE_LIMIT_PAUSE, Duration::from_secs)
    }

    fn settle(&mut self, finding: Finding, reason: Option<FallbackReason>, whole_credential: bool) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let report = Report {
            credential: self.credential,
            model: &self.model,
            admitted_at: self.admitted_at,
            finding,
            reason,
            whole_credential,
            probe: self.probe,
        };
        if self
            .circuits
            .settle(&report, &self.settings, Instant::now())
        {
            tracing::warn!(plan_credential = %self.credential, model = &*self.model, whole_credential, "circuit opened");
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.probe.is_some() {
            self.settle(Finding::Nothing, None, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::routing::circuits::LocalCircuits;

    const SETTINGS: CircuitSettings = CircuitSettings {
        failure_threshold: 1,
        failure_rate: 0,
        failure_window: Duration::from_mins(1),
        reset_timeout: Duration::from_mins(10),
    };

    fn circuits() -> Arc<dyn CircuitStore> {
        Arc::new(LocalCircuits::default())
    }

    fn permit(circuits: &Arc<dyn CircuitStore>) -> Permit {
        let admittance = circuits.admit(Uuid::nil(), "m", Instant::now());
        Permit::new(circuits, Uuid::nil(), "m", SETTINGS, admittance)
    }

    /// For how long a failure opened the circuit.
    fn pause_after(failure: Failure, retry_after: Option<&str>) -> Option<Duration> {
        let circuits = circuits();
        let headers = retry_after
            .map(|value| (RETRY_AFTER, value.parse().unwrap()))
            .into_iter()
            .collect();
        permit(&circuits).fail(failure, &headers);
        circuits.open().first().map(|open| open.until - open.since)
    }

    #[test]
    fn the_pause_is_what_a_429_asks_for_and_else_the_reset_timeout() {
        let limited = Failure::Upstream(FallbackReason::RateLimited);
        for (failure, retry_after, pause) in [
            (limited, Some("7"), Some(7)),
            (limited, None, Some(60)),
            (limited, Some("soon"), Some(60)),
            (limited, Some("99999"), Some(600)),
            (
                Failure::Upstream(FallbackReason::Overloaded),
                Some("7"),
                Some(600),
            ),
            (Failure::Account, Some("7"), Some(600)),
            (Failure::Feature, Some("7"), None),
            (Failure::Client, None, None),
            (Failure::Spent, None, None),
        ] {
            assert_eq!(
                pause_after(failure, retry_after),
                pause.map(Duration::from_secs),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn a_probe_is_decided_by_any_answer() {
        for (failure, is_open) in [
            (Failure::Client, false),
            (Failure::Feature, false),
            (Failure::Spent, true),
        ] {
            let (circuits, now) = (circuits(), Instant::now());
            permit(&circuits).fail(
                Failure::Upstream(FallbackReason::Overloaded),
                &HeaderMap::new(),
            );
            let admittance = circuits.admit(Uuid::nil(), "m", now + SETTINGS.reset_timeout * 2);
            assert_eq!(admittance.gate, Gate::Probe);
            Permit::new(&circuits, Uuid::nil(), "m", SETTINGS, admittance)
                .fail(failure, &HeaderMap::new());
            assert_eq!(
                circuits.is_open(Uuid::nil(), "m", now),
                is_open,
                "{failure:?}"
            );
        }
    }

    #[test]
    fn only_the_first_report_counts() {
        let circuits = circuits();
        let mut permit = permit(&circuits);
        permit.succeed();
        permit.fail(Failure::Account, &HeaderMap::new());
        assert_eq!(circuits.open(), []);
    }

    #[test]
    fn an_account_failure_is_of_every_model() {
        let circuits = circuits();
        permit(&circuits).fail(Failure::Account, &HeaderMap::new());
        assert_eq!(circuits.open()[0].model, None);
    }
}
