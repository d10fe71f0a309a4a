//! A file of manifests, read and judged as an API server would.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use spillway_crds::validate::{prune_nulls, validate};
use spillway_crds::{
    AccessKey, BedrockCredential, Definition, GROUP, ProxyPool, ProxyUser, VERSION, definitions,
};

/// resourceVersion of a Secret in a file: the fingerprint of its content tells changes apart.
const FROM_FILE: &str = "file";

/// What is wrong with a file. Never carries a value of a Secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines.join("\n  "))]
pub struct Refused {
    /// One line for each thing that is wrong.
    pub lines: Vec<String>,
}

/// A resource of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Resource {
    ProxyPool(Box<ProxyPool>),
    ProxyUser(ProxyUser),
    AccessKey(AccessKey),
    BedrockCredential(BedrockCredential),
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, meta) = match self {
            Self::ProxyPool(resource) => ("ProxyPool", &resource.metadata),
            Self::ProxyUser(resource) => ("ProxyUser", &resource.metadata),
            Self::AccessKey(resource) => ("AccessKey", &resource.metadata),
            Self::BedrockCredential(resource) => ("BedrockCredential", &resource.metadata),
        };
        write!(
            formatter,
            "{kind} {}/{}",
            meta.namespace.as_deref().unwrap_or_default(),
            meta.name.as_deref().unwrap_or_default()
        )
    }
}

/// By namespace and name.
pub(super) type Named<K> = BTreeMap<(String, String), K>;

/// Everything that a file holds.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    pub(super) pools: Named<ProxyPool>,
    pub(super) users: Named<ProxyUser>,
    pub(super) access_keys: Named<AccessKey>,
    pub(super) bedrock_credentials: Named<BedrockCredential>,
    pub(super) secrets: Named<Secret>,
}

impl Manifests {
    /// Reads a stream of YAML documents. What names no namespace gets `namespace`.
    pub(super) fn parse(text: &str, namespace: &str) -> Result<Self, Refused> {
        let definitions = definitions().map_err(|error| Refused {
            lines: vec![error.to_string()],
        })?;
        let mut manifests = Self::default();
        let mut lines = Vec::new();
        for (index, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
            let place = format!("document {}", index + 1);
            match Value::deserialize(document) {
                Ok(Value::Null) => {}
                Ok(manifest) => {
                    if let Err(problems) = manifests.add(manifest, namespace, &definitions) {
                        lines.extend(
                            problems
                                .into_iter()
                                .map(|problem| format!("{place}: {problem}")),
                        );
                    }
                }
                Err(error) => {
                    lines.push(format!("{place}: this is no YAML: {error}"));
                    break;
                }
            }
        }
        if lines.is_empty() {
            Ok(manifests)
        } else {
            Err(Refused { lines })
        }
    }

    /// The namespaces in which the file has pools.
    pub(super) fn pool_namespaces(&self) -> BTreeSet<String> {
        self.pools
            .keys()
            .map(|(namespace, _)| namespace.clone())
            .collect()
    }

    /// The resources, each after those that it may refer to.
    pub(super) fn in_order(&self) -> Vec<Resource> {
        let credentials = self
            .bedrock_credentials
            .values()
            .cloned()
            .map(Resource::BedrockCredential);
        let pools = self
            .pools
            .values()
            .cloned()
            .map(|pool| Resource::ProxyPool(Box::new(pool)));
        let users = self.users.values().cloned().map(Resource::ProxyUser);
        let keys = self.access_keys.values().cloned().map(Resource::AccessKey);
        credentials.chain(pools).chain(users).chain(keys).collect()
    }

    fn add(
        &mut self,
        mut manifest: Value,
        namespace: &str,
        definitions: &[Definition],
    ) -> Result<(), Vec<String>> {
        prune_nulls(&mut manifest);
        let text = |pointer: &str| {
            manifest
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let (api_version, kind) = (
            text("/apiVersion").unwrap_or_default(),
            text("/kind").unwrap_or_default(),
        );
        let Some(name) = text("/metadata/name").filter(|name| is_object_name(name)) else {
            return Err(vec![format!(
                "{}: metadata.name must be lower-case letters, digits, '-' and '.'",
                or_unknown(&kind)
            )]);
        };
        let namespace = text("/metadata/namespace").unwrap_or_else(|| namespace.to_owned());
        let place = format!("{} {namespace}/{name}", or_unknown(&kind));
        let at = |problem: String| vec![format!("{place}: {problem}")];
        if (api_version.as_str(), kind.as_str()) == ("v1", "Secret") {
            let secret = secret(&manifest, &namespace, &name).map_err(at)?;
            return insert(&mut self.secrets, secret).map_err(at);
        }
        let definition = definitions
            .iter()
            .find(|definition| definition.kind == kind);
        let Some(definition) = definition.filter(|_| api_version == format!("{GROUP}/{VERSION}"))
        else {
            return Err(at(format!(
                "apiVersion {api_version:?} with kind {kind:?} is not known: use {GROUP}/{VERSION} with ProxyPool, ProxyUser, \
                 AccessKey or BedrockCredential, or v1 with Secret"
            )));
        };
        let violations = validate(definition, &manifest);
        if !violations.is_empty() {
            return Err(violations
                .into_iter()
                .map(|violation| format!("{place}: {violation}"))
                .collect());
        }
        if let Some(object) = manifest.as_object_mut() {
            object.remove("status");
        }
        manifest["metadata"]["namespace"] = namespace.into();
        match definition.kind.as_str() {
            "ProxyPool" => typed(manifest).and_then(|resource| insert(&mut self.pools, resource)),
            "ProxyUser" => typed(manifest).and_then(|resource| insert(&mut self.users, resource)),
            "AccessKey" => {
                typed(manifest).and_then(|resource| insert(&mut self.access_keys, resource))
            }
            _ => {
                typed(manifest).and_then(|resource| insert(&mut self.bedrock_credentials, resource))
            }
        }
        .map_err(at)
    }
}

fn or_unknown(kind: &str) -> &str {
    if kind.is_empty() {
        "a manifest without kind"
    } else {
        kind
    }
}

fn is_object_name(name: &str) -> bool {
    let ends = |byte: Option<u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    name.len() <= 253
        && ends(name.bytes().next())
        && ends(name.bytes().last())
        && name.bytes().all(|byte| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.')
        })
}

