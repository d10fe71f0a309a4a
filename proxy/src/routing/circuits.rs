//! Circuits, by Plan credential and model.

mod memory;

use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use spillway_core::domain::usage::FallbackReason;
use spillway_core::repository::circuits::CircuitName;
use uuid::Uuid;

pub(super) use self::memory::Circuits;
use super::breaker::{Finding, Gate};
use crate::call::CircuitSettings;

/// Keeps circuits, in memory: only [`claim`](Self::claim) may take time.
pub trait CircuitStore: Send + Sync + 'static {
    /// Asks to make an attempt. The answer says which circuit a probe is of, to be settled so.
    fn admit(&self, credential: Uuid, model: &str, now: Instant) -> Admittance;

    /// Asks whether the probe that was admitted is this process's to make. The answer says how the attempt may go on; one that
    /// is not a probe any more is not to be settled as one.
    fn claim(&self, name: CircuitName) -> BoxFuture<'static, Gate>;

    /// Whether the Plan is not to be asked for `model`: its circuit is open, or waits for a probe. Claims nothing.
    fn is_open(&self, credential: Uuid, model: &str, now: Instant) -> bool;

    /// Reports how an attempt ended. Returns whether that opened a circuit.
    fn settle(&self, report: &Report<'_>, settings: &CircuitSettings, now: Instant) -> bool;

    /// The circuits that are open or half-open.
    fn open(&self) -> Vec<OpenCircuit>;

    /// Whether what was found before this process began is known, as far as it can be.
    fn is_loaded(&self) -> bool;
}

/// What the circuits of a credential say to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admittance {
    /// The answer.
    pub gate: Gate,
    /// Of a probe or an open circuit: whether it is the one for all the credential's models.
    pub whole_credential: bool,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy)]
pub struct Report<'a> {
    /// The Plan credential.
    pub credential: Uuid,
    /// The model.
    pub model: &'a str,
    /// When it was let through.
    pub admitted_at: Instant,
    /// What was found.
    pub finding: Finding,
    /// Why it failed, if it did.
    pub reason: Option<FallbackReason>,
    /// Whether the finding is about the credential as such, for every model.
    pub whole_credential: bool,
    /// The admittance that the attempt was made with, if it was a probe.
    pub probe: Option<Admittance>,
}

/// An open circuit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenCircuit {
    /// The Plan credential.
    pub credential: Uuid,
    /// The model; `None` for all of them.
    pub model: Option<String>,
    /// When it opened.
    pub since: Instant,
    /// When the next probe may go.
    pub until: Instant,
}

/// The circuits of this process alone.
#[derive(Debug, Clone, Default)]
pub struct LocalCircuits(Arc<Mutex<Circuits>>);

impl CircuitStore for LocalCircuits {
    fn admit(&self, credential: Uuid, model: &str, now: Instant) -> Admittance {
        self.0.lock().admit(credential, model, now)
    }

