//! The circuits of this process, by Plan credential and model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use uuid::Uuid;

use super::breaker::{Breaker, Finding, Gate};
use crate::call::CircuitSettings;

/// Models remembered for one credential. Clients name models, so there is no other bound on them.
const MAX_MODELS: usize = 256;

/// Keeps circuits. This process's own for now; one shared by all pods is another implementation.
pub trait CircuitStore: Send + Sync + 'static {
    /// Asks to make an attempt. The answer says which circuit a probe is of, to be settled so.
    fn admit(&self, credential: Uuid, model: &str, now: Instant) -> Admittance;

    /// Reports how an attempt ended. Returns whether that opened a circuit.
    fn settle(&self, report: &Report<'_>, settings: &CircuitSettings, now: Instant) -> bool;

    /// The circuits that are open.
    fn open(&self) -> Vec<OpenCircuit>;
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
    /// What was found.
    pub finding: Finding,
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

/// Circuits in memory.
#[derive(Debug, Clone, Default)]
pub struct LocalCircuits(Arc<Mutex<HashMap<Uuid, CredentialCircuits>>>);

#[derive(Debug)]
struct CredentialCircuits {
    whole: Breaker,
    models: HashMap<Box<str>, Breaker>,
}

impl CredentialCircuits {
    fn new(now: Instant) -> Self {
        Self {
            whole: Breaker::new(now),
            models: HashMap::new(),
        }
    }

    /// The circuit of a model. `None` when there are too many models already, all of them in use.
    fn model(
        &mut self,
        model: &str,
        settings: &CircuitSettings,
        now: Instant,
    ) -> Option<&mut Breaker> {
        if !self.models.contains_key(model) {
            if self.models.len() >= MAX_MODELS {
                self.models
                    .retain(|_, breaker| !breaker.is_idle(settings, now));
            }
            if self.models.len() >= MAX_MODELS {
                return None;
            }
            self.models.insert(model.into(), Breaker::new(now));
        }
        self.models.get_mut(model)
    }
}

impl CircuitStore for LocalCircuits {
    fn admit(&self, credential: Uuid, model: &str, now: Instant) -> Admittance {
        let mut circuits = self.0.lock();
        let Some(circuits) = circuits.get_mut(&credential) else {
            return Admittance {
                gate: Gate::Closed,
                whole_credential: false,
            };
        };
        let whole = circuits.whole.admit(now);
        if whole != Gate::Closed {
            return Admittance {
                gate: whole,
                whole_credential: true,
            };
        }
        let gate = circuits
            .models
            .get_mut(model)
            .map_or(Gate::Closed, |breaker| breaker.admit(now));
        Admittance {
            gate,
            whole_credential: false,
        }
    }

    fn settle(&self, report: &Report<'_>, settings: &CircuitSettings, now: Instant) -> bool {
        let mut circuits = self.0.lock();
        let circuits = circuits
            .entry(report.credential)
            .or_insert_with(|| CredentialCircuits::new(now));
        let probes = |whole: bool| {
            report
                .probe
                .is_some_and(|probe| probe.whole_credential == whole)
        };
        // What is found about a model says that the credential as such is accepted, and the other way round nothing.
        let about_whole = match report.finding {
            Finding::Failure { .. } if !report.whole_credential => Finding::Success,
            finding => finding,
        };
        let mut opened = false;
        if report.whole_credential || circuits.whole.opening().is_some() {
            opened |= circuits
                .whole
                .settle(about_whole, probes(true), settings, now);
        }
        // A model that nothing was learnt about may be made up: it is not remembered.
        let breaker = match report.finding {
            _ if report.whole_credential => None,
            Finding::Nothing => circuits.models.get_mut(report.model),
            Finding::Success | Finding::Failure { .. } => {
                circuits.model(report.model, settings, now)
            }
        };
        if let Some(breaker) = breaker {
            opened |= breaker.settle(report.finding, probes(false), settings, now);
        }
        opened
    }

    fn open(&self) -> Vec<OpenCircuit> {
        let circuits = self.0.lock();
        let mut open = Vec::new();
        for (&credential, circuits) in circuits.iter() {
            let models = circuits
                .models
                .iter()
                .map(|(model, breaker)| (Some(model.to_string()), breaker));
            for (model, breaker) in models.chain([(None, &circuits.whole)]) {
                if let Some((since, until)) = breaker.opening() {
                    open.push(OpenCircuit {
                        credential,
                        model,
                        since,
                        until,
                    });
                }
            }
        }
        open
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
            finding,
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
