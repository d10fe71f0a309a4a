//! Gates: streams wait at them until a test lets them go on, so that nobody has to sleep.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::watch;

/// A gate's state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GateState {
    /// Whether it lets everything pass.
    pub released: bool,
    /// How many answers are waiting at it now.
    pub held: usize,
}

/// All gates, by name; a gate exists as soon as it is mentioned.
#[derive(Debug, Default)]
pub struct Gates(Mutex<BTreeMap<String, watch::Sender<GateState>>>);

impl Gates {
    fn gate(&self, name: &str) -> watch::Sender<GateState> {
        self.0.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Lets go everything that waits at the gate, and whatever comes later.
    pub fn release(&self, name: &str) {
        self.gate(name).send_modify(|state| state.released = true);
    }

    /// Closes a released gate again.
    pub fn close(&self, name: &str) {
        self.gate(name).send_modify(|state| state.released = false);
    }

    /// Releases and forgets all gates.
    pub fn clear(&self) {
        for gate in std::mem::take(&mut *self.0.lock()).into_values() {
            gate.send_modify(|state| state.released = true);
        }
    }

    /// The gates and their states.
    pub fn list(&self) -> BTreeMap<String, GateState> {
        self.0
            .lock()
            .iter()
            .map(|(name, gate)| (name.clone(), *gate.borrow()))
            .collect()
    }

    /// Waits until `held` answers are at the gate; false when that took longer than `limit`.
    pub async fn wait_held(&self, name: &str, held: usize, limit: Duration) -> bool {
        let mut state = self.gate(name).subscribe();
        tokio::time::timeout(limit, state.wait_for(|state| state.held >= held))
            .await
            .is_ok_and(|seen| seen.is_ok())
    }

    /// Waits at the gate; counted as held for as long as the future lives.
    pub(crate) async fn pass(&self, name: &str) {
        let gate = self.gate(name);
        let mut state = gate.subscribe();
        let _held = Held::at(gate);
        // The sender lives in `_held`, so the wait ends only with a release.
        let _ = state.wait_for(|state| state.released).await;
    }
}

/// Counts one waiting answer, also when it is dropped because its client left.
struct Held(watch::Sender<GateState>);

impl Held {
    fn at(gate: watch::Sender<GateState>) -> Self {
        gate.send_modify(|state| state.held += 1);
        Self(gate)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.send_modify(|state| state.held -= 1);
    }
}