    fn claim(&self, _: CircuitName) -> BoxFuture<'static, Gate> {
        std::future::ready(Gate::Probe).boxed()
    }

    fn is_open(&self, credential: Uuid, model: &str, now: Instant) -> bool {
        self.0.lock().is_open(credential, model, now)
    }

    fn settle(&self, report: &Report<'_>, settings: &CircuitSettings, now: Instant) -> bool {
        self.0.lock().settle(report, settings, now).opened()
    }

    fn open(&self) -> Vec<OpenCircuit> {
        self.0.lock().open(Instant::now())
    }

    fn is_loaded(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::memory::MAX_MODELS;
    use super::*;

    const SETTINGS: CircuitSettings = CircuitSettings {
        failure_threshold: 1,
        failure_rate: 50,
        failure_window: Duration::from_mins(1),
        reset_timeout: Duration::from_secs(100),
    };
    const FAILURE: Finding = Finding::Failure {
        pause: Duration::from_secs(10),
        decisive: true,
    };
    const ONE: Uuid = Uuid::from_u128(1);
    const TWO: Uuid = Uuid::from_u128(2);

    fn report(
        finding: Finding,
        whole_credential: bool,
        probe: Option<Admittance>,
    ) -> Report<'static> {
        Report {
            credential: ONE,
            model: "a",
            admitted_at: Instant::now(),
            finding,
            reason: Some(FallbackReason::Overloaded),
            whole_credential,
            probe,
        }
    }

    #[test]
    fn a_model_fails_alone_and_a_credential_with_all_its_models() {
        let (circuits, now) = (LocalCircuits::default(), Instant::now());
        assert!(circuits.settle(&report(FAILURE, false, None), &SETTINGS, now));
        assert!(matches!(
            circuits.admit(ONE, "a", now).gate,
            Gate::Open { .. }
        ));
        assert_eq!(circuits.admit(ONE, "b", now).gate, Gate::Closed);
        assert!(circuits.settle(&report(FAILURE, true, None), &SETTINGS, now));
        assert!(matches!(
            circuits.admit(ONE, "b", now),
            Admittance {
                gate: Gate::Open { .. },
                whole_credential: true
            }
        ));
        assert_eq!(circuits.admit(TWO, "a", now).gate, Gate::Closed);
        assert_eq!(circuits.open().len(), 2);
    }

    #[test]
    fn looking_claims_no_probe() {
        let (circuits, now) = (LocalCircuits::default(), Instant::now());
        circuits.settle(&report(FAILURE, false, None), &SETTINGS, now);
        let later = now + Duration::from_secs(11);
        for at in [now, later] {
            assert!(circuits.is_open(ONE, "a", at));
            assert!(!circuits.is_open(ONE, "b", at) && !circuits.is_open(TWO, "a", at));
        }
        assert_eq!(circuits.admit(ONE, "a", later).gate, Gate::Probe);
        circuits.settle(&report(FAILURE, true, None), &SETTINGS, now);
        assert!(circuits.is_open(ONE, "b", now));
    }

    #[test]
    fn a_probe_that_finds_the_account_well_but_the_model_failing_settles_both() {
        let (circuits, now) = (LocalCircuits::default(), Instant::now());
        circuits.settle(&report(FAILURE, true, None), &SETTINGS, now);
        let later = now + Duration::from_secs(11);
        let probe = circuits.admit(ONE, "a", later);
        assert_eq!(
            probe,
            Admittance {
                gate: Gate::Probe,
                whole_credential: true
            }
        );
        circuits.settle(&report(FAILURE, false, Some(probe)), &SETTINGS, later);
        assert!(matches!(
            circuits.admit(ONE, "a", later),
            Admittance {
                gate: Gate::Open { .. },
                whole_credential: false
            }
        ));
        assert_eq!(circuits.admit(ONE, "b", later).gate, Gate::Closed);
    }

    #[test]
    fn an_account_is_not_found_well_by_an_attempt_that_got_no_answer() {
        for (reason, is_open) in [
            (FallbackReason::Connect, true),
            (FallbackReason::Timeout, true),
            (FallbackReason::StreamBroken, true),
            (FallbackReason::Overloaded, false),
            (FallbackReason::RateLimited, false),
            (FallbackReason::ServerError, false),
        ] {
            let (circuits, now) = (LocalCircuits::default(), Instant::now());
            circuits.settle(&report(FAILURE, true, None), &SETTINGS, now);
            let failed = Report {
                reason: Some(reason),
                ..report(FAILURE, false, None)
            };
            circuits.settle(&failed, &SETTINGS, now);
            assert_eq!(circuits.is_open(ONE, "b", now), is_open, "{reason:?}");
        }
    }

    #[test]
    fn an_aborted_probe_is_given_to_the_next() {
        let (circuits, now) = (LocalCircuits::default(), Instant::now());
        circuits.settle(&report(FAILURE, false, None), &SETTINGS, now);
        let later = now + Duration::from_secs(11);
        let probe = circuits.admit(ONE, "a", later);
        assert_eq!(probe.gate, Gate::Probe);
        assert!(matches!(
            circuits.admit(ONE, "a", later).gate,
            Gate::Open { .. }
        ));
        circuits.settle(
            &report(Finding::Nothing, false, Some(probe)),
            &SETTINGS,
            later,
        );
        assert_eq!(circuits.admit(ONE, "a", later).gate, Gate::Probe);
    }

    #[test]
    fn models_that_the_upstream_refuses_take_no_place_from_others() {
        let (circuits, now) = (LocalCircuits::default(), Instant::now());
        for n in 0..2 * MAX_MODELS {
            let model = n.to_string();
            let refused = Report {
                model: &model,
                ..report(Finding::Nothing, false, None)
            };
            circuits.settle(&refused, &SETTINGS, now);
        }
        assert!(
            circuits
                .0
                .lock()
                .0
                .values()
                .all(|circuits| circuits.models.is_empty())
        );
        assert!(circuits.settle(&report(FAILURE, false, None), &SETTINGS, now));
    }

    #[test]
    fn made_up_models_do_not_fill_memory() {
        let (circuits, now) = (LocalCircuits::default(), Instant::now());
        for n in 0..10 * MAX_MODELS {
            let model = n.to_string();
            circuits.settle(
                &Report {
                    model: &model,
                    ..report(FAILURE, false, None)
                },
                &SETTINGS,
                now,
            );
        }
        assert_eq!(circuits.open().len(), MAX_MODELS);
    }
}
