//! Whether an object on the API server already is as it is to be, so that nothing is written where nothing changed.

use k8s_openapi::serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::quantity;

/// Annotation with the fingerprint of what was last applied: notices fields that were taken back since.
pub const APPLIED_ANNOTATION: &str = "spillway.dev/applied";

/// Marks `wanted` with its own fingerprint.
///
/// # Errors
/// None for Kubernetes objects: all of them serialize to JSON.
pub fn fingerprinted<K: Serialize>(wanted: &K) -> Result<Value, serde_json::Error> {
    let mut wanted = serde_json::to_value(wanted)?;
    let mut sorted = wanted.clone();
    sorted.sort_all_objects();
    let digest = Sha256::digest(sorted.to_string().as_bytes());
    let fingerprint = Uuid::from_slice(&digest[..16])
        .unwrap_or_default()
        .simple()
        .to_string();
    wanted["metadata"]["annotations"][APPLIED_ANNOTATION] = Value::String(fingerprint);
    Ok(wanted)
}

/// Fields whose values, or the values in them, are quantities: the API server writes them in a form of its own.
const QUANTITIES: [&str; 3] = ["limits", "requests", "sizeLimit"];

/// Whether all of `wanted` is found in `live`. Quantities are compared by value, lists are entry by entry; what the API server or
/// others added to an object does not count.
pub fn is_in(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(key, value)| {
            live.get(key).is_some_and(|live| {
                is_in(value, live)
                    || (QUANTITIES.contains(&key.as_str()) && are_same_quantities(value, live))
            })
        }),
        (Value::Array(wanted), Value::Array(live)) => {
            wanted.len() == live.len()
                && wanted
                    .iter()
                    .zip(live)
                    .all(|(wanted, live)| is_in(wanted, live))
        }
        _ => wanted == live,
    }
}

fn are_same_quantities(wanted: &Value, live: &Value) -> bool {
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => wanted.iter().all(|(name, value)| {
            live.get(name)
                .is_some_and(|live| quantity::is_same(value, live))
        }),
        _ => quantity::is_same(wanted, live),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn additions_of_others_are_no_drift() {
        let wanted = json!({ "spec": { "replicas": 2, "containers": [{ "name": "a" }] } });
        assert!(is_in(
            &wanted,
            &json!({ "spec": { "replicas": 2, "containers": [{ "name": "a", "x": 1 }], "y": 2 } })
        ));
        assert!(!is_in(
            &wanted,
            &json!({ "spec": { "replicas": 3, "containers": [{ "name": "a" }] } })
        ));
        assert!(!is_in(
            &wanted,
            &json!({ "spec": { "replicas": 2, "containers": [{ "name": "a" }, { "name": "b" }] } })
        ));
        assert!(!is_in(&wanted, &json!({ "spec": { "replicas": 2 } })));
    }

    #[test]
    fn a_quantity_in_another_form_is_no_drift() {
        let with = |cpu: &str, memory: &str| json!({ "resources": { "requests": { "cpu": cpu, "memory": memory } } });
        assert!(is_in(&with("0.5", "1024Mi"), &with("500m", "1Gi")));
        assert!(!is_in(&with("0.5", "1024Mi"), &with("500m", "1G")));
        assert!(is_in(
            &json!({ "emptyDir": { "sizeLimit": "1024Mi" } }),
            &json!({ "emptyDir": { "sizeLimit": "1Gi" } })
        ));
        assert!(!is_in(
            &json!({ "image": "1024Mi" }),
            &json!({ "image": "1Gi" })
        ));
    }

    #[test]
    fn a_field_that_was_taken_back_changes_the_fingerprint() {
        let before =
            fingerprinted(&json!({ "metadata": { "annotations": { "a": "1" } }, "spec": {} }))
                .unwrap();
        let after = fingerprinted(&json!({ "metadata": {}, "spec": {} })).unwrap();
        assert!(is_in(&after["spec"], &before["spec"]));
        assert!(!is_in(&after, &before));
        assert_eq!(
            after,
            fingerprinted(&json!({ "spec": {}, "metadata": {} })).unwrap()
        );
    }
}
