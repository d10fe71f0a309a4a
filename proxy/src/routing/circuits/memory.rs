//! Circuits in memory: which there are, and what a report does to those that it is about.

use std::collections::HashMap;
use std::time::Instant;

use spillway_core::domain::usage::FallbackReason;
use spillway_core::repository::circuits::CircuitName;
use uuid::Uuid;

use super::{Admittance, OpenCircuit, Report};
use crate::call::CircuitSettings;
use crate::routing::breaker::{Breaker, Finding, Gate, Seen, Turn};

/// Models remembered for one credential. Clients name models, so there is no other bound on them.
pub(super) const MAX_MODELS: usize = 256;

/// What a report did to the circuits that it is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::routing) struct Turns {
    /// To that of the credential as such.
    pub(in crate::routing) whole: Option<Turn>,
    /// To that of the model.
    pub(in crate::routing) model: Option<Turn>,
}

impl Turns {
    /// Whether a circuit opened.
    pub(in crate::routing) fn opened(self) -> bool {
        [self.whole, self.model].contains(&Some(Turn::Opened))
    }
}

/// Circuits in memory, without a lock.
#[derive(Debug, Default)]
pub(in crate::routing) struct Circuits(pub(super) HashMap<Uuid, CredentialCircuits>);

#[derive(Debug)]
pub(super) struct CredentialCircuits {
    whole: Breaker,
    pub(super) models: HashMap<Box<str>, Breaker>,
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

/// Whether a failure for this reason is something that the API said, rather than its silence.
fn is_answer(reason: Option<FallbackReason>) -> bool {
    use FallbackReason::{Overloaded, RateLimited, ServerError};
    matches!(reason, Some(Overloaded | RateLimited | ServerError))
}

impl Circuits {
    /// See [`CircuitStore::admit`](super::CircuitStore::admit).
    pub(in crate::routing) fn admit(
        &mut self,
        credential: Uuid,
        model: &str,
        now: Instant,
    ) -> Admittance {
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

    /// See [`CircuitStore::is_open`](super::CircuitStore::is_open).
    pub(in crate::routing) fn is_open(&self, credential: Uuid, model: &str, now: Instant) -> bool {
        self.0.get(&credential).is_some_and(|circuits| {
            [Some(&circuits.whole), circuits.models.get(model)]
                .into_iter()
                .flatten()
                .any(|breaker| breaker.opening(now).is_some())
        })
    }

    /// See [`CircuitStore::settle`](super::CircuitStore::settle).
    pub(in crate::routing) fn settle(
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
        // What the API answered about a model says that the credential as such is accepted, and the other way round nothing.
        let about_whole = match report.finding {
            Finding::Failure { .. } if report.whole_credential => report.finding,
            Finding::Failure { .. } if is_answer(report.reason) => Finding::Success,
            Finding::Failure { .. } => Finding::Nothing,
            finding => finding,
        };
        let mut turns = Turns::default();
        if report.whole_credential || circuits.whole.opening(now).is_some() {
            turns.whole =
                circuits
                    .whole
                    .settle(about_whole, report.admitted_at, probes(true), settings, now);
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
            turns.model = breaker.settle(
                report.finding,
                report.admitted_at,
                probes(false),
                settings,
                now,
            );
        }
        turns
    }

    /// The circuits that are open or half-open.
    pub(in crate::routing) fn open(&self, now: Instant) -> Vec<OpenCircuit> {
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
    pub(in crate::routing) fn get_mut(&mut self, name: &CircuitName) -> Option<&mut Breaker> {
        let circuits = self.0.get_mut(&name.credential)?;
        match &name.model {
            None => Some(&mut circuits.whole),
            Some(model) => circuits.models.get_mut(model.as_str()),
        }
    }

    /// Takes over what another process found. Returns whether that is news.
    pub(in crate::routing) fn adopt(
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
    pub(in crate::routing) fn close_shared(
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
    pub(in crate::routing) fn tidy(&mut self, settings: &CircuitSettings, now: Instant) {
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
    pub(in crate::routing) fn clear(&mut self) {
        self.0.clear();
    }
}
