//! One upstream's state: its mode, its queue of rules, and its side of the journal.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    behaviour::{Mode, Reply, Rule, When},
    journal::{Exchange, Journal, Kind},
    received::Received,
};

#[derive(Debug, Default)]
struct Port {
    /// Whether it is open; none while nobody serves it.
    listening: Option<bool>,
    connections: usize,
}

/// One open connection.
pub(crate) struct Connected(Arc<Upstream>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.port.send_modify(|port| port.connections -= 1);
    }
}

/// Steers one fake and reads what it saw. Everything here is also in the control API.
pub struct Upstream {
    kind: Kind,
    mode: watch::Sender<Mode>,
    /// What whoever serves it says of its port.
    port: watch::Sender<Port>,
    rules: Mutex<Vec<Rule>>,
    journal: Arc<Journal>,
}

impl Upstream {
    pub(crate) fn new(kind: Kind, journal: Arc<Journal>) -> Self {
        Self {
            kind,
            mode: watch::Sender::default(),
            port: watch::Sender::default(),
            rules: Mutex::default(),
            journal,
        }
    }

    /// Which one it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Appends a rule.
    pub fn push(&self, rule: Rule) {
        self.rules.lock().push(rule);
    }

    /// Answers the next message like this.
    pub fn next(&self, reply: impl Into<Reply>) {
        self.push(Rule::once(reply));
    }

    /// Answers every message like this until the rules are cleared.
    pub fn always(&self, reply: impl Into<Reply>) {
        self.push(Rule::forever(reply));
    }

    /// The rules that are left.
    pub fn rules(&self) -> Vec<Rule> {
        self.rules.lock().clone()
    }

    /// Forgets all rules.
    pub fn clear_rules(&self) {
        self.rules.lock().clear();
    }

    /// The mode.
    pub fn mode(&self) -> Mode {
        self.mode.borrow().clone()
    }

    /// Changes the mode. When it returns the port is open, or closed and without a connection, as the mode says.
    pub async fn set_mode(&self, mode: Mode) {
        let refusing = matches!(mode, Mode::Refusing);
        self.mode.send_replace(mode);
        let mut port = self.port.subscribe();
        // Ends at once where nobody serves; the sender lives as long as `self`.
        let _ = port
            .wait_for(|port| match port.listening {
                None => true,
                Some(true) => !refusing,
                Some(false) => refusing && port.connections == 0,
            })
            .await;
    }

    /// Fails everything with 503.
    pub async fn down(&self) {
        self.set_mode(Mode::down()).await;
    }

    /// Works again.
    pub async fn up(&self) {
        self.set_mode(Mode::Up).await;
    }

    /// Closes the port and resets what is connected.
    pub async fn refuse(&self) {
        self.set_mode(Mode::Refusing).await;
    }

    /// What it received so far, oldest first.
    pub fn requests(&self) -> Vec<Exchange> {
        self.journal.list(Some(self.kind))
    }

    /// How many requests it received.
    pub fn request_count(&self) -> usize {
        self.journal.count(Some(self.kind))
    }

    /// Waits until its exchanges satisfy the condition; `Err` has what was there when `limit` was over.
    pub async fn wait_requests(
        &self,
        limit: Duration,
        condition: impl FnMut(&[Exchange]) -> bool,
    ) -> Result<Vec<Exchange>, Vec<Exchange>> {
        self.journal.wait(Some(self.kind), limit, condition).await
    }

    pub(crate) fn watch_mode(&self) -> watch::Receiver<Mode> {
        self.mode.subscribe()
    }

    /// Whether the port is open; none when nobody serves it any more.
    pub(crate) fn set_listening(&self, listening: Option<bool>) {
        self.port.send_if_modified(|port| {
            let changed = port.listening != listening;
            port.listening = listening;
            changed
        });
    }

    /// Counts a connection for as long as the returned guard lives.
    pub(crate) fn connected(self: &Arc<Self>) -> Connected {
        self.port.send_modify(|port| port.connections += 1);
        Connected(Arc::clone(self))
    }

    /// The reply of the first rule that takes this request, one use of which is used up.
    pub(crate) fn take_rule(&self, request: &Received) -> Option<Reply> {
        let mut rules = self.rules.lock();
        let at = rules
            .iter()
            .position(|rule| rule.times != Some(0) && fits(&rule.when, request))?;
        let rule = &mut rules[at];
        if let Some(times) = &mut rule.times {
            *times -= 1;
        }
        if rule.times == Some(0) {
            Some(rules.remove(at).reply)
        } else {
            Some(rule.reply.clone())
        }
    }
}

fn fits(when: &When, request: &Received) -> bool {
    when.operation.map_or_else(
        || request.operation.generates(),
        |operation| operation == request.operation,
    ) && when
        .model
        .as_deref()
        .is_none_or(|model| request.model.as_deref() == Some(model))
        && when
            .stream
            .is_none_or(|stream| stream == request.wants_stream())
        && when
            .rounds
            .is_none_or(|rounds| rounds == request.prompt.rounds)
        && when.header.as_ref().is_none_or(|header| {
            request
                .headers
                .get_all(&header.name)
                .iter()
                .any(|value| value == &header.value)
        })
        && when.body_contains.as_deref().is_none_or(|text| {
            let needle = text.as_bytes();
            needle.is_empty()
                || request
                    .body
                    .windows(needle.len())
                    .any(|window| window == needle)
        })
}
