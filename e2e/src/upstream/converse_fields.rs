//! Fields of Converse's requests besides the conversation and its tools.

use serde_json::Value;

use super::bedrock_invoke;

/// Members of a request.
const MEMBERS: [&str; 11] = [
    "messages",
    "system",
    "inferenceConfig",
    "toolConfig",
    "guardrailConfig",
    "additionalModelRequestFields",
    "additionalModelResponseFieldPaths",
    "requestMetadata",
    "performanceConfig",
    "serviceTier",
    "outputConfig",
];

/// A list in an object, or nothing.
pub(crate) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value[name]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
}

/// What is wrong with the names of members and with how to sample.
pub(crate) fn check_members(body: &Value) -> Result<(), String> {
    let unknown = body.as_object().and_then(|members| {
        members
            .keys()
            .find(|name| !MEMBERS.contains(&name.as_str()))
    });
    if let Some(name) = unknown {
        return Err(format!("{name}: no such member of ConverseRequest"));
    }
    let sampling = &body["inferenceConfig"];
    let is_count = |value: &Value| value.as_u64().is_some_and(|count| count > 0);
    if sampling
        .get("maxTokens")
        .is_some_and(|value| !is_count(value))
    {
        return Err("inferenceConfig.maxTokens must be at least 1".to_owned());
    }
    for name in ["temperature", "topP"] {
        let is_share = |value: &Value| {
            value
                .as_f64()
                .is_some_and(|share| (0.0..=1.0).contains(&share))
        };
        if sampling.get(name).is_some_and(|value| !is_share(value)) {
            return Err(format!("inferenceConfig.{name} must be between 0 and 1"));
        }
    }
    Ok(())
}

/// What goes on to the model as it is: Claude's own fields for Claude, and no second choice of tools.
pub(crate) fn check_model_fields(body: &Value, is_claude: bool) -> Result<(), String> {
    let fields = &body["additionalModelRequestFields"];
    if !is_claude {
        let claudes = [
            "anthropic_beta",
            "thinking",
            "output_config",
            "tools",
            "tool_choice",
        ];
        return match claudes.iter().find(|name| fields.get(**name).is_some()) {
            Some(name) => Err(format!(
                "Malformed input request: extraneous key [{name}] is not permitted, please reformat your input and try again."
            )),
            None => Ok(()),
        };
    }
    if fields.get("tool_choice").is_some() {
        let tools = &body["toolConfig"];
        if tools.get("toolChoice").is_some()
            || tools.get("tools").is_none() && fields.get("tools").is_none()
        {
            return Err("The model returned the following errors: tool_choice: Extra inputs are not permitted".to_owned());
        }
        if fields["tool_choice"]["type"].as_str().is_none() {
            return Err(
                "The model returned the following errors: tool_choice.type: Field required"
                    .to_owned(),
            );
        }
    }
    if fields.get("context_management").is_some()
        && !list(fields, "anthropic_beta").contains(&Value::from("context-management-2025-06-27"))
    {
        return Err("The model returned the following errors: context_management: Extra inputs are not permitted".to_owned());
    }
    let betas = list(fields, "anthropic_beta");
    if fields.get("anthropic_beta").is_some() && betas.is_empty()
        || !betas
            .iter()
            .all(|beta| beta.as_str().is_some_and(bedrock_invoke::is_beta))
    {
        return Err("The model returned the following errors: invalid beta flag".to_owned());
    }
    Ok(())
}