fn typed<K: DeserializeOwned>(manifest: Value) -> Result<K, String> {
    serde_json::from_value(manifest).map_err(|error| error.to_string())
}

/// Adds a resource, with a uid made of its name: without a cluster a resource of the same name is the same.
fn insert<K: ResourceExt>(all: &mut Named<K>, mut resource: K) -> Result<(), String> {
    let (namespace, name) = (
        resource.namespace().unwrap_or_default(),
        resource.name_any(),
    );
    resource.meta_mut().uid = Some(format!("{FROM_FILE}:{namespace}/{name}"));
    match all.insert((namespace, name), resource) {
        None => Ok(()),
        Some(_) => Err("stands twice in the file: leave one out".to_owned()),
    }
}

fn secret(manifest: &Value, namespace: &str, name: &str) -> Result<Secret, String> {
    let mut data = BTreeMap::new();
    for (key, value) in entries(manifest, "data")? {
        let bytes = serde_json::from_value::<ByteString>(value)
            .map_err(|_| format!("data.{key} must be base64; text goes into stringData"))?;
        data.insert(key, bytes);
    }
    for (key, value) in entries(manifest, "stringData")? {
        let Value::String(text) = value else {
            return Err(format!(
                "stringData.{key} must be a string: put it into quotes"
            ));
        };
        data.insert(key, ByteString(text.into_bytes()));
    }
    let metadata: ObjectMeta = serde_json::from_value(manifest["metadata"].clone())
        .map_err(|error| format!("metadata: {error}"))?;
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            resource_version: Some(FROM_FILE.to_owned()),
            ..metadata
        },
        data: Some(data),
        type_: manifest["type"].as_str().map(str::to_owned),
        ..Secret::default()
    })
}

fn entries(manifest: &Value, field: &str) -> Result<Map<String, Value>, String> {
    match manifest.get(field) {
        None => Ok(Map::new()),
        Some(Value::Object(entries)) => Ok(entries.clone()),
        Some(_) => Err(format!("{field} must be an object of keys and values")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "apiVersion: spillway.dev/v1alpha1\nkind: ProxyUser\nmetadata: {name: alice}\nspec: {email: a@example.com}\n";

    fn refused(text: &str) -> String {
        Manifests::parse(text, "default").unwrap_err().to_string()
    }

    #[test]
    fn resources_and_secrets_are_read() {
        let text = format!(
            "---\n{USER}---\napiVersion: v1\nkind: Secret\nmetadata: {{name: s, namespace: other}}\n\
             data: {{A: YQ==}}\nstringData: {{B: b}}\n---\n"
        );
        let manifests = Manifests::parse(&text, "default").unwrap();
        let alice = &manifests.users[&("default".to_owned(), "alice".to_owned())];
        assert_eq!(alice.metadata.uid.as_deref(), Some("file:default/alice"));
        let data = manifests.secrets[&("other".to_owned(), "s".to_owned())]
            .data
            .as_ref()
            .unwrap();
        assert_eq!(
            (data["A"].0.as_slice(), data["B"].0.as_slice()),
            (b"a".as_slice(), b"b".as_slice())
        );
        assert_eq!(manifests.in_order().len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_by_document_resource_and_field() {
        let cases = [
            ("kind: [", "document 1: this is no YAML"),
            (
                "kind: ProxyUser\nmetadata: {name: Alice}\n",
                "document 1: ProxyUser: metadata.name must be lower-case",
            ),
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
                "document 1: ConfigMap default/c: apiVersion \"v1\" with kind",
            ),
            (
                "apiVersion: spillway.dev/v1\nkind: ProxyUser\nmetadata: {name: c}\n",
                "use spillway.dev/v1alpha1",
            ),
            (
                "apiVersion: spillway.dev/v1alpha1\nkind: ProxyUser\nmetadata: {name: c}\nspec: {mail: x}\n",
                "document 1: ProxyUser default/c: spec.email: is required",
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {A: 'not base64, very-secret'}\n",
                "data.A must be base64",
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {A: 12345}\n",
                "stringData.A must be a string",
            ),
        ];
        for (text, words) in cases {
            let message = refused(text);
            assert!(message.contains(words), "{message}");
            assert!(
                !message.contains("very-secret") && !message.contains("12345"),
                "{message}"
            );
        }
    }

    #[test]
    fn every_document_is_judged() {
        let broken = USER.replace("email: a@example.com", "email: alice");
        let message = refused(&format!("{broken}---\n{USER}---\n{USER}"));
        assert!(
            message.contains(
                "document 1: ProxyUser default/alice: spec.email: must be an email address"
            ),
            "{message}"
        );
        assert!(
            message.contains("document 3: ProxyUser default/alice: stands twice"),
            "{message}"
        );
    }
}
