//! What is to be done about a `BedrockCredential`, decided without I/O.

use kube::ResourceExt;
use spillway_core::repository::bedrock_keys::BedrockKeyRow;
use spillway_core::security::credentials::BedrockSecret;
use spillway_crds::{BedrockAuth, BedrockCredential};
use uuid::Uuid;

use super::super::conditions::Problem;
use super::super::outcome::Rules;
use super::super::references::check_upstream;

/// What the resource asks for.
#[derive(Debug, Clone)]
pub struct Desired {
    /// The resource's namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// `region`.
    pub region: String,
    /// `endpointUrl`.
    pub endpoint_url: Option<String>,
    /// `auth`.
    pub auth: BedrockAuth,
}

/// What there is.
#[derive(Debug)]
pub struct Observed {
    /// The credential, or why it cannot be read.
    pub material: Result<BedrockSecret, Problem>,
    /// Keyed hash of the credential.
    pub fingerprint: Option<Vec<u8>>,
    /// resourceVersion of its Secret.
    pub secret_version: Option<String>,
    /// What is stored.
    pub row: Option<BedrockKeyRow>,
    /// How many pools, users and keys name it.
    pub used_by: i64,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The row to be written, if any.
    pub store: Option<Store>,
    /// What is wrong. The row that was stored before goes on being used.
    pub problems: Vec<Problem>,
}

/// A row to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Store {
    /// The row that the resource already has.
    pub id: Option<Uuid>,
}

impl Desired {
    /// Reads the resource.
    pub fn of(credential: &BedrockCredential) -> Self {
        Self {
            namespace: credential.namespace().unwrap_or_default(),
            uid: credential.uid().unwrap_or_default(),
            region: credential.spec.region.clone(),
            endpoint_url: credential.spec.endpoint_url.clone(),
            auth: credential.spec.auth.clone(),
        }
    }

    /// The Secret that holds the credential.
    pub fn secret_name(&self) -> Option<&str> {
        let by_keys = self
            .auth
            .secret_ref
            .as_ref()
            .map(|reference| reference.name.as_str());
        by_keys.or_else(|| {
            self.auth
                .api_key_secret_ref
                .as_ref()
                .map(|reference| reference.name.as_str())
        })
    }

    /// `access_keys`, `api_key` or `pod_identity`.
    pub fn auth_kind(&self) -> &'static str {
        match (&self.auth.secret_ref, &self.auth.api_key_secret_ref) {
            (Some(_), _) => "access_keys",
            (None, Some(_)) => "api_key",
            (None, None) => "pod_identity",
        }
    }
}

