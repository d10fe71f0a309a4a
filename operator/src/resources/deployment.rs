//! The Deployment of a pool's proxies.
//!
//! What a pool says about Claude travels by Postgres, so only the image, the resources, the number of proxies and the
//! operator's own settings are in here, and nothing else rolls pods.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, Lifecycle, LifecycleHandler, LocalObjectReference, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretKeySelector,
    SecurityContext, SleepAction, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use spillway_crds::ProxyPool;

use super::{pool_labels, pool_metadata, pool_object_name, pool_selector};
use crate::settings::{ProxySettings, SecretKey};

/// Name of the port that clients use.
pub const HTTP_PORT_NAME: &str = "http";
const HTTP_PORT: i32 = 8080;
const ADMIN_PORT_NAME: &str = "admin";
const ADMIN_PORT: i32 = 9090;
const SPOOL_DIR: &str = "/var/lib/spillway";
const CONTAINER: &str = "proxy";
/// Any user but root; the image has no user of its own.
const USER: i64 = 65532;
/// What ending takes besides the proxy's own waits: until the pod is unpublished, its last words to clients that are cut off,
/// and its usage flushed.
const END_SECONDS: i64 = 58;
/// Time for every node to learn that a pod takes no more requests, before it is told to stop.
const UNPUBLISH_SECONDS: i64 = 5;

/// What a Deployment is made of besides its pool.
#[derive(Debug, Clone, Copy)]
pub struct DeploymentInputs<'a> {
    /// The operator's settings for proxies.
    pub settings: &'a ProxySettings,
    /// The cluster's id in Postgres.
    pub cluster_id: &'a str,
    /// Where the hasher secret is, in the pool's namespace.
    pub hasher: &'a SecretKey,
    /// Where the local encryption key is, in the pool's namespace; none with AWS KMS alone.
    pub encryption: Option<&'a SecretKey>,
}

