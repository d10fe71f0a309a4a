//! The Service and the `ServiceAccount` of a pool.

use k8s_openapi::api::core::v1::{Service, ServiceAccount, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;
use spillway_crds::ProxyPool;

use super::deployment::HTTP_PORT_NAME;
use super::{pool_metadata, pool_selector};

/// The Service in front of a pool's proxies.
pub fn service(pool: &ProxyPool) -> Service {
    let wanted = &pool.spec.service;
    let mut metadata = pool_metadata(pool);
    metadata.annotations = (!wanted.annotations.is_empty()).then(|| wanted.annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(wanted.type_.as_str().to_owned()),
            selector: Some(pool_selector(&pool.name_any())),
            ports: Some(vec![ServicePort {
                name: Some(HTTP_PORT_NAME.to_owned()),
                port: wanted.port,
                protocol: Some("TCP".to_owned()),
                app_protocol: Some("http".to_owned()),
                target_port: Some(IntOrString::String(HTTP_PORT_NAME.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The identity of a pool's proxies. It has no rights in the cluster and no token; clouds bind their own identities to it
/// by annotations, which the operator leaves alone.
pub fn service_account(pool: &ProxyPool) -> ServiceAccount {
    ServiceAccount {
        metadata: pool_metadata(pool),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test::pool;
    use super::*;

    #[test]
    fn a_service_of_defaults() {
        insta::assert_yaml_snapshot!(service(&pool(&json!({}))));
    }

    #[test]
    fn a_service_as_told() {
        insta::assert_yaml_snapshot!(service(&pool(&json!({
            "service": { "type": "LoadBalancer", "port": 8443, "annotations": { "lb.example.com/internal": "true" } },
        }))));
    }

    #[test]
    fn a_service_account_without_token() {
        insta::assert_yaml_snapshot!(service_account(&pool(&json!({}))));
    }
}
