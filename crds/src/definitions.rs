//! The custom resource definitions that the types generate, made ready for an API server.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};

/// A custom resource definition of Spillway.
#[derive(Clone, Debug, PartialEq)]
pub struct Definition {
    /// The kind, such as `ProxyPool`.
    pub kind: String,
    /// The plural name, such as `proxypools`; also the stem of the generated file's name.
    pub plural: String,
    /// The whole definition as JSON.
    pub manifest: Value,
}

impl Definition {
    /// The schema of the one version.
    pub fn schema(&self) -> &Value {
        &self.manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    /// The definition as YAML.
    pub fn yaml(&self) -> Result<String, serde_yaml::Error> {
        serde_yaml::to_string(&self.manifest)
    }

    fn of(crd: CustomResourceDefinition) -> Result<Self, serde_json::Error> {
        let kind = crd.spec.names.kind.clone();
        let plural = crd.spec.names.plural.clone();
        let mut manifest = serde_json::to_value(crd)?;
        if let Some(schema) = manifest.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
            tidy(schema);
            if let Some(Value::Object(status)) = schema.pointer_mut("/properties/status") {
                // A new object must not read as current before its first reconcile (kstatus).
                status.insert("default".to_owned(), json!({ "observedGeneration": -1 }));
            }
            schema.sort_all_objects();
        }
        Ok(Self {
            kind,
            plural,
            manifest,
        })
    }
}

/// All of Spillway's definitions, in the order in which a person meets them.
///
/// # Errors
/// None in practice: the definitions are values of this crate that serialize to JSON.
pub fn definitions() -> Result<Vec<Definition>, serde_json::Error> {
    [
        ProxyPool::crd(),
        ProxyUser::crd(),
        AccessKey::crd(),
        BedrockCredential::crd(),
    ]
    .into_iter()
    .map(Definition::of)
    .collect()
}

/// Drops what the derive adds and an API server would warn about or misread, throughout a schema.
fn tidy(schema: &mut Value) {
    let Value::Object(object) = schema else {
        return;
    };
    // Without `nullable` the API server prunes an explicit null, so that `has(self.x)` in a rule means a value.
    object.remove("nullable");
    object.remove("title");
    if object
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        object.remove("format");
    }
    for limit in ["minimum", "maximum"] {
        if let Some(whole) = object
            .get(limit)
            .and_then(Value::as_f64)
            .and_then(|limit| format!("{limit:.0}").parse::<i64>().ok())
        {
            object.insert(limit.to_owned(), whole.into());
        }
    }
    if let Some(Value::String(description)) = object.get_mut("description") {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for key in ["properties", "patternProperties"] {
        if let Some(Value::Object(properties)) = object.get_mut(key) {
            properties.values_mut().for_each(tidy);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            tidy(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;

    use super::*;

    fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Map<String, Value>)) {
        let Value::Object(object) = schema else {
            return;
        };
        visit(path, object);
        if let Some(Value::Object(properties)) = object.get("properties") {
            for (name, inner) in properties {
                walk(inner, &format!("{path}.{name}"), visit);
            }
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = object.get(key) {
                walk(inner, &format!("{path}.{key}"), visit);
            }
        }
    }

    #[test]
    fn every_string_list_and_map_is_bounded() {
        for definition in definitions().unwrap() {
            walk(
                definition.schema(),
                &definition.kind,
                &mut |path, schema| {
                    let bounded = match schema.get("type").and_then(Value::as_str) {
                        Some("string") => {
                            ["maxLength", "enum"]
                                .iter()
                                .any(|key| schema.contains_key(*key))
                                || schema
                                    .get("format")
                                    .is_some_and(|format| format == "date-time")
                        }
                        Some("array") => schema.contains_key("maxItems"),
                        Some("object") if schema.contains_key("additionalProperties") => {
                            schema.contains_key("maxProperties")
                        }
                        _ => true,
                    };
                    assert!(bounded, "{path} has no bound");
                },
            );
        }
    }

    #[test]
    fn every_field_says_what_it_is_for() {
        for definition in definitions().unwrap() {
            walk(
                definition.schema(),
                &definition.kind,
                &mut |path, schema| {
                    let implied = ["metadata", "items", "additionalProperties"]
                        .iter()
                        .any(|name| path.rsplit('.').next() == Some(name));
                    assert!(
                        implied || schema.contains_key("description"),
                        "{path} has no description"
                    );
                },
            );
        }
    }

    #[test]
    fn new_objects_do_not_read_as_current() {
        for definition in definitions().unwrap() {
            assert_eq!(
                definition.schema()["properties"]["status"]["default"],
                json!({ "observedGeneration": -1 })
            );
        }
    }
}
