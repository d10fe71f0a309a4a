//! Validation of a manifest as the API server does it, without one: the generated schema, then its CEL rules.

mod structure;

use std::fmt;

use kube_cel::{RootContext, Validator};
use serde_json::{Map, Value};

use self::structure::structure;
use crate::{Definition, GROUP, VERSION};

/// One thing that is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field, such as `spec.models[0].name`.
    pub field: String,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() {
            formatter.write_str(&self.message)
        } else {
            write!(formatter, "{}: {}", self.field, self.message)
        }
    }
}

/// Drops explicit nulls, as the API server does for fields that are not nullable.
pub fn prune_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, inner| !inner.is_null());
            object.values_mut().for_each(prune_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(prune_nulls),
        _ => {}
    }
}

/// Judges a manifest of the definition's kind. Empty means that an API server would take it as a new object.
///
/// `manifest` must have had its nulls pruned ([`prune_nulls`]). Its `status` is not looked at: an API server ignores it.
pub fn validate(definition: &Definition, manifest: &Value) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(object) = manifest.as_object() else {
        return vec![Violation {
            field: String::new(),
            message: "must be an object".to_owned(),
        }];
    };
    let mut judged = object.clone();
    judged.remove("status");
    let implied = ["apiVersion", "kind", "metadata"];
    let body: Map<String, Value> = judged
        .iter()
        .filter(|(key, _)| !implied.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    structure(
        definition.schema(),
        &Value::Object(body),
        "",
        &mut violations,
    );
    // Rules may assume the structure, as they do on the API server.
    if violations.is_empty() {
        let root = RootContext {
            api_version: format!("{GROUP}/{VERSION}"),
            api_group: GROUP.to_owned(),
            kind: definition.kind.clone(),
        };
        let judged = Value::Object(judged);
        if let Err(errors) =
            Validator::new().validate_with_context(definition.schema(), &judged, None, Some(&root))
        {
            violations.extend(errors.into_vec().into_iter().map(|error| Violation {
                field: error.field_path,
                message: error.message,
            }));
        }
    }
    violations
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::definitions;

    /// The violations of a manifest as lines, or nothing for one that is fine.
    fn judge(kind: &str, spec: &Value) -> Vec<String> {
        let definitions = definitions().unwrap();
        let definition = definitions
            .iter()
            .find(|definition| definition.kind == kind)
            .unwrap();
        let mut manifest = json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": { "name": "a-name" }, "spec": spec,
        });
        prune_nulls(&mut manifest);
        validate(definition, &manifest)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_an_api_server_takes_passes() {
        assert_eq!(judge("ProxyPool", &json!({})), [""; 0]);
        assert_eq!(
            judge(
                "ProxyPool",
                &json!({
                    "plan": { "apiUrl": "http://127.0.0.1:9000", "apiKeySecretRef": { "name": "plan", "key": "API_KEY" } },
                    "fallback": { "bedrock": { "region": "us-east-1", "credentialRef": { "name": "main" } } },
                    "circuitBreaker": { "failureWindow": "60s", "resetTimeout": "30m", "failureRate": 50 },
                    "models": [{ "name": "claude-*", "bedrockModelId": "x", "price": { "input": "3", "output": "15.000001" } }],
                    "resources": { "requests": { "cpu": "100m", "memory": 1000 } },
                    "service": null,
                })
            ),
            [""; 0]
        );
        assert_eq!(
            judge(
                "ProxyUser",
                &json!({ "email": "a@example.com", "poolRef": { "name": "default" } })
            ),
            [""; 0]
        );
        assert_eq!(
            judge(
                "AccessKey",
                &json!({ "userRef": { "name": "alice" }, "secretName": "x", "expiresAt": "2030-01-31T00:00:00.5+02:00" })
            ),
            [""; 0]
        );
        assert_eq!(
            judge(
                "BedrockCredential",
                &json!({ "region": "us-east-1", "auth": { "podIdentity": {} } })
            ),
            [""; 0]
        );
    }

    #[test]
    fn violations_name_the_field_and_the_fix() {
        let cases = [
            (
                "ProxyPool",
                json!({ "plan": { "apiUrl": "api.anthropic.com" } }),
                "spec.plan.apiUrl: must be an absolute URL without user, query or fragment, such as https://api.example.com",
            ),
            (
                "ProxyPool",
                json!({ "usageReportInterval": "30" }),
                "spec.usageReportInterval: must be a whole number with a unit: 30s, 5m or 1h",
            ),
            (
                "ProxyPool",
                json!({ "replicas": "2" }),
                "spec.replicas: must be a whole number, not a string",
            ),
            (
                "ProxyPool",
                json!({ "replicas": -1 }),
                "spec.replicas: must be at least 0",
            ),
            (
                "ProxyPool",
                json!({ "allowedNamespaces": { "from": "Selector" } }),
                "spec.allowedNamespaces: selector goes with from: Selector: set both, or neither",
            ),
            (
                "ProxyPool",
                json!({ "allowedNamespaces": { "from": "Some" } }),
                "spec.allowedNamespaces.from: must be one of Same, All, Selector",
            ),
            (
                "ProxyPool",
                json!({ "models": [{ "name": "a", "bedrockModelId": "x" }, { "name": "a", "bedrockModelId": "y" }] }),
                "spec.models[1]: repeats \"a\": leave one out",
            ),
            (
                "ProxyPool",
                json!({ "models": [{ "name": "a", "bedrockModelId": "x", "price": { "input": "3,0", "output": "1" } }] }),
                "spec.models[0].price.input: must be a quoted amount in US dollars with at most six decimals, such as \"3.00\"",
            ),
            (
                "ProxyPool",
                json!({ "resources": { "limits": { "cpu": "lots" } } }),
                "spec.resources.limits.cpu: must match ",
            ),
            ("ProxyUser", json!({}), "spec.email: is required: add it"),
            (
                "ProxyUser",
                json!({ "email": "alice" }),
                "spec.email: must be an email address such as alice@example.com",
            ),
            (
                "ProxyUser",
                json!({ "email": "a@b.c", "poolref": { "name": "x" } }),
                "spec.poolref: is unknown: use one of ",
            ),
            (
                "ProxyUser",
                json!({ "email": 5 }),
                "spec.email: must be a string, not a number: put it into quotes",
            ),
            (
                "AccessKey",
                json!({ "userRef": { "name": "alice" } }),
                "spec: set exactly one of secretName (Spillway makes the key) and existingSecretRef (you bring one)",
            ),
            (
                "AccessKey",
                json!({ "userRef": { "name": "Alice" }, "secretName": "x" }),
                "spec.userRef.name: must be the name of an object",
            ),
            (
                "AccessKey",
                json!({ "userRef": { "name": "a" }, "secretName": "x", "expiresAt": "tomorrow" }),
                "spec.expiresAt: must be a time such as 2030-01-31T00:00:00Z",
            ),
            (
                "AccessKey",
                json!({ "userRef": { "name": "a" }, "secretName": "x", "expiresAt": "9999-12-30T00:00:00Z" }),
                "spec.expiresAt: must be a time before 9999-12-30, such as 2030-01-31T00:00:00Z",
            ),
            (
                "BedrockCredential",
                json!({ "region": "us-east-1", "auth": {} }),
                "spec.auth: set exactly one of secretRef, apiKeySecretRef and podIdentity",
            ),
            (
                "BedrockCredential",
                json!({ "region": "virginia", "auth": { "podIdentity": {} } }),
                "spec.region: must be an AWS region such as us-east-1 or ap-northeast-2",
            ),
        ];
        for (kind, spec, expected) in cases {
            let violations = judge(kind, &spec);
            assert!(
                violations.len() == 1 && violations[0].starts_with(expected),
                "{kind} {spec}: {violations:?}"
            );
        }
    }

    #[test]
    fn a_pool_needs_a_name_that_a_service_can_bear() {
        let definitions = definitions().unwrap();
        let manifest = |name: &str| json!({ "metadata": { "name": name }, "spec": {} });
        assert_eq!(validate(&definitions[0], &manifest("default")), []);
        for name in ["a.b", &"a".repeat(51), "-a"] {
            assert_eq!(
                validate(&definitions[0], &manifest(name)).len(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn every_rule_compiles() {
        for definition in definitions().unwrap() {
            let compiled = kube_cel::compile_schema(definition.schema());
            assert!(
                !compiled.has_errors(),
                "{}: {:?}",
                definition.kind,
                compiled.compilation_errors()
            );
        }
    }
}
