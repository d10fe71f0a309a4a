//! Kubernetes Events about Spillway's resources.
//!
//! An Event tells a person what to act on. Publishing never fails a reconciliation: what the API server refuses is
//! logged. Repetitions of one (object, reason, action) become a series on one Event, and an unchanged message is sent
//! at most once a minute, so that a resource that stays broken costs next to nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

/// Who the Events name as their source, and the field manager of the operator.
pub const CONTROLLER: &str = "spillway-operator";

/// Same message about the same object within this time: not sent again.
const QUIET: Duration = Duration::from_mins(1);

/// The API server refuses longer notes (1 kB).
const MAX_NOTE: usize = 1000;

/// Publishes Events; cheap to clone.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
    sent: Arc<Mutex<Sent>>,
}

impl Events {
    /// Events of the replica `instance` (its pod's name).
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter {
            controller: CONTROLLER.to_owned(),
            instance: Some(instance.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
            sent: Arc::default(),
        }
    }

    /// Tells that something happened as it should. `reason` and `action` are short words in `PascalCase`.
    pub async fn normal(
        &self,
        about: &ObjectReference,
        reason: &str,
        action: &str,
        note: impl Into<String>,
    ) {
        self.publish(EventType::Normal, about, reason, action, note.into())
            .await;
    }

    /// Tells that somebody has to look at `about`; the note says what to do.
    pub async fn warning(
        &self,
        about: &ObjectReference,
        reason: &str,
        action: &str,
        note: impl Into<String>,
    ) {
        self.publish(EventType::Warning, about, reason, action, note.into())
            .await;
    }

    async fn publish(
        &self,
        type_: EventType,
        about: &ObjectReference,
        reason: &str,
        action: &str,
        note: String,
    ) {
        let note = shortened(note);
        let key = Key {
            namespace: about.namespace.clone().unwrap_or_default(),
            kind: about.kind.clone().unwrap_or_default(),
            name: about.name.clone().unwrap_or_default(),
            uid: about.uid.clone().unwrap_or_default(),
            reason: reason.to_owned(),
            note: note.clone(),
        };
        if !self.sent.lock().is_due(key, Instant::now()) {
            return;
        }
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, about).await {
            warn!(
                kind = about.kind,
                namespace = about.namespace,
                name = about.name,
                reason,
                error = crate::report::chain(&error),
                "event not published"
            );
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    namespace: String,
    kind: String,
    name: String,
    uid: String,
    reason: String,
    note: String,
}

/// What was sent in the last [`QUIET`].
#[derive(Debug, Default)]
struct Sent(HashMap<Key, Instant>);

impl Sent {
    fn is_due(&mut self, key: Key, now: Instant) -> bool {
        self.0.retain(|_, at| now.duration_since(*at) < QUIET);
        match self.0.entry(key) {
            std::collections::hash_map::Entry::Occupied(_) => false,
            std::collections::hash_map::Entry::Vacant(vacant) => {
                vacant.insert(now);
                true
            }
        }
    }
}

/// The note, cut at a character boundary to what the API server takes.
fn shortened(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        let end = note.floor_char_boundary(MAX_NOTE - '…'.len_utf8());
        note.truncate(end);
        note.push('…');
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(note: &str) -> Key {
        Key {
            namespace: "team".into(),
            kind: "AccessKey".into(),
            name: "ci".into(),
            uid: "1".into(),
            reason: "SecretMissing".into(),
            note: note.into(),
        }
    }

    #[test]
    fn an_unchanged_message_waits_a_minute_and_a_changed_one_does_not() {
        let mut sent = Sent::default();
        let start = Instant::now();
        assert!(sent.is_due(key("a"), start));
        assert!(!sent.is_due(key("a"), start + QUIET / 2));
        assert!(sent.is_due(key("b"), start + QUIET / 2));
        assert!(sent.is_due(key("a"), start + QUIET));
        assert_eq!(sent.0.len(), 2, "what is no longer quiet is forgotten");
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let note = shortened("ä".repeat(900));
        assert!(
            note.len() <= MAX_NOTE && note.ends_with('…'),
            "{}",
            note.len()
        );
        assert_eq!(shortened("short".into()), "short");
    }
}
