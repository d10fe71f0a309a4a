//! What resources refer to: entries of Secrets, pools, credentials. Everything that can be wrong with a reference is said
//! here, once.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};
use secrecy::SecretString;
use spillway_core::domain::models::ModelPatterns;
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::repository::{RepositoryError, bedrock_keys};
use spillway_crds::{ACCESS_KEY_ANNOTATION, From, PoolRef, ProxyPool};
use url::Url;
use uuid::Uuid;

use super::conditions::Problem;
use super::error::ReconcileError;
use super::outcome::{Env, Rules};
use crate::master_secrets::PURPOSE_ANNOTATION;
use crate::resources::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::settings::PoolName;

/// The entry `key` of a Secret that `field` names, as text.
pub fn secret_entry(
    secret: Option<&Secret>,
    field: &str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<SecretString, Problem> {
    let Some(secret) = secret else {
        return Err(Problem::reference(
            "SecretNotFound",
            format!(
                "{field} names Secret {namespace}/{name}, which does not exist: create it with the key {key}, or name another"
            ),
        ));
    };
    let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
        return Err(Problem::reference(
            "SecretKeyMissing",
            format!(
                "{field} names key {key} of Secret {namespace}/{name}, which has no such key: {}",
                keys_of(secret, key)
            ),
        ));
    };
    match std::str::from_utf8(&bytes.0) {
        Ok(text) => Ok(SecretString::from(text)),
        Err(_) => Err(Problem::reference(
            "SecretUnreadable",
            format!(
                "{field} names key {key} of Secret {namespace}/{name}, whose value is no text: store it as UTF-8"
            ),
        )),
    }
}

fn keys_of(secret: &Secret, wanted: &str) -> String {
    let keys: Vec<_> = secret
        .data
        .iter()
        .flatten()
        .map(|(key, _)| key.as_str())
        .collect();
    if keys.is_empty() {
        format!("add {wanted} to it")
    } else {
        format!("add it, or name one of {}", keys.join(", "))
    }
}

/// Refuses a Secret of Spillway's own: who may name a Secret would otherwise have the operator send it to an upstream of
/// their choice.
pub fn check_secret(secret: Option<&Secret>, field: &str, rules: &Rules) -> Option<Problem> {
    let secret = secret?;
    let (namespace, name) = (secret.namespace().unwrap_or_default(), secret.name_any());
    let is_marked = [PURPOSE_ANNOTATION, ACCESS_KEY_ANNOTATION]
        .iter()
        .any(|mark| secret.annotations().contains_key(*mark));
    let is_made = secret
        .labels()
        .get(MANAGED_BY_LABEL)
        .is_some_and(|maker| maker == MANAGED_BY);
    let is_of_database =
        rules.pool_namespaces.contains(&namespace) && rules.database_secrets.contains(&name);
    (is_marked || is_made || is_of_database).then(|| {
        Problem::reference(
            "SecretReserved",
            format!(
                "{field} names Secret {namespace}/{name}, which is Spillway's own and is sent nowhere: put the credential into a \
                 Secret of its own and name that"
            ),
        )
    })
}

/// The resourceVersion of a Secret.
pub fn version_of(secret: Option<&Secret>) -> Option<String> {
    secret.and_then(ResourceExt::resource_version)
}

/// The pool that a user of `namespace` names.
pub fn pool_of(reference: Option<&PoolRef>, namespace: &str, rules: &Rules) -> PoolName {
    match reference {
        Some(reference) => PoolName {
            namespace: reference
                .namespace
                .clone()
                .unwrap_or_else(|| namespace.to_owned()),
            name: reference.name.clone(),
        },
        None => rules.default_pool.clone(),
    }
}

/// Whether `pool` lets users of `namespace` in.
pub fn admits(pool: &ProxyPool, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
    let allowed = &pool.spec.allowed_namespaces;
    let same = pool.namespace().as_deref() == Some(namespace);
    match allowed.from {
        From::Same => same,
        From::All => true,
        From::Selector => allowed
            .selector
            .clone()
            .and_then(|selector| Selector::try_from(selector).ok())
            .is_some_and(|selector| selector.matches(labels)),
    }
}

