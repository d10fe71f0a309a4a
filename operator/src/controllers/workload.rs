//! The proxies of a pool on the cluster: `ServiceAccount`, Service and Deployment, each written only when it is not as it is
//! to be.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use spillway_crds::ProxyPool;

use super::error::ReconcileError;
use super::world::{ProxyState, WorldError};
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
    applied::<ServiceAccount>(context, &namespace, &service_account(pool)).await?;
    applied::<Service>(context, &namespace, &service(pool)).await?;
    let live = applied::<Deployment>(context, &namespace, &deployment(pool, &inputs)).await?;
    Ok(state(&live))
}

/// Applies `wanted` unless the API server already has it, and gives the object as it is.
async fn applied<K>(context: &Context, namespace: &str, wanted: &K) -> Result<K, WorldError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
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
        let seen = serde_json::to_value(&live)
            .map_err(|source| WorldError::new(failed("compare"), source))?;
        if is_in(&manifest, &seen) {
            return Ok(live);
        }
    }
    manifest["apiVersion"] = K::api_version(&()).into();
    manifest["kind"] = kind.as_ref().into();
    let parameters = PatchParams::apply(CONTROLLER).force();
    api.patch(&name, &parameters, &Patch::Apply(&manifest))
        .await
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
