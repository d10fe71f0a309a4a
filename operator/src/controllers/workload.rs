//! The proxies of a pool on the cluster: `ServiceAccount`, Service and Deployment, each written only when it is not as it is
//! to be.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use spillway_crds::{GROUP, ProxyPool};

use super::error::ReconcileError;
use super::world::{OBJECT_CONFLICT, ProxyState, WorldError};
use crate::context::Context;
use crate::database::Session;
use crate::events::CONTROLLER;
use crate::resources::deployment::{DeploymentInputs, deployment};
use crate::resources::drift::{fingerprinted, is_in};
use crate::resources::service::{service, service_account};

/// Makes the pool's objects what they are to be and tells what its proxies are like.
pub(super) async fn ensure(
    context: &Context,
    session: &Session,
    pool: &ProxyPool,
) -> Result<ProxyState, ReconcileError> {
    let namespace = pool.namespace().unwrap_or_default();
    let masters = context
        .masters
        .ensure_copies(&session.keys, &namespace)
        .await?;
    let inputs = DeploymentInputs {
        settings: &context.settings.proxy,
        cluster_id: &context.settings.cluster_id,
        hasher: &masters.hasher,
        encryption: masters.encryption.as_ref(),
    };
    let identity = service_account(pool);
    if let Applied::Foreign(conflict) = applied(context, pool, &identity).await? {
        return Ok(conflict);
    }
    if let Applied::Foreign(conflict) = applied(context, pool, &service(pool)).await? {
        return Ok(conflict);
    }
    Ok(
        match applied(context, pool, &deployment(pool, &inputs)).await? {
            Applied::Own(live) => state(&live),
            Applied::Foreign(conflict) => conflict,
        },
    )
}

/// What there is of an object.
enum Applied<K> {
    /// It is as it is to be.
    Own(K),
    /// It is not the pool's, and was left alone.
    Foreign(ProxyState),
}

/// Whether an object is this pool's. A restored one names the former pool's uid.
fn is_own(object: &ObjectMeta, pool: &ProxyPool) -> bool {
    let owners = object.owner_references.as_deref().unwrap_or_default();
    owners.iter().any(|owner| {
        Some(&owner.uid) == pool.metadata.uid.as_ref()
            || (owner.kind == ProxyPool::kind(&())
                && owner.api_version.split('/').next() == Some(GROUP)
                && Some(&owner.name) == pool.metadata.name.as_ref())
    })
}

fn conflict(place: &str) -> ProxyState {
    let message = format!(
        "{place} is there and is not this pool's (no ownerReference names it), so it is left alone: delete it, or make the pool \
         under another name"
    );
    ProxyState {
        unavailable: Some((OBJECT_CONFLICT, message)),
        ..ProxyState::default()
    }
}

/// Applies `wanted` unless the API server already has it, and gives the object as it is. What is not the pool's is left alone.
async fn applied<K>(
    context: &Context,
    pool: &ProxyPool,
    wanted: &K,
) -> Result<Applied<K>, WorldError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let namespace = pool.namespace().unwrap_or_default();
    let api: Api<K> = Api::namespaced(context.client.clone(), &namespace);
    let name = wanted.name_any();
    let kind = K::kind(&());
    let failed = |verb: &str| format!("{verb} {kind} {namespace}/{name}");
    let mut manifest =
        fingerprinted(wanted).map_err(|source| WorldError::new(failed("build"), source))?;
    let live = api
        .get_opt(&name)
        .await
        .map_err(|source| WorldError::new(failed("read"), source))?;
    if let Some(live) = live {
        if !is_own(live.meta(), pool) {
            return Ok(Applied::Foreign(conflict(&format!(
                "{kind} {namespace}/{name}"
            ))));
        }
        let seen = serde_json::to_value(&live)
            .map_err(|source| WorldError::new(failed("compare"), source))?;
        if is_in(&manifest, &seen) {
            return Ok(Applied::Own(live));
        }
    }
    manifest["apiVersion"] = K::api_version(&()).into();
    manifest["kind"] = kind.as_ref().into();
    let parameters = PatchParams::apply(CONTROLLER).force();
    api.patch(&name, &parameters, &Patch::Apply(&manifest))
        .await
        .map(Applied::Own)
        .map_err(|source| WorldError::new(failed("apply"), source))
}

