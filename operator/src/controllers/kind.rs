//! What the driver needs to know of each kind.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

use async_trait::async_trait;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use spillway_crds::{
    AccessKey, AccessKeyStatus, BedrockCredential, BedrockCredentialStatus, PAUSED_ANNOTATION,
    ProxyPool, ProxyPoolStatus, ProxyUser, ProxyUserStatus,
};

use super::error::ReconcileError;
use super::outcome::{Env, Outcome, Rows};
use super::{access_key, bedrock_credential, pool, user};

/// A kind of resource that the operator reconciles.
#[async_trait]
pub trait Reconciled:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + Serialize
    + DeserializeOwned
    + Send
    + Sync
    + 'static
{
    /// Its status.
    type Status: Serialize + Clone + Debug + Default + PartialEq + Send + Sync;

    /// Its name in metrics and logs.
    const KIND: &'static str;

    /// The status as it was last read.
    fn status(&self) -> Option<&Self::Status>;

    /// The status' conditions.
    fn conditions(status: &Self::Status) -> &[Condition];

    /// The generation that the status was judged from.
    fn observed_generation(status: &Self::Status) -> Option<i64>;

    /// Fills in what every status has, and takes over from the former one what is not the reconcilers' to write.
    fn completed(
        status: Self::Status,
        former: Option<&Self::Status>,
        generation: Option<i64>,
        conditions: Vec<Condition>,
    ) -> Self::Status;

    /// The status without what is not the reconcilers' to write.
    fn own_part(status: &Self::Status) -> Self::Status;

    /// Brings rows and objects to what the resource says.
    async fn reconcile(
        env: &Env<'_>,
        resource: &Self,
    ) -> Result<Outcome<Self::Status>, ReconcileError>;

    /// Ends the rows of a deleted resource.
    async fn release(rows: &Rows, resource: &Self) -> Result<(), ReconcileError>;
}

macro_rules! reconciled {
    ($kind:ident, $status:ident, $module:ident, others: $($others:ident)?) => {
        #[async_trait]
        impl Reconciled for $kind {
            type Status = $status;
            const KIND: &'static str = stringify!($kind);

            fn status(&self) -> Option<&$status> {
                self.status.as_ref()
            }

            fn conditions(status: &$status) -> &[Condition] {
                &status.conditions
            }

            fn observed_generation(status: &$status) -> Option<i64> {
                status.observed_generation
            }

            fn completed(status: $status, former: Option<&$status>, generation: Option<i64>, conditions: Vec<Condition>) -> $status {
                let mut status = $status { observed_generation: generation, conditions, ..status };
                keep_order(former.map(|former| former.conditions.as_slice()).unwrap_or_default(), &mut status.conditions);
                status
            }

            fn own_part(status: &$status) -> $status {
                $status { $($others: Default::default(),)? ..status.clone() }
            }

            async fn reconcile(env: &Env<'_>, resource: &Self) -> Result<Outcome<$status>, ReconcileError> {
                $module::reconcile(env, resource).await
            }

            async fn release(rows: &Rows, resource: &Self) -> Result<(), ReconcileError> {
                $module::release(rows, resource).await
            }
        }
    };
}

reconciled!(ProxyPool, ProxyPoolStatus, pool, others: circuits);
reconciled!(ProxyUser, ProxyUserStatus, user, others: usage);
reconciled!(AccessKey, AccessKeyStatus, access_key, others: usage);
reconciled!(BedrockCredential, BedrockCredentialStatus, bedrock_credential, others:);

/// Conditions keep their places, so that an unchanged status compares equal.
fn keep_order(former: &[Condition], conditions: &mut [Condition]) {
    conditions.sort_by_key(|condition| {
        former
            .iter()
            .position(|other| other.type_ == condition.type_)
            .unwrap_or(usize::MAX)
    });
}

/// Whether the resource asks to be left alone.
pub fn is_paused(resource: &impl ResourceExt) -> bool {
    resource
        .annotations()
        .get(PAUSED_ANNOTATION)
        .is_some_and(|value| value == "true")
}

/// Changes when the resource is to be reconciled because of itself: not with its status.
pub fn own_change<K: Resource>(resource: &K) -> Option<u64> {
    let meta = resource.meta();
    Some(hashed(&(
        meta.generation,
        &meta.annotations,
        &meta.finalizers,
        meta.deletion_timestamp
            .as_ref()
            .map(|time| time.0.as_second()),
    )))
}

/// Changes when those that refer to the resource are to be reconciled: with its specification, its being and whether its
/// conditions hold, not with its usage.
pub fn change_for_dependants<K: Reconciled>(resource: &K) -> Option<u64> {
    let meta = resource.meta();
    let conditions: Vec<_> = resource
        .status()
        .map(K::conditions)
        .unwrap_or_default()
        .iter()
        .map(|condition| {
            (
                &condition.type_,
                &condition.status,
                condition.observed_generation,
            )
        })
        .collect();
    Some(hashed(&(
        meta.generation,
        meta.deletion_timestamp
            .as_ref()
            .map(|time| time.0.as_second()),
        conditions,
    )))
}

fn hashed(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn user(metadata: &Value, status: &Value) -> ProxyUser {
        let mut all = json!({ "name": "alice", "namespace": "team", "generation": 1 });
        all.as_object_mut()
            .unwrap()
            .extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": "ProxyUser", "metadata": all,
            "spec": { "email": "alice@example.com" }, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn status_alone_is_no_change_of_its_own() {
        let plain = user(&json!({}), &json!({}));
        assert_eq!(
            own_change(&plain),
            own_change(&user(&json!({}), &json!({ "keys": 3 })))
        );
        for metadata in [
            json!({ "generation": 2 }),
            json!({ "annotations": { PAUSED_ANNOTATION: "true" } }),
            json!({ "finalizers": ["x"] }),
            json!({ "deletionTimestamp": "2026-01-01T00:00:00Z" }),
        ] {
            assert_ne!(
                own_change(&plain),
                own_change(&user(&metadata, &json!({}))),
                "{metadata}"
            );
        }
    }

    #[test]
    fn dependants_follow_conditions_and_not_usage() {
        let condition = |status: &str| json!([{ "type": "Ready", "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
        let ready = user(&json!({}), &json!({ "conditions": condition("True") }));
        assert_eq!(
            change_for_dependants(&ready),
            change_for_dependants(&user(
                &json!({}),
                &json!({ "conditions": condition("True"), "keys": 3 })
            ))
        );
        assert_ne!(
            change_for_dependants(&ready),
            change_for_dependants(&user(
                &json!({}),
                &json!({ "conditions": condition("False") })
            ))
        );
    }
}
