//! Which events of a watch concern those who depend on what is watched.

use std::collections::{HashMap, HashSet};
use std::future::ready;

use futures::{Stream, StreamExt};
use kube::Resource;
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher::{self, Event};

/// The objects of a watch whose `change` is another than when they were last seen, and every one that is deleted: an
/// object with a finalizer is marked first, and only its end differs from that by nothing but the event.
pub(super) fn changes<K, F>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    change: F,
) -> impl Stream<Item = Result<K, watcher::Error>> + Send
where
    K: Resource<DynamicType = ()> + Send,
    F: Fn(&K) -> Option<u64> + Send,
{
    let mut seen = Seen::new(change);
    events.filter_map(move |event| ready(event.map(|event| seen.passed(event)).transpose()))
}

/// What was seen of each object.
struct Seen<K: Resource<DynamicType = ()>, F> {
    change: F,
    objects: HashMap<ObjectRef<K>, Option<u64>>,
    relisted: HashSet<ObjectRef<K>>,
}

impl<K: Resource<DynamicType = ()>, F: Fn(&K) -> Option<u64>> Seen<K, F> {
    fn new(change: F) -> Self {
        Self {
            change,
            objects: HashMap::new(),
            relisted: HashSet::new(),
        }
    }

    fn passed(&mut self, event: Event<K>) -> Option<K> {
        match event {
            Event::Init => {
                self.relisted.clear();
                None
            }
            Event::InitDone => {
                let relisted = std::mem::take(&mut self.relisted);
                self.objects.retain(|object, _| relisted.contains(object));
                None
            }
            Event::InitApply(object) => {
                self.relisted.insert(ObjectRef::from_obj(&object));
                self.changed(object)
            }
            Event::Apply(object) => self.changed(object),
            Event::Delete(object) => {
                self.objects.remove(&ObjectRef::from_obj(&object));
                Some(object)
            }
        }
    }

    fn changed(&mut self, object: K) -> Option<K> {
        let change = (self.change)(&object);
        let former = self.objects.insert(ObjectRef::from_obj(&object), change);
        (former != Some(change)).then_some(object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spillway_crds::ProxyUser;

    use super::super::kind::change_for_dependants;
    use super::*;

    fn user(metadata: &Value) -> ProxyUser {
        let mut all = json!({ "name": "alice", "namespace": "team", "generation": 1, "uid": "u1" });
        all.as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": "ProxyUser", "metadata": all,
            "spec": { "email": "alice@example.com" },
        }))
        .unwrap()
    }

    fn passed(events: Vec<Event<ProxyUser>>) -> Vec<bool> {
        let mut seen = Seen::new(change_for_dependants::<ProxyUser>);
        events
            .into_iter()
            .map(|event| seen.passed(event).is_some())
            .collect()
    }

    #[test]
    fn the_end_of_an_object_with_a_finalizer_passes() {
        let marked =
            || user(&json!({ "generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z" }));
        assert_eq!(
            passed(vec![
                Event::Apply(user(&json!({}))),
                Event::Apply(user(&json!({ "resourceVersion": "2" }))),
                Event::Apply(marked()),
                Event::Delete(marked()),
            ]),
            [true, false, true, true]
        );
    }

    #[test]
    fn an_object_that_is_made_again_or_listed_again_passes_where_it_is_new() {
        let alice = || user(&json!({}));
        assert_eq!(
            passed(vec![
                Event::Apply(alice()),
                Event::Delete(alice()),
                Event::Apply(alice())
            ]),
            [true, true, true]
        );
        let again = || vec![Event::Init, Event::InitApply(alice()), Event::InitDone];
        let gone = || vec![Event::Init, Event::InitDone];
        let events = [again(), again(), gone(), again()].concat();
        assert_eq!(passed(events).iter().filter(|passes| **passes).count(), 2);
    }
}
