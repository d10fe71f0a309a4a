//! Kubernetes objects as a user sees them: YAML in, JSON out.

use std::time::Duration;

use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::ApiResource;
use kube::runtime::wait::await_condition;
use kube::{Api, ResourceExt};
use serde::Deserialize as _;
use serde_json::Value;

use super::wait::PATIENCE;
use super::world::World;

/// Kinds that tests use, with their API versions and plurals.
const KINDS: &[(&str, &str, &str)] = &[
    ("ProxyPool", "spillway.dev/v1alpha1", "proxypools"),
    ("ProxyUser", "spillway.dev/v1alpha1", "proxyusers"),
    ("AccessKey", "spillway.dev/v1alpha1", "accesskeys"),
    (
        "BedrockCredential",
        "spillway.dev/v1alpha1",
        "bedrockcredentials",
    ),
    ("Namespace", "v1", "namespaces"),
    ("Secret", "v1", "secrets"),
    ("Service", "v1", "services"),
    ("ServiceAccount", "v1", "serviceaccounts"),
    ("Pod", "v1", "pods"),
    ("Deployment", "apps/v1", "deployments"),
    ("StatefulSet", "apps/v1", "statefulsets"),
    ("Lease", "coordination.k8s.io/v1", "leases"),
    ("Event", "events.k8s.io/v1", "events"),
    (
        "CustomResourceDefinition",
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
    ),
];

fn resource(kind: &str) -> ApiResource {
    let (kind, api_version, plural) = KINDS
        .iter()
        .find(|known| known.0 == kind)
        .unwrap_or_else(|| panic!("add {kind} to KINDS"));
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.to_owned(),
        version: version.to_owned(),
        api_version: (*api_version).to_owned(),
        kind: (*kind).to_owned(),
        plural: (*plural).to_owned(),
    }
}

impl World {
    /// Objects of a kind in a namespace; those of the cluster with an empty one.
    pub fn api(&self, kind: &str, namespace: &str) -> Api<DynamicObject> {
        let resource = resource(kind);
        if namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }

    /// Applies every document of a manifest, as `kubectl apply --server-side` does.
    pub async fn apply(&self, yaml: &str) {
        self.try_apply(yaml)
            .await
            .unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    }

    /// As [`apply`](Self::apply), with the API server's refusal as error.
    pub async fn try_apply(&self, yaml: &str) -> Result<(), kube::Error> {
        for object in documents(yaml) {
            let kind = &object.types.as_ref().expect("a kind").kind;
            let api = self.api(kind, &object.namespace().unwrap_or_default());
            api.patch(
                &object.name_any(),
                &PatchParams::apply("cluster-tests").force(),
                &Patch::Apply(&object),
            )
            .await?;
        }
        Ok(())
    }

    /// Changes an object by a JSON merge patch.
    pub async fn patch(&self, kind: &str, namespace: &str, name: &str, patch: Value) {
        let patched = self
            .api(kind, namespace)
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        patched.unwrap_or_else(|error| panic!("{kind} {namespace}/{name}: {error}"));
    }

    /// An object as it is.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Value {
        self.find(kind, namespace, name)
            .await
            .unwrap_or_else(|| panic!("there is no {kind} {namespace}/{name}"))
    }

    /// An object as it is, if it is.
    pub async fn find(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let found = self
            .api(kind, namespace)
            .get_opt(name)
            .await
            .unwrap_or_else(|error| panic!("{kind} {namespace}/{name}: {error}"));
        found.map(|object| serde_json::to_value(object).expect("objects are JSON"))
    }

    /// All objects of a kind with these labels.
    pub async fn list(&self, kind: &str, namespace: &str, labels: &str) -> Vec<Value> {
        let listed = self
            .api(kind, namespace)
            .list(&ListParams::default().labels(labels))
            .await;
        let listed = listed.unwrap_or_else(|error| panic!("{kind} in {namespace}: {error}"));
        listed
            .items
            .into_iter()
            .map(|object| serde_json::to_value(object).expect("objects are JSON"))
            .collect()
    }

    /// Asks for a deletion, and does not wait for it.
    pub async fn delete(&self, kind: &str, namespace: &str, name: &str, parameters: &DeleteParams) {
        match self.api(kind, namespace).delete(name, parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => panic!("{kind} {namespace}/{name}: {error}"),
        }
    }

    /// Watches an object until it is as wanted (`Null`: it is not there), and gives it.
    pub async fn wait(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool + Send,
    ) -> Value {
        self.wait_within(PATIENCE, kind, namespace, name, what, wanted)
            .await
    }

    /// As [`wait`](Self::wait), with a limit of its own.
    pub async fn wait_within(
        &self,
        limit: Duration,
        kind: &str,
        namespace: &str,
        name: &str,
        what: &str,
        wanted: impl Fn(&Value) -> bool + Send,
    ) -> Value {
        let json = |object: Option<&DynamicObject>| {
            object.map_or(Value::Null, |object| {
                serde_json::to_value(object).expect("objects are JSON")
            })
        };
        let condition = |object: Option<&DynamicObject>| wanted(&json(object));
        let watching = await_condition(self.api(kind, namespace), name, condition);
        if let Ok(object) = tokio::time::timeout(limit, watching).await {
            return json(object.expect("the object can be watched").as_ref());
        }
        let is = self.find(kind, namespace, name).await;
        panic!(
            "not within {limit:?}: {kind} {namespace}/{name} {what}: {:#}",
            is.unwrap_or_default()
        )
    }

    /// Waits until the newest specification of a Spillway resource was judged ready.
    pub async fn ready(&self, kind: &str, namespace: &str, name: &str) -> Value {
        self.wait(kind, namespace, name, "is ready", |object| {
            condition(object, "Ready").is_some_and(|ready| ready["status"] == "True")
        })
        .await
    }

    /// Waits until the newest specification was judged not ready for this reason, and gives the message.
    pub async fn refused(&self, kind: &str, namespace: &str, name: &str, reason: &str) -> String {
        let is = |object: &Value| {
            condition(object, "Ready")
                .is_some_and(|ready| ready["status"] == "False" && ready["reason"] == reason)
        };
        let object = self
            .wait(
                kind,
                namespace,
                name,
                &format!("is refused as {reason}"),
                is,
            )
            .await;
        condition(&object, "Ready").expect("it was there")["message"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, kind: &str, namespace: &str, name: &str) {
        self.wait(kind, namespace, name, "is gone", Value::is_null)
            .await;
    }

    /// The entry of a Secret, as text.
    pub async fn secret_entry(&self, namespace: &str, name: &str, key: &str) -> String {
        let secret = self.get("Secret", namespace, name).await;
        decoded(&secret["data"][key])
            .unwrap_or_else(|| panic!("Secret {namespace}/{name} has no {key}"))
    }
}

fn documents(yaml: &str) -> Vec<DynamicObject> {
    let documents = serde_yaml::Deserializer::from_str(yaml).map(DynamicObject::deserialize);
    documents
        .collect::<Result<_, _>>()
        .unwrap_or_else(|error| panic!("{error}\n{yaml}"))
}

/// A condition of an object, if it was judged from the object's newest specification.
pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    let conditions = object["status"]["conditions"].as_array()?;
    conditions.iter().find(|condition| {
        condition["type"] == type_
            && condition["observedGeneration"] == object["metadata"]["generation"]
    })
}

/// The text of a Secret's entry.
pub fn decoded(entry: &Value) -> Option<String> {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    String::from_utf8(BASE64_STANDARD.decode(entry.as_str()?).ok()?).ok()
}

/// Name of an object.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
