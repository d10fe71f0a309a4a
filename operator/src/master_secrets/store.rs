//! Master secrets as Kubernetes Secrets: read by name, made with `create`, never written again.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretString};
use spillway_core::domain::pool::SecretKind;

use super::secret_name;
use crate::events::CONTROLLER;

/// Says what a master secret is for.
pub const PURPOSE_ANNOTATION: &str = "spillway.dev/master-secret";
/// Says where a copy was made from: `<namespace>/<secret>`, or `environment`.
pub const COPIED_FROM_ANNOTATION: &str = "spillway.dev/copied-from";

/// Why a Secret could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The API server refused or was away.
    #[error("Secret {namespace}/{name} could not be read")]
    Read {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: &'static str,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// The API server refused or was away.
    #[error("Secret {namespace}/{name} could not be created")]
    Create {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: &'static str,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// The Secret is there without what it is for.
    #[error(
        "Secret {namespace}/{name} has no readable key {key}: restore it from your backup; Spillway never writes a master secret twice"
    )]
    NoValue {
        /// The Secret's namespace.
        namespace: String,
        /// The Secret's name.
        name: &'static str,
        /// The missing entry of its data.
        key: &'static str,
    },
}

/// The value of `kind` in `namespace`, if its Secret is there.
pub(super) async fn read(
    client: &Client,
    namespace: &str,
    kind: SecretKind,
) -> Result<Option<SecretString>, StoreError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let name = secret_name(kind);
    let secret = secrets
        .get_opt(name)
        .await
        .map_err(|source| StoreError::Read {
            namespace: namespace.to_owned(),
            name,
            source,
        })?;
    secret
        .map(|secret| value_of(&secret, namespace, kind))
        .transpose()
}

/// Makes the Secret of `kind` with `value` where there is none, and returns the value that is there now: `value`,
/// or that of whoever was faster.
pub(super) async fn create(
    client: &Client,
    namespace: &str,
    kind: SecretKind,
    value: &SecretString,
    copied_from: Option<&str>,
) -> Result<SecretString, StoreError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let name = secret_name(kind);
    match secrets
        .create(&PostParams::default(), &manifest(kind, value, copied_from))
        .await
    {
        Ok(_) => {
            tracing::info!(
                namespace,
                secret = name,
                copied_from,
                "created a master secret"
            );
            Ok(value.clone())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let existing = secrets.get(name).await.map_err(|source| StoreError::Read {
                namespace: namespace.to_owned(),
                name,
                source,
            })?;
            value_of(&existing, namespace, kind)
        }
        Err(source) => Err(StoreError::Create {
            namespace: namespace.to_owned(),
            name,
            source,
        }),
    }
}

/// The Secret as it is made: without an owner, so that nothing collects it, not even an uninstall.
fn manifest(kind: SecretKind, value: &SecretString, copied_from: Option<&str>) -> Secret {
    let mut annotations =
        BTreeMap::from([(PURPOSE_ANNOTATION.to_owned(), kind.as_str().to_owned())]);
    if let Some(origin) = copied_from {
        annotations.insert(COPIED_FROM_ANNOTATION.to_owned(), origin.to_owned());
    }
    let labels = [
        ("app.kubernetes.io/name", "spillway"),
        ("app.kubernetes.io/managed-by", CONTROLLER),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(kind).to_owned()),
            labels: Some(
                labels
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(
            kind.variable().to_owned(),
            ByteString(value.expose_secret().as_bytes().to_vec()),
        )])),
        ..Secret::default()
    }
}

fn value_of(
    secret: &Secret,
    namespace: &str,
    kind: SecretKind,
) -> Result<SecretString, StoreError> {
    let entry = secret
        .data
        .as_ref()
        .and_then(|data| data.get(kind.variable()));
    entry
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .filter(|text| !text.trim().is_empty())
        .map(SecretString::from)
        .ok_or_else(|| StoreError::NoValue {
            namespace: namespace.to_owned(),
            name: secret_name(kind),
            key: kind.variable(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_secret_has_no_owner_and_says_what_it_is() {
        let secret = manifest(
            SecretKind::Hasher,
            &SecretString::from("1:secret"),
            Some("spillway/spillway-key-hasher"),
        );
        assert_eq!(secret.metadata.owner_references, None);
        let annotations = secret.metadata.annotations.clone().unwrap();
        assert_eq!(annotations[PURPOSE_ANNOTATION], "hasher");
        assert_eq!(
            annotations[COPIED_FROM_ANNOTATION],
            "spillway/spillway-key-hasher"
        );
        assert_eq!(
            value_of(&secret, "ns", SecretKind::Hasher)
                .unwrap()
                .expose_secret(),
            "1:secret"
        );
    }

    #[test]
    fn an_emptied_secret_names_itself_its_key_and_the_fix() {
        let mut secret = manifest(SecretKind::Hasher, &SecretString::from("1:secret"), None);
        secret.data = None;
        let message = value_of(&secret, "ns", SecretKind::Hasher)
            .unwrap_err()
            .to_string();
        assert_eq!(
            message,
            "Secret ns/spillway-key-hasher has no readable key PROXY_KEY_HASHER_SECRET: \
             restore it from your backup; Spillway never writes a master secret twice"
        );
    }
}