/// What a Deployment says of its pods.
fn state(deployment: &Deployment) -> ProxyState {
    let wanted = deployment
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    let current =
        status.observed_generation.unwrap_or(0) >= deployment.metadata.generation.unwrap_or(0);
    let name = deployment.name_any();
    let conditions = status.conditions.unwrap_or_default();
    let failing = conditions.iter().find(|condition| {
        (condition.type_ == "Progressing" && condition.status == "False")
            || (condition.type_ == "ReplicaFailure" && condition.status == "True")
    });
    let unavailable = if wanted == 0 {
        Some((
            "ScaledToZero",
            "spec.replicas is 0: no proxy takes requests until it is raised".to_owned(),
        ))
    } else if let Some(failing) = failing {
        let words = failing.message.clone().unwrap_or_default();
        Some((
            "RolloutFailed",
            format!(
                "Deployment {name} does not get along: {words}; see its pods (kubectl describe deployment {name})"
            ),
        ))
    } else if !current || ready < wanted || status.updated_replicas.unwrap_or(0) < wanted {
        Some((
            "ProxiesStarting",
            format!("{ready} of {wanted} proxies of Deployment {name} take requests"),
        ))
    } else {
        None
    };
    ProxyState {
        replicas: status.replicas.unwrap_or(0),
        ready_replicas: ready,
        unavailable,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(replicas: i32, status: &Value) -> ProxyState {
        let deployment = serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "spillway-main", "generation": 2 },
            "spec": { "replicas": replicas, "selector": {}, "template": {} }, "status": status,
        }));
        state(&deployment.unwrap())
    }

    #[test]
    fn a_pool_is_available_when_every_current_proxy_is_ready() {
        let full = json!({ "observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2 });
        assert_eq!(
            of(2, &full),
            ProxyState {
                replicas: 2,
                ready_replicas: 2,
                unavailable: None
            }
        );
        assert_eq!(of(3, &full).unavailable.unwrap().0, "ProxiesStarting");
        let stale = json!({ "observedGeneration": 1, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2 });
        assert_eq!(of(2, &stale).unavailable.unwrap().0, "ProxiesStarting");
        assert_eq!(
            of(0, &json!({ "observedGeneration": 2 }))
                .unavailable
                .unwrap()
                .0,
            "ScaledToZero"
        );
    }

    #[test]
    fn only_what_names_the_pool_as_its_owner_is_the_pools() {
        let pool = crate::resources::test::pool(&json!({}));
        let mut metadata = service(&pool).metadata;
        assert!(is_own(&metadata, &pool));
        metadata.owner_references.as_mut().unwrap()[0].uid = "of-the-former-pool".into();
        assert!(is_own(&metadata, &pool), "a restored object");
        metadata.owner_references.as_mut().unwrap()[0].name = "another".into();
        assert!(!is_own(&metadata, &pool));
        metadata.owner_references = None;
        assert!(!is_own(&metadata, &pool), "whatever its labels say");
        let (reason, message) = conflict("Service a/b").unavailable.unwrap();
        assert_eq!(reason, OBJECT_CONFLICT);
        assert!(message.starts_with("Service a/b is there") && message.contains("delete it"));
    }

    #[test]
    fn a_failed_rollout_repeats_the_deployments_words() {
        let state = of(
            2,
            &json!({ "observedGeneration": 2, "replicas": 1, "conditions": [
            { "type": "ReplicaFailure", "status": "True", "message": "quota exceeded" },
        ] }),
        );
        let (reason, message) = state.unavailable.unwrap();
        assert_eq!(reason, "RolloutFailed");
        assert!(
            message.contains("quota exceeded") && message.contains("kubectl describe"),
            "{message}"
        );
    }
}