/// The Deployment of `pool`.
pub fn deployment(pool: &ProxyPool, inputs: &DeploymentInputs<'_>) -> Deployment {
    let name = pool.name_any();
    Deployment {
        metadata: pool_metadata(pool),
        spec: Some(DeploymentSpec {
            replicas: Some(pool.spec.replicas),
            selector: LabelSelector {
                match_labels: Some(pool_selector(&name)),
                ..LabelSelector::default()
            },
            strategy: Some(DeploymentStrategy {
                type_: Some("RollingUpdate".to_owned()),
                rolling_update: Some(RollingUpdateDeployment {
                    max_surge: Some(IntOrString::Int(1)),
                    max_unavailable: Some(IntOrString::Int(0)),
                }),
            }),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(pool_labels(&name)),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(pool, inputs)),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn pod(pool: &ProxyPool, inputs: &DeploymentInputs<'_>) -> PodSpec {
    PodSpec {
        service_account_name: Some(pool_object_name(&pool.name_any())),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(
            i64::try_from(inputs.settings.end.as_secs())
                .unwrap_or(i64::MAX)
                .saturating_add(END_SECONDS),
        ),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: pull_secrets(inputs.settings),
        containers: vec![container(pool, inputs)],
        volumes: Some(vec![Volume {
            name: "spool".to_owned(),
            empty_dir: Some(EmptyDirVolumeSource::default()),
            ..Volume::default()
        }]),
        ..PodSpec::default()
    }
}

fn pull_secrets(settings: &ProxySettings) -> Option<Vec<LocalObjectReference>> {
    let names = settings.image_pull_secrets.iter();
    let references: Vec<_> = names
        .map(|name| LocalObjectReference { name: name.clone() })
        .collect();
    (!references.is_empty()).then_some(references)
}

fn container(pool: &ProxyPool, inputs: &DeploymentInputs<'_>) -> Container {
    let image = pool
        .spec
        .image
        .clone()
        .unwrap_or_else(|| inputs.settings.image.clone());
    Container {
        name: CONTAINER.to_owned(),
        image: Some(image),
        env: Some(environment(pool, inputs)),
        ports: Some(vec![
            port(HTTP_PORT_NAME, HTTP_PORT),
            port(ADMIN_PORT_NAME, ADMIN_PORT),
        ]),
        resources: Some(
            pool.spec
                .resources
                .clone()
                .unwrap_or_else(default_resources),
        ),
        startup_probe: Some(probe("/healthz", 1, 60)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        readiness_probe: Some(probe("/readyz", 2, 2)),
        lifecycle: Some(Lifecycle {
            pre_stop: Some(LifecycleHandler {
                sleep: Some(SleepAction {
                    seconds: UNPUBLISH_SECONDS,
                }),
                ..LifecycleHandler::default()
            }),
            ..Lifecycle::default()
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                add: None,
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![VolumeMount {
            name: "spool".to_owned(),
            mount_path: SPOOL_DIR.to_owned(),
            ..VolumeMount::default()
        }]),
        ..Container::default()
    }
}

/// The proxies' environment: who they are, where their secrets are, and what the operator passes on.
fn environment(pool: &ProxyPool, inputs: &DeploymentInputs<'_>) -> Vec<EnvVar> {
    let database = &inputs.settings.database_secret;
    let namespace = pool.namespace().unwrap_or_default();
    let mut variables = vec![
        value("PROXY_CLUSTER_ID", inputs.cluster_id),
        value("PROXY_NAMESPACE", &namespace),
        value("PROXY_POOL", &pool.name_any()),
        value("PROXY_LISTEN_ADDR", &format!("0.0.0.0:{HTTP_PORT}")),
        value("PROXY_ADMIN_ADDR", &format!("0.0.0.0:{ADMIN_PORT}")),
        value("PROXY_SPOOL_DIR", SPOOL_DIR),
        secret("PROXY_DATABASE_URL", database),
        secret("PROXY_KEY_HASHER_SECRET", inputs.hasher),
    ];
    let listen = inputs.settings.database_listen_secret.as_ref();
    variables.extend(listen.map(|url| secret("PROXY_DATABASE_LISTEN_URL", url)));
    variables.extend(
        inputs
            .encryption
            .map(|key| secret("PROXY_LOCAL_ENCRYPTION_KEY", key)),
    );
    let origin = inputs.settings.origin_verify_secret.as_ref();
    variables.extend(origin.map(|origin| secret("PROXY_ORIGIN_VERIFY_SECRET", origin)));
    let own: Vec<_> = variables
        .iter()
        .map(|variable| variable.name.clone())
        .collect();
    let passed_on = inputs
        .settings
        .environment
        .iter()
        .filter(|(name, _)| !own.contains(name));
    variables.extend(passed_on.map(|(name, text)| value(name, text)));
    variables
}

fn value(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        value_from: None,
    }
}

fn secret(name: &str, secret: &SecretKey) -> EnvVar {
    let selector = SecretKeySelector {
        name: secret.name.clone(),
        key: secret.key.clone(),
        optional: None,
    };
    EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            secret_key_ref: Some(selector),
            ..EnvVarSource::default()
        }),
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(ADMIN_PORT_NAME.to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

/// Enough for a quiet pool. No limits: a throttled proxy would add latency to every stream.
fn default_resources() -> ResourceRequirements {
    let requests: BTreeMap<_, _> = [("cpu", "100m"), ("memory", "128Mi")]
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .into();
    ResourceRequirements {
        requests: Some(requests),
        ..ResourceRequirements::default()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;
    use spillway_core::domain::upstream::AllowedUpstreams;

    use super::super::test::pool;
    use super::*;

    fn settings() -> ProxySettings {
        ProxySettings {
            image: "spillway-proxy:test".into(),
            image_pull_secrets: vec!["pull".into()],
            database_secret: SecretKey {
                name: "spillway-database".into(),
                key: "url".into(),
            },
            database_listen_secret: Some(SecretKey {
                name: "spillway-database".into(),
                key: "direct-url".into(),
            }),
            origin_verify_secret: None,
            end: Duration::from_secs(602),
            kms_key_id: None,
            allowed_upstreams: AllowedUpstreams::default(),
            environment: [("PROXY_LOG_LEVEL", "debug"), ("PROXY_POOL", "never")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }

    fn built(pool: &ProxyPool, encryption: Option<&SecretKey>) -> Deployment {
        let hasher = SecretKey {
            name: "spillway-key-hasher".into(),
            key: "secret".into(),
        };
        let settings = settings();
        deployment(
            pool,
            &DeploymentInputs {
                settings: &settings,
                cluster_id: "cluster-1",
                hasher: &hasher,
                encryption,
            },
        )
    }

    #[test]
    fn a_deployment_of_defaults() {
        let encryption = SecretKey {
            name: "spillway-encryption-key".into(),
            key: "key".into(),
        };
        insta::assert_yaml_snapshot!(built(&pool(&json!({})), Some(&encryption)));
    }

    #[test]
    fn image_resources_and_replicas_are_the_pools_own() {
        let told = built(
            &pool(&json!({
                "replicas": 5, "image": "registry.example.com/proxy:1",
                "resources": { "requests": { "cpu": "1" }, "limits": { "memory": "1Gi" } },
            })),
            None,
        );
        let spec = told.spec.unwrap();
        let container = &spec.template.spec.unwrap().containers[0];
        assert_eq!(spec.replicas, Some(5));
        assert_eq!(
            container.image.as_deref(),
            Some("registry.example.com/proxy:1")
        );
        insta::assert_yaml_snapshot!(container.resources);
    }

    #[test]
    fn what_a_pool_says_about_claude_rolls_no_pods() {
        let plain = built(&pool(&json!({})), None);
        let told = built(
            &pool(&json!({
                "plan": { "apiUrl": "https://api.example.com", "apiKeySecretRef": { "name": "plan", "key": "key" } },
                "fallback": { "enabled": false }, "circuitBreaker": { "failureThreshold": 9 },
                "models": [{ "name": "a", "bedrockModelId": "b" }], "usageReportInterval": "10s",
                "allowedNamespaces": { "from": "All" }, "service": { "port": 8080 },
            })),
            None,
        );
        assert_eq!(plain, told);
    }

    #[test]
    fn a_proxys_own_end_and_the_front_doors_secret_are_the_pods_too() {
        let settings = ProxySettings {
            end: Duration::from_secs(30),
            origin_verify_secret: Some(SecretKey {
                name: "front-door".into(),
                key: "secret".into(),
            }),
            ..settings()
        };
        let hasher = SecretKey {
            name: "spillway-key-hasher".into(),
            key: "secret".into(),
        };
        let inputs = DeploymentInputs {
            settings: &settings,
            cluster_id: "cluster-1",
            hasher: &hasher,
            encryption: None,
        };
        let pod = deployment(&pool(&json!({})), &inputs)
            .spec
            .unwrap()
            .template
            .spec
            .unwrap();
        assert_eq!(pod.termination_grace_period_seconds, Some(88));
        let origin = pod.containers[0]
            .env
            .iter()
            .flatten()
            .find(|variable| variable.name == "PROXY_ORIGIN_VERIFY_SECRET")
            .unwrap();
        let reference = origin.value_from.as_ref().unwrap().secret_key_ref.as_ref();
        assert_eq!(
            (origin.value.as_deref(), reference.unwrap().name.as_str()),
            (None, "front-door")
        );
    }

    #[test]
    fn what_is_passed_on_never_overrides_who_a_proxy_is() {
        let spec = built(&pool(&json!({})), None)
            .spec
            .unwrap()
            .template
            .spec
            .unwrap();
        let pools: Vec<_> = spec.containers[0]
            .env
            .iter()
            .flatten()
            .filter(|variable| variable.name == "PROXY_POOL")
            .collect();
        assert_eq!(pools.len(), 1);
        assert_eq!(pools[0].value.as_deref(), Some("main"));
    }
}