/// Refuses a URL that no credential may be sent to.
pub fn check_upstream(
    field: &str,
    url: Option<&str>,
    allowed: &AllowedUpstreams,
) -> Option<Problem> {
    let url = url?;
    let refused = match Url::parse(url) {
        Ok(parsed) => allowed.check(&parsed).err()?.to_string(),
        Err(error) => format!("{url} is no URL ({error}): write it as https://host"),
    };
    Some(Problem::accepted(
        "UpstreamRefused",
        format!("{field}: {refused}"),
    ))
}

/// Refuses model patterns that no model can be compared with.
pub fn check_models(field: &str, patterns: &[String]) -> Option<Problem> {
    let error = ModelPatterns::new(patterns).err()?;
    Some(Problem::accepted(
        "InvalidModelPattern",
        format!("{field}: {error}"),
    ))
}

/// The row of the `BedrockCredential` that `field` names in `namespace`.
pub async fn bedrock_credential(
    env: &Env<'_>,
    namespace: &str,
    name: &str,
    field: &str,
) -> Result<Result<Uuid, Problem>, ReconcileError> {
    let exists = env
        .world
        .bedrock_credential(namespace, name)
        .await?
        .is_some_and(|credential| credential.metadata.deletion_timestamp.is_none());
    let row = credential_row(env, namespace, name).await?;
    Ok(match (exists, row) {
        (true, Some(id)) => Ok(id),
        (true, None) => Err(Problem::reference(
            "CredentialNotReady",
            format!(
                "{field} names BedrockCredential {namespace}/{name}, which is not ready: its conditions say what to mend"
            ),
        )),
        (false, _) => Err(Problem::reference(
            "CredentialNotFound",
            format!(
                "{field} names BedrockCredential {namespace}/{name}, which does not exist: create it, or name another"
            ),
        )),
    })
}

