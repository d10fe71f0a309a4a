//! The Secret that holds an access key for its owner.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use spillway_core::security::key::AccessKeyToken;
use spillway_crds::ACCESS_KEY_ANNOTATION;

use super::{MANAGED_BY, MANAGED_BY_LABEL};

/// Entry with the key itself.
pub const ACCESS_KEY: &str = "ACCESS_KEY";
const BASE_URL: &str = "ANTHROPIC_BASE_URL";
const AUTH_TOKEN: &str = "ANTHROPIC_AUTH_TOKEN";
const ACCESS_KEY_URL: &str = "ACCESS_KEY_URL";

/// Whose Secret it is to be.
#[derive(Debug, Clone, PartialEq)]
pub struct KeySecretOwner {
    /// Namespace of the `AccessKey` and of its Secret.
    pub namespace: String,
    /// Name of the `AccessKey`.
    pub access_key: String,
    /// Name of the Secret.
    pub secret: String,
    /// The `AccessKey` as owner; none where there is no cluster.
    pub owner: Option<OwnerReference>,
}

impl KeySecretOwner {
    /// The value of the annotation that marks the Secret as this key's.
    pub fn mark(&self) -> String {
        format!("{}/{}", self.namespace, self.access_key)
    }

    /// Whether `secret` is this key's.
    pub fn owns(&self, secret: &Secret) -> bool {
        secret
            .metadata
            .annotations
            .as_ref()
            .and_then(|all| all.get(ACCESS_KEY_ANNOTATION))
            == Some(&self.mark())
    }
}

/// What the Secret is to hold for `token`, as text. `base_url` is the pool's URL, without a slash at the end.
pub fn entries(token: &AccessKeyToken, base_url: &str) -> BTreeMap<String, String> {
    [
        (ACCESS_KEY, token.expose().to_owned()),
        (BASE_URL, base_url.to_owned()),
        (AUTH_TOKEN, token.expose().to_owned()),
        (ACCESS_KEY_URL, format!("{base_url}/ak/{}", token.expose())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// A new Secret with `token`.
pub fn key_secret(owner: &KeySecretOwner, token: &AccessKeyToken, base_url: &str) -> Secret {
    let empty = Secret {
        metadata: ObjectMeta {
            name: Some(owner.secret.clone()),
            namespace: Some(owner.namespace.clone()),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    mended(&empty, owner, token, base_url)
}

/// `secret` with everything of Spillway's as it is to be; what others put there stays. Equal to `secret` when nothing is
/// to be done.
pub fn mended(
    secret: &Secret,
    owner: &KeySecretOwner,
    token: &AccessKeyToken,
    base_url: &str,
) -> Secret {
    let mut wanted = secret.clone();
    wanted
        .metadata
        .labels
        .get_or_insert_default()
        .insert(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned());
    wanted
        .metadata
        .annotations
        .get_or_insert_default()
        .insert(ACCESS_KEY_ANNOTATION.to_owned(), owner.mark());
    if let Some(reference) = &owner.owner {
        let references = wanted.metadata.owner_references.get_or_insert_default();
        // A restored Secret names the former object's UID.
        references.retain(|other| {
            other.uid == reference.uid
                || other.kind != reference.kind
                || other.name != reference.name
        });
        if !references.contains(reference) {
            references.retain(|other| other.uid != reference.uid);
            references.push(reference.clone());
        }
    }
    let data = wanted.data.get_or_insert_default();
    data.extend(
        entries(token, base_url)
            .into_iter()
            .map(|(key, value)| (key, ByteString(value.into_bytes()))),
    );
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "a-key-that-was-brought-along-for-tests";

    fn owner(uid: &str) -> KeySecretOwner {
        KeySecretOwner {
            namespace: "team".into(),
            access_key: "ci".into(),
            secret: "ci-key".into(),
            owner: Some(OwnerReference {
                api_version: "spillway.dev/v1alpha1".into(),
                kind: "AccessKey".into(),
                name: "ci".into(),
                uid: uid.into(),
                controller: Some(true),
                block_owner_deletion: None,
            }),
        }
    }

    fn token() -> AccessKeyToken {
        AccessKeyToken::parse(KEY).unwrap()
    }

    #[test]
    fn a_secret_to_mount_as_it_is() {
        let secret = key_secret(
            &owner("1"),
            &token(),
            "http://spillway-main.spillway-system.svc",
        );
        assert!(owner("1").owns(&secret));
        let readable: BTreeMap<_, _> = secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), String::from_utf8(value.0.clone()).unwrap()))
            .collect();
        insta::assert_yaml_snapshot!((&secret.metadata, readable));
    }

    #[test]
    fn a_secret_as_it_is_to_be_stays_as_it_is() {
        let secret = key_secret(&owner("1"), &token(), "http://a");
        assert_eq!(mended(&secret, &owner("1"), &token(), "http://a"), secret);
    }

    #[test]
    fn mending_repairs_what_is_spillways_and_leaves_the_rest() {
        let mut secret = key_secret(&owner("1"), &token(), "http://a");
        secret
            .metadata
            .labels
            .as_mut()
            .unwrap()
            .insert("team".into(), "blue".into());
        secret
            .data
            .as_mut()
            .unwrap()
            .insert("EXTRA".into(), ByteString(b"kept".to_vec()));
        secret.data.as_mut().unwrap().remove(AUTH_TOKEN);
        let mended = mended(&secret, &owner("2"), &token(), "http://b");
        let data = mended.data.unwrap();
        assert_eq!(data["EXTRA"].0, b"kept");
        assert_eq!(data[AUTH_TOKEN].0, KEY.as_bytes());
        assert_eq!(data[BASE_URL].0, b"http://b");
        assert_eq!(
            data[ACCESS_KEY_URL].0,
            format!("http://b/ak/{KEY}").as_bytes()
        );
        assert_eq!(mended.metadata.labels.unwrap()["team"], "blue");
        let owners = mended.metadata.owner_references.unwrap();
        assert_eq!(
            owners
                .iter()
                .map(|owner| owner.uid.as_str())
                .collect::<Vec<_>>(),
            ["2"]
        );
    }

    #[test]
    fn a_secret_without_the_mark_is_foreign() {
        let mut secret = key_secret(&owner("1"), &token(), "http://a");
        secret.metadata.annotations =
            Some([(ACCESS_KEY_ANNOTATION.to_owned(), "team/other".to_owned())].into());
        assert!(!owner("1").owns(&secret));
        secret.metadata.annotations = None;
        assert!(!owner("1").owns(&secret));
    }
}
