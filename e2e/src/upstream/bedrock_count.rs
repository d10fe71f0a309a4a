//! What `CountTokens` takes: a request of one of the other operations, of a model that is no inference profile.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{bedrock_invoke, converse_rules, received::Prompt};

/// What is wrong with a call, in the service's words.
pub(crate) fn problem(model: &str, body: &[u8], trusts_foreign: bool) -> Option<String> {
    // Recorded: inference profiles and ARNs are not known to it.
    if !model.starts_with("anthropic.") {
        return Some("The provided model doesn't support counting tokens.".to_owned());
    }
    match inner(body) {
        None => {
            Some("Malformed input request, please reformat your input and try again.".to_owned())
        }
        Some(Counted::Converse(body)) => converse_rules::problem(model, &body, trusts_foreign),
        Some(Counted::InvokeModel(body)) => bedrock_invoke::problem(model, &body, trusts_foreign)
            .or_else(|| {
                serde_json::from_slice(&body)
                    .ok()
                    .and_then(|body| limits(&body))
            }),
    }
}

/// Rules of the model behind `InvokeModel`, which counting does not relax.
fn limits(body: &Value) -> Option<String> {
    let budget = body["thinking"]["budget_tokens"].as_u64();
    if budget.is_some_and(|budget| body["max_tokens"].as_u64().is_none_or(|max| max <= budget)) {
        return Some("`max_tokens` must be greater than `thinking.budget_tokens`.".to_owned());
    }
    let no_tools = body["tools"].as_array().is_some_and(Vec::is_empty);
    no_tools.then(|| "tools: List should have at least 1 item after validation, not 0".to_owned())
}

/// The count of a call without a problem.
pub(crate) fn tokens(body: &[u8]) -> u64 {
    match inner(body) {
        None => 0,
        Some(Counted::Converse(body) | Counted::InvokeModel(body)) => {
            Prompt::parse(&body).input_tokens
        }
    }
}

enum Counted {
    InvokeModel(Vec<u8>),
    Converse(Vec<u8>),
}

fn inner(body: &[u8]) -> Option<Counted> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let input = body["input"].as_object()?;
    let (kind, value) = input.iter().next().filter(|_| input.len() == 1)?;
    match kind.as_str() {
        "invokeModel" => {
            let body = STANDARD.decode(value["body"].as_str()?).ok()?;
            Some(Counted::InvokeModel(body))
        }
        "converse" => Some(Counted::Converse(value.to_string().into_bytes())),
        _ => None,
    }
}
