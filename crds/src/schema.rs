//! Schema fragments shared by the kinds. Every string and list is bounded: CEL's cost budget is estimated from the
//! bounds, and an unbounded field would make the API server refuse the whole definition.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

fn rule(rule: &str, message: &str) -> Value {
    json!([{ "rule": rule, "message": message }])
}

/// The name of a Kubernetes object (DNS-1123 subdomain).
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "x-kubernetes-validations": rule(
            "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
            "must be the name of an object: lower-case letters, digits, '-' and '.', such as my-secret",
        ),
    })
}

/// A time at which something ends. The format alone also lets through what is no RFC 3339, and years beyond reckoning.
pub(crate) fn expiry(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 64,
        "x-kubernetes-validations": rule(
            "self < timestamp('9999-12-30T00:00:00Z')",
            "must be a time before 9999-12-30, such as 2030-01-31T00:00:00Z: leave it out for a key that never expires",
        ),
    })
}

/// A namespace (DNS-1123 label).
pub(crate) fn namespace_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 63,
        "x-kubernetes-validations": rule(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "must be the name of a namespace: lower-case letters, digits and '-'",
        ),
    })
}

/// The key of an entry in a Secret's `data`.
pub(crate) fn secret_data_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 253,
        "x-kubernetes-validations": rule(
            "self.matches('^[-._a-zA-Z0-9]+$')",
            "must be a key of the Secret's data: letters, digits, '-', '_' and '.'",
        ),
    })
}

/// Absolute `http` or `https` URL without user information, query or fragment.
pub(crate) fn endpoint_url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 2048,
        "x-kubernetes-validations": rule(
            "self.matches('^https?://[^/?#@ ]+(/[^?#@ ]*)?$') && isURL(self)",
            "must be an absolute URL without user, query or fragment, such as https://api.example.com",
        ),
    })
}

/// An AWS region.
pub(crate) fn aws_region(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 32,
        "x-kubernetes-validations": rule(
            "self.matches('^[a-z]{2}(-[a-z]+)+-[0-9]{1,2}$')",
            "must be an AWS region such as us-east-1 or ap-northeast-2",
        ),
    })
}

/// Amount in US dollars with at most six decimals.
pub(crate) fn usd(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "minLength": 1,
        "maxLength": 16,
        "x-kubernetes-validations": rule(
            r"self.matches('^[0-9]{1,6}(\\.[0-9]{1,6})?$')",
            "must be a quoted amount in US dollars with at most six decimals, such as \"3.00\"",
        ),
    })
}

/// Model names and globs (`*` stands for any characters).
pub(crate) fn model_globs(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "x-kubernetes-list-type": "set",
        "items": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
        },
    })
}

/// Standard conditions, bounded as in `k8s.io/apimachinery/pkg/apis/meta/v1`.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string", "maxLength": 316,
                    "description": "What the condition is about. `Ready` sums the others up.",
                },
                "status": {
                    "type": "string", "enum": ["True", "False", "Unknown"],
                    "description": "Whether the condition holds.",
                },
                "observedGeneration": {
                    "type": "integer", "format": "int64", "minimum": 0,
                    "description": "The metadata.generation that the condition was judged from.",
                },
                "lastTransitionTime": {
                    "type": "string", "format": "date-time",
                    "description": "When the status last changed.",
                },
                "reason": {
                    "type": "string", "minLength": 1, "maxLength": 1024,
                    "description": "Why, in one CamelCase word that programs can match.",
                },
                "message": {
                    "type": "string", "maxLength": 32768,
                    "description": "Why, in a sentence that names the field and the fix.",
                },
            },
        },
    })
}

/// Requests and limits of the proxy container.
pub(crate) fn container_resources(_: &mut SchemaGenerator) -> Schema {
    let quantities = |description: &str| {
        json!({
            "type": "object",
            "description": description,
            "maxProperties": 16,
            "additionalProperties": {
                "x-kubernetes-int-or-string": true,
                "anyOf": [{ "type": "integer" }, { "type": "string" }],
                "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
                "maxLength": 64,
            },
        })
    };
    json_schema!({
        "type": "object",
        "properties": {
            "requests": quantities("What the scheduler sets aside for each proxy, such as cpu: 100m."),
            "limits": quantities("What each proxy may use at most, such as memory: 256Mi."),
        },
    })
}

/// Labels that a namespace must carry.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    let value = json!({ "type": "string", "maxLength": 63 });
    json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "type": "object",
                "description": "Labels and the values they must have. All must hold.",
                "maxProperties": 32,
                "additionalProperties": value,
            },
            "matchExpressions": {
                "type": "array",
                "description": "Requirements on labels. All must hold.",
                "maxItems": 32,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "type": "string", "maxLength": 317,
                            "description": "The label's key.",
                        },
                        "operator": {
                            "type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                            "description": "How the label's value relates to values.",
                        },
                        "values": {
                            "type": "array", "maxItems": 64, "items": value,
                            "description": "Values for In and NotIn; empty for Exists and DoesNotExist.",
                        },
                    },
                },
            },
        },
    })
}

/// Annotations to put on a generated object.
pub(crate) fn annotations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "maxLength": 4096 },
    })
}