async fn credential_row(
    env: &Env<'_>,
    namespace: &str,
    name: &str,
) -> Result<Option<Uuid>, RepositoryError> {
    let mut reader = env.rows.reader().await?;
    Ok(
        bedrock_keys::find(&mut reader, env.rows.cluster_id(), namespace, name)
            .await?
            .map(|row| row.id),
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use std::collections::BTreeSet;

    use secrecy::ExposeSecret;
    use serde_json::json;

    use super::*;
    use crate::resources::test::pool;

    fn secret(entries: &[(&str, &[u8])]) -> Secret {
        let data = entries
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())))
            .collect();
        Secret {
            data: Some(data),
            ..Secret::default()
        }
    }

    fn entry(secret: Option<&Secret>) -> Result<String, (&'static str, String)> {
        secret_entry(secret, "spec.x", "team", "s", "KEY")
            .map(|text| text.expose_secret().to_owned())
            .map_err(|problem| (problem.reason, problem.message))
    }

    #[test]
    fn what_is_wrong_with_a_secret_names_it_and_the_fix() {
        assert_eq!(entry(Some(&secret(&[("KEY", b"value")]))).unwrap(), "value");
        let (reason, message) = entry(None).unwrap_err();
        assert_eq!(reason, "SecretNotFound");
        assert!(
            message.contains("spec.x names Secret team/s")
                && message.contains("create it with the key KEY"),
            "{message}"
        );
        let (reason, message) = entry(Some(&secret(&[("OTHER", b"very-secret")]))).unwrap_err();
        assert_eq!(reason, "SecretKeyMissing");
        assert!(
            message.ends_with("add it, or name one of OTHER") && !message.contains("very-secret"),
            "{message}"
        );
        assert_eq!(
            entry(Some(&secret(&[("KEY", b"\xff")]))).unwrap_err().0,
            "SecretUnreadable"
        );
    }

    #[test]
    fn pools_admit_their_own_all_or_labelled_namespaces() {
        let labels: BTreeMap<String, String> = [("tier".to_owned(), "gold".to_owned())].into();
        let cases = [
            (json!({}), "spillway-system", true),
            (json!({}), "team", false),
            (
                json!({ "allowedNamespaces": { "from": "All" } }),
                "team",
                true,
            ),
            (
                json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "tier": "gold" } } } }),
                "team",
                true,
            ),
            (
                json!({ "allowedNamespaces": { "from": "Selector", "selector": { "matchLabels": { "tier": "iron" } } } }),
                "team",
                false,
            ),
            (
                json!({ "allowedNamespaces": { "from": "Selector", "selector": {
                "matchExpressions": [{ "key": "tier", "operator": "In", "values": ["gold", "iron"] }] } } }),
                "team",
                true,
            ),
        ];
        for (spec, namespace, admitted) in cases {
            assert_eq!(
                admits(&pool(&spec), namespace, &labels),
                admitted,
                "{spec} {namespace}"
            );
        }
    }

    #[test]
    fn a_pool_is_named_by_namespace_or_is_the_default() {
        let rules = Rules {
            pool_namespaces: ["spillway-system".to_owned()].into(),
            default_pool: PoolName {
                namespace: "spillway-system".into(),
                name: "default".into(),
            },
            allowed_upstreams: AllowedUpstreams::default(),
            database_secrets: BTreeSet::new(),
        };
        let reference = |namespace: Option<&str>| PoolRef {
            name: "p".into(),
            namespace: namespace.map(str::to_owned),
        };
        assert_eq!(
            pool_of(None, "team", &rules).to_string(),
            "spillway-system/default"
        );
        assert_eq!(
            pool_of(Some(&reference(None)), "team", &rules).to_string(),
            "team/p"
        );
        assert_eq!(
            pool_of(Some(&reference(Some("other"))), "team", &rules).to_string(),
            "other/p"
        );
    }

    #[test]
    fn secrets_of_spillways_own_are_no_credentials() {
        let rules = Rules {
            pool_namespaces: ["spillway-system".to_owned()].into(),
            default_pool: PoolName {
                namespace: "spillway-system".into(),
                name: "default".into(),
            },
            allowed_upstreams: AllowedUpstreams::default(),
            database_secrets: ["spillway-database".to_owned()].into(),
        };
        let judged = |metadata: serde_json::Value| {
            let secret = serde_json::from_value(json!({ "metadata": metadata })).unwrap();
            check_secret(Some(&secret), "spec.auth.secretRef", &rules)
        };
        for own in [
            json!({ "name": "x", "namespace": "team", "annotations": { "spillway.dev/access-key": "team/ci" } }),
            json!({ "name": "x", "namespace": "team", "annotations": { "spillway.dev/master-secret": "hasher" } }),
            json!({ "name": "x", "namespace": "team", "labels": { "app.kubernetes.io/managed-by": "spillway-operator" } }),
            json!({ "name": "spillway-database", "namespace": "spillway-system" }),
        ] {
            let problem = judged(own).unwrap();
            assert_eq!(problem.reason, "SecretReserved");
            assert!(
                problem.message.contains("Secret of its own"),
                "{}",
                problem.message
            );
        }
        assert_eq!(judged(json!({ "name": "aws", "namespace": "team" })), None);
        assert_eq!(
            judged(json!({ "name": "spillway-database", "namespace": "team" })),
            None,
            "a name that is taken elsewhere"
        );
        assert_eq!(check_secret(None, "spec.auth.secretRef", &rules), None);
    }

    #[test]
    fn upstreams_and_patterns_that_cannot_be_used_are_refused() {
        let allowed = AllowedUpstreams::default();
        assert_eq!(
            check_upstream(
                "spec.plan.apiUrl",
                Some("https://api.anthropic.com"),
                &allowed
            ),
            None
        );
        assert_eq!(check_upstream("spec.plan.apiUrl", None, &allowed), None);
        let problem = check_upstream(
            "spec.plan.apiUrl",
            Some("https://evil.example.com"),
            &allowed,
        )
        .unwrap();
        assert!(
            problem
                .message
                .starts_with("spec.plan.apiUrl: host evil.example.com is not among"),
            "{}",
            problem.message
        );
        assert_eq!(
            check_models("spec.allowedModels", &["claude-*".into()]),
            None
        );
        assert_eq!(
            check_models("spec.allowedModels", &["claude-[".into()])
                .unwrap()
                .reason,
            "InvalidModelPattern"
        );
    }
}
