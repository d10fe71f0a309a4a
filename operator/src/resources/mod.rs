//! Builders for the objects that the operator makes. Pure: what goes in decides what comes out.

pub mod deployment;
pub mod drift;
pub mod key_secret;
mod quantity;
pub mod service;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use spillway_crds::ProxyPool;

/// `app.kubernetes.io/name` of everything that belongs to proxies.
pub const PROXY_APP: &str = "spillway-proxy";
/// `app.kubernetes.io/managed-by` of everything that the operator makes.
pub const MANAGED_BY: &str = "spillway-operator";
/// Label that says who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// Name of a pool's Deployment, Service and `ServiceAccount`.
pub fn pool_object_name(pool: &str) -> String {
    format!("spillway-{pool}")
}

/// The labels by which a pool's proxies are selected. They never change for a living pool.
pub fn pool_selector(pool: &str) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", PROXY_APP),
        ("app.kubernetes.io/instance", pool),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

/// The labels of a pool's objects: the selector's and who made them.
pub fn pool_labels(pool: &str) -> BTreeMap<String, String> {
    let mut labels = pool_selector(pool);
    labels.extend(
        [
            ("app.kubernetes.io/component", "proxy"),
            ("app.kubernetes.io/part-of", "spillway"),
            (MANAGED_BY_LABEL, MANAGED_BY),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned())),
    );
    labels
}

/// The selector as a query, for the scale subresource.
pub fn selector_text(pool: &str) -> String {
    pool_selector(pool)
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// Where clients in the cluster reach a pool: `http://spillway-<pool>.<namespace>.svc`, with the port unless it is 80.
pub fn pool_url(pool: &ProxyPool) -> String {
    let host = format!(
        "{}.{}.svc",
        pool_object_name(&pool.name_any()),
        pool.namespace().unwrap_or_default()
    );
    match pool.spec.service.port {
        80 => format!("http://{host}"),
        port => format!("http://{host}:{port}"),
    }
}

/// Metadata of an object that a pool owns.
fn pool_metadata(pool: &ProxyPool) -> ObjectMeta {
    ObjectMeta {
        name: Some(pool_object_name(&pool.name_any())),
        namespace: pool.namespace(),
        labels: Some(pool_labels(&pool.name_any())),
        owner_references: pool.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
pub(crate) mod test {
    use serde_json::{Value, json};
    use spillway_crds::ProxyPool;

    /// A pool `main` in the namespace `spillway-system` with the given specification.
    pub(crate) fn pool(spec: &Value) -> ProxyPool {
        serde_json::from_value(json!({
            "apiVersion": "spillway.dev/v1alpha1",
            "kind": "ProxyPool",
            "metadata": { "name": "main", "namespace": "spillway-system", "uid": "2d5a3c1e-0000-4000-8000-000000000001" },
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn the_url_names_the_port_unless_it_is_the_usual_one() {
        assert_eq!(
            super::pool_url(&pool(&json!({}))),
            "http://spillway-main.spillway-system.svc"
        );
        assert_eq!(
            super::pool_url(&pool(&json!({ "service": { "port": 8080 } }))),
            "http://spillway-main.spillway-system.svc:8080"
        );
    }

    #[test]
    fn the_selector_is_part_of_the_labels() {
        let labels = super::pool_labels("main");
        assert!(
            super::pool_selector("main")
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
        );
        assert_eq!(
            super::selector_text("main"),
            "app.kubernetes.io/instance=main,app.kubernetes.io/name=spillway-proxy"
        );
    }
}
