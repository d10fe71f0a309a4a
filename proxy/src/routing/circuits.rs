//! Circuits, by Plan credential and model.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use spillway_core::domain::usage::FallbackReason;
use spillway_core::repository::circuits::CircuitName;
use uuid::Uuid;

use super::breaker::{Breaker, Finding, Gate, Seen, Turn};
use crate::call::CircuitSettings;

/// Models remembered for one credential. Clients name models, so there is no other bound on them.
const MAX_MODELS: usize = 256;

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

/// What a report did to the circuits that it is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Turns {
    /// To that of the credential as such.
    pub(super) whole: Option<Turn>,
    /// To that of the model.
    pub(super) model: Option<Turn>,
}

impl Turns {
    /// Whether a circuit opened.
    pub(super) fn opened(self) -> bool {
        [self.whole, self.model].contains(&Some(Turn::Opened))
    }
}

/// Circuits in memory, without a lock.
#[derive(Debug, Default)]
pub(super) struct Circuits(HashMap<Uuid, CredentialCircuits>);

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

impl Circuits {
    /// See [`CircuitStore::admit`].
    pub(super) fn admit(&mut self, credential: Uuid, model: &str, now: Instant) -> Admittance {
        let Some(circuits) = self.0.get_mut(&credential) else {
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

    /// See [`CircuitStore::is_open`].
    pub(super) fn is_open(&self, credential: Uuid, model: &str, now: Instant) -> bool {
        self.0.get(&credential).is_some_and(|circuits| {
            [Some(&circuits.whole), circuits.models.get(model)]
                .into_iter()
                .flatten()
                .any(|breaker| breaker.opening(now).is_some())
        })
    }

    /// See [`CircuitStore::settle`].
    pub(super) fn settle(
        &mut self,
        report: &Report<'_>,
        settings: &CircuitSettings,
        now: Instant,
    ) -> Turns {
        let circuits = self
            .0
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
        let mut turns = Turns::default();
        if report.whole_credential || circuits.whole.opening(now).is_some() {
            turns.whole = circuits
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
            turns.model = breaker.settle(report.finding, probes(false), settings, now);
        }
        turns
    }

    /// The circuits that are open or half-open.
    pub(super) fn open(&self, now: Instant) -> Vec<OpenCircuit> {
        let of = |(&credential, circuits): (&Uuid, &CredentialCircuits)| {
            let models = circuits
                .models
                .iter()
                .map(|(model, breaker)| (Some(model.to_string()), breaker));
            models
                .chain([(None, &circuits.whole)])
                .filter_map(|(model, breaker)| {
                    let (since, until) = breaker.opening(now)?;
                    Some(OpenCircuit {
                        credential,
                        model,
                        since,
                        until,
                    })
                })
                .collect::<Vec<_>>()
        };
        self.0.iter().flat_map(of).collect()
    }

    /// A circuit, if there is one.
    pub(super) fn get_mut(&mut self, name: &CircuitName) -> Option<&mut Breaker> {
        let circuits = self.0.get_mut(&name.credential)?;
        match &name.model {
            None => Some(&mut circuits.whole),
            Some(model) => circuits.models.get_mut(model.as_str()),
        }
    }

    /// Takes over what another process found. Returns whether that is news.
    pub(super) fn adopt(
        &mut self,
        name: &CircuitName,
        seen: Seen,
        settings: &CircuitSettings,
        now: Instant,
    ) -> bool {
        let circuits = self
            .0
            .entry(name.credential)
            .or_insert_with(|| CredentialCircuits::new(now));
        let breaker = match &name.model {
            None => Some(&mut circuits.whole),
            Some(model) => circuits.model(model, settings, now),
        };
        breaker.is_some_and(|breaker| breaker.adopt(seen, now))
    }

    /// Closes the circuits that other processes know of, but for those that `keeps` says yes to. Returns whether there were any.
    pub(super) fn close_shared(
        &mut self,
        now: Instant,
        keeps: impl Fn(&CircuitName) -> bool,
    ) -> bool {
        let mut closed = false;
        for (&credential, circuits) in &mut self.0 {
            let models = circuits
                .models
                .iter_mut()
                .map(|(model, breaker)| (Some(model), breaker));
            for (model, breaker) in models.chain([(None, &mut circuits.whole)]) {
                if breaker.shared().is_none() {
                    continue;
                }
                let name = CircuitName {
                    credential,
                    model: model.map(ToString::to_string),
                };
                if !keeps(&name) {
                    breaker.close(now);
                    closed = true;
                }
            }
        }
        closed
    }

    /// Holds pauses to the settings, which may have been made tighter, and forgets what nothing is remembered of.
    pub(super) fn tidy(&mut self, settings: &CircuitSettings, now: Instant) {
        let latest = now + settings.reset_timeout;
        self.0.retain(|_, circuits| {
            let models = circuits.models.values_mut();
            models
                .chain([&mut circuits.whole])
                .for_each(|breaker| breaker.shorten(latest));
            circuits
                .models
                .retain(|_, breaker| !breaker.is_idle(settings, now));
            !circuits.models.is_empty() || !circuits.whole.is_idle(settings, now)
        });
    }

    /// Closes and forgets everything.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
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
            reason: None,
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