/// Decides what is to be done.
pub fn plan(observed: &Observed, desired: &Desired, rules: &Rules) -> Plan {
    let mut problems: Vec<_> = check_upstream(
        "spec.endpointUrl",
        desired.endpoint_url.as_deref(),
        &rules.allowed_upstreams,
    )
    .into_iter()
    .collect();
    if desired.auth_kind() == "pod_identity" && !rules.pool_namespaces.contains(&desired.namespace)
    {
        let allowed: Vec<_> = rules.pool_namespaces.iter().map(String::as_str).collect();
        problems.push(Problem::accepted(
            "PodIdentityNotAllowed",
            format!(
                "spec.auth.podIdentity is the identity of the platform's proxies and may only be used in the namespaces of \
                 pools ({}): use secretRef or apiKeySecretRef, or let the platform team name a credential in its pool",
                allowed.join(", ")
            ),
        ));
    }
    problems.extend(observed.material.as_ref().err().cloned());
    let own = observed.row.as_ref().filter(|row| row.uid == desired.uid);
    let is_current = own.is_some_and(|row| {
        row.region == desired.region
            && row.endpoint_url == desired.endpoint_url
            && row.auth_kind == desired.auth_kind()
            && row.secret_version == observed.secret_version
            && Some(&row.fingerprint) == observed.fingerprint.as_ref()
    });
    let store = (problems.is_empty() && !is_current).then(|| Store {
        id: own.map(|row| row.id),
    });
    Plan { store, problems }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::ByteString;
    use k8s_openapi::api::core::v1::Secret;
    use serde_json::{Value, json};
    use spillway_core::domain::upstream::AllowedUpstreams;

    use super::super::material::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, canonical};
    use super::*;
    use crate::settings::PoolName;

    fn rules() -> Rules {
        Rules {
            pool_namespaces: ["spillway-system".to_owned()].into(),
            default_pool: PoolName {
                namespace: "spillway-system".into(),
                name: "default".into(),
            },
            allowed_upstreams: AllowedUpstreams::default(),
            database_secrets: BTreeSet::new(),
        }
    }

    fn desired(namespace: &str, spec: &Value) -> Desired {
        Desired::of(
            &serde_json::from_value(json!({
                "apiVersion": "spillway.dev/v1alpha1", "kind": "BedrockCredential",
                "metadata": { "name": "main", "namespace": namespace, "uid": "u1" }, "spec": spec,
            }))
            .unwrap(),
        )
    }

    fn secret(entries: &[(&str, &str)]) -> Secret {
        let data = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec())))
            .collect();
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    fn observed(
        desired: &Desired,
        secret: Option<&Secret>,
        row: Option<BedrockKeyRow>,
    ) -> Observed {
        let material = desired.material(secret);
        Observed {
            fingerprint: material
                .as_ref()
                .ok()
                .map(|material| canonical(material).as_bytes().to_vec()),
            material,
            secret_version: secret.map(|_| "7".into()),
            row,
            used_by: 0,
        }
    }

    fn row(desired: &Desired, secret: &Secret) -> BedrockKeyRow {
        BedrockKeyRow {
            id: Uuid::from_u128(1),
            uid: "u1".into(),
            region: desired.region.clone(),
            endpoint_url: desired.endpoint_url.clone(),
            auth_kind: desired.auth_kind().into(),
            secret_version: Some("7".into()),
            fingerprint: canonical(&desired.material(Some(secret)).unwrap())
                .as_bytes()
                .to_vec(),
            encrypted_with: "local:0".into(),
        }
    }

    fn with_keys() -> Desired {
        desired(
            "team",
            &json!({ "region": "us-east-1", "auth": { "secretRef": { "name": "aws" } } }),
        )
    }

    #[test]
    fn a_credential_is_written_once() {
        let (desired, secret) = (
            with_keys(),
            secret(&[(ACCESS_KEY_ID, "AKIA1"), (SECRET_ACCESS_KEY, "s3cret\n")]),
        );
        let first = plan(&observed(&desired, Some(&secret), None), &desired, &rules());
        assert_eq!(
            first,
            Plan {
                store: Some(Store { id: None }),
                problems: vec![]
            }
        );
        let row = row(&desired, &secret);
        assert_eq!(
            plan(
                &observed(&desired, Some(&secret), Some(row.clone())),
                &desired,
                &rules()
            )
            .store,
            None
        );
        let again = Some(Store {
            id: Some(Uuid::from_u128(1)),
        });
        for changed in [
            BedrockKeyRow {
                region: "us-west-2".into(),
                ..row.clone()
            },
            BedrockKeyRow {
                secret_version: Some("6".into()),
                ..row.clone()
            },
            BedrockKeyRow {
                fingerprint: vec![],
                ..row.clone()
            },
        ] {
            assert_eq!(
                plan(
                    &observed(&desired, Some(&secret), Some(changed)),
                    &desired,
                    &rules()
                )
                .store,
                again
            );
        }
        let other = BedrockKeyRow {
            uid: "u0".into(),
            ..row
        };
        assert_eq!(
            plan(
                &observed(&desired, Some(&secret), Some(other)),
                &desired,
                &rules()
            )
            .store,
            Some(Store { id: None })
        );
    }

    #[test]
    fn what_cannot_be_used_is_not_written_and_says_why() {
        let keys = with_keys();
        let api_key = desired(
            "team",
            &json!({ "region": "us-east-1", "auth": { "apiKeySecretRef": { "name": "b", "key": "k" } } }),
        );
        let identity = desired(
            "team",
            &json!({ "region": "us-east-1", "auth": { "podIdentity": {} } }),
        );
        let endpoint = desired(
            "spillway-system",
            &json!({
                "region": "us-east-1", "auth": { "podIdentity": {} }, "endpointUrl": "http://169.254.169.254",
            }),
        );
        let cases = [
            (
                &keys,
                None,
                "SecretNotFound",
                "spec.auth.secretRef names Secret team/aws",
            ),
            (
                &keys,
                Some(secret(&[(ACCESS_KEY_ID, "A")])),
                "SecretKeyMissing",
                "AWS_SECRET_ACCESS_KEY",
            ),
            (
                &keys,
                Some(secret(&[(ACCESS_KEY_ID, "A"), (SECRET_ACCESS_KEY, " ")])),
                "CredentialInvalid",
                "AWS_SECRET_ACCESS_KEY",
            ),
            (
                &api_key,
                Some(secret(&[("k", "two\nlines")])),
                "CredentialInvalid",
                "without quotes or line breaks",
            ),
            (
                &identity,
                None,
                "PodIdentityNotAllowed",
                "(spillway-system)",
            ),
            (&endpoint, None, "UpstreamRefused", "spec.endpointUrl"),
        ];
        for (desired, secret, reason, words) in cases {
            let plan = plan(&observed(desired, secret.as_ref(), None), desired, &rules());
            assert_eq!(plan.store, None, "{reason}");
            assert_eq!(plan.problems[0].reason, reason);
            assert!(
                plan.problems[0].message.contains(words),
                "{}",
                plan.problems[0].message
            );
        }
    }

    #[test]
    fn the_platforms_identity_may_be_used_where_pools_are() {
        let identity = desired(
            "spillway-system",
            &json!({ "region": "us-east-1", "auth": { "podIdentity": {} } }),
        );
        let plan = plan(&observed(&identity, None, None), &identity, &rules());
        assert_eq!((plan.store.is_some(), plan.problems.len()), (true, 0));
    }
}
