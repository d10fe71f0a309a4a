//! The structural part of a schema, as an API server judges it.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use regex::Regex;
use serde_json::{Map, Value};

use super::Violation;

/// Judges `value` by the structural part of `schema`: types, fields, lengths, ranges, lists.
pub(super) fn structure(
    schema: &Value,
    value: &Value,
    path: &str,
    violations: &mut Vec<Violation>,
) {
    let mut wrong = |message: String| {
        violations.push(Violation {
            field: path.to_owned(),
            message,
        });
    };
    if schema["x-kubernetes-int-or-string"] == Value::Bool(true) {
        match value {
            Value::Number(_) => {}
            Value::String(text) => text_rules(schema, text).into_iter().for_each(wrong),
            other => wrong(format!(
                "must be a number or a string, not {}",
                type_name(other)
            )),
        }
        return;
    }
    let expected = schema["type"].as_str().unwrap_or_default();
    match (expected, value) {
        ("object", Value::Object(object)) => object_structure(schema, object, path, violations),
        ("array", Value::Array(items)) => array_structure(schema, items, path, violations),
        ("string", Value::String(text)) => text_rules(schema, text).into_iter().for_each(wrong),
        ("integer", Value::Number(number)) => match number.as_i64() {
            Some(number) => range_rules(schema, number).into_iter().for_each(wrong),
            None => wrong(format!("must be a whole number, not {number}")),
        },
        ("boolean", Value::Bool(_)) => {}
        ("string", other @ (Value::Number(_) | Value::Bool(_))) => {
            wrong(format!(
                "must be a string, not {}: put it into quotes",
                type_name(other)
            ));
        }
        (_, other) => wrong(format!(
            "must be {}, not {}",
            with_article(expected),
            type_name(other)
        )),
    }
}

fn object_structure(
    schema: &Value,
    object: &Map<String, Value>,
    path: &str,
    violations: &mut Vec<Violation>,
) {
    let properties = schema["properties"].as_object();
    for name in schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        if !object.contains_key(name) {
            violations.push(Violation {
                field: join(path, name),
                message: "is required: add it".to_owned(),
            });
        }
    }
    if let Some(max) = schema["maxProperties"]
        .as_u64()
        .filter(|max| object.len() as u64 > *max)
    {
        violations.push(Violation {
            field: path.to_owned(),
            message: format!("must have at most {max} entries"),
        });
    }
    for (name, inner) in object {
        let field = join(path, name);
        if let Some(inner_schema) = properties.and_then(|properties| properties.get(name)) {
            structure(inner_schema, inner, &field, violations);
        } else if schema["additionalProperties"].is_object() {
            structure(&schema["additionalProperties"], inner, &field, violations);
        } else {
            let known = properties
                .map(|properties| properties.keys().cloned().collect::<Vec<_>>().join(", "))
                .unwrap_or_default();
            let message = if known.is_empty() {
                "is unknown: leave it out".to_owned()
            } else {
                format!("is unknown: use one of {known}")
            };
            violations.push(Violation { field, message });
        }
    }
}

fn array_structure(schema: &Value, items: &[Value], path: &str, violations: &mut Vec<Violation>) {
    if let Some(max) = schema["maxItems"]
        .as_u64()
        .filter(|max| items.len() as u64 > *max)
    {
        violations.push(Violation {
            field: path.to_owned(),
            message: format!("must have at most {max} entries"),
        });
    }
    let identity = |item: &Value| match schema["x-kubernetes-list-type"].as_str() {
        Some("set") => Some(item.to_string()),
        Some("map") => {
            let keys = schema["x-kubernetes-list-map-keys"].as_array()?;
            Some(
                keys.iter()
                    .filter_map(Value::as_str)
                    .map(|key| item[key].to_string())
                    .collect::<Vec<_>>()
                    .join(","),
            )
        }
        _ => None,
    };
    let mut seen = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let field = format!("{path}[{index}]");
        if let Some(identity) = identity(item)
            && !seen.insert(identity.clone())
        {
            violations.push(Violation {
                field: field.clone(),
                message: format!("repeats {identity}: leave one out"),
            });
        }
        structure(&schema["items"], item, &field, violations);
    }
}

fn text_rules(schema: &Value, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let length = text.chars().count() as u64;
    if let Some(min) = schema["minLength"].as_u64().filter(|min| length < *min) {
        wrong.push(format!("must have at least {min} characters"));
    }
    if let Some(max) = schema["maxLength"].as_u64().filter(|max| length > *max) {
        wrong.push(format!("must have at most {max} characters"));
    }
    if let Some(values) = schema["enum"]
        .as_array()
        .filter(|values| !values.iter().any(|value| value == text))
    {
        let values: Vec<_> = values.iter().filter_map(Value::as_str).collect();
        wrong.push(format!("must be one of {}", values.join(", ")));
    }
    if schema["format"] == "date-time" && text.parse::<Timestamp>().is_err() {
        wrong.push("must be a time such as 2030-01-31T00:00:00Z".to_owned());
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && Regex::new(pattern).is_ok_and(|regex| !regex.is_match(text))
    {
        wrong.push(format!("must match {pattern}"));
    }
    wrong
}

fn range_rules(schema: &Value, number: i64) -> Vec<String> {
    let mut wrong = Vec::new();
    if let Some(min) = schema["minimum"].as_i64().filter(|min| number < *min) {
        wrong.push(format!("must be at least {min}"));
    }
    if let Some(max) = schema["maximum"].as_i64().filter(|max| number > *max) {
        wrong.push(format!("must be at most {max}"));
    }
    wrong
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn with_article(expected: &str) -> &str {
    match expected {
        "object" => "an object",
        "array" => "a list",
        "string" => "a string",
        "integer" => "a whole number",
        "boolean" => "true or false",
        other => other,
    }
}
