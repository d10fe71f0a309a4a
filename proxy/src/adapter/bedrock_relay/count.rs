//! A Messages request as the input of Bedrock's `CountTokens`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::adapter::bedrock::models::ModelTraits;
use crate::adapter::bedrock_invoke::request::translate;
use crate::adapter::json;

/// `max_tokens` of a request that says nothing of thinking; counting generates none, but the model's body must have it.
const MAX_TOKENS: u64 = 4_096;

/// Why a request cannot be counted by Bedrock.
#[derive(Debug, thiserror::Error)]
#[error("the request has no form that bedrock counts")]
pub struct NotCountable(#[source] Box<dyn std::error::Error + Send + Sync>);

impl NotCountable {
    fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}

/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html>.
#[derive(Serialize)]
struct Input {
    input: InvokeModel,
}

#[derive(Serialize)]
struct InvokeModel {
    #[serde(rename = "invokeModel")]
    invoke_model: Body,
}

#[derive(Serialize)]
struct Body {
    body: String,
}

#[derive(Deserialize)]
struct Output {
    #[serde(rename = "inputTokens")]
    input_tokens: u64,
}

/// The body of a `CountTokens` call for a Messages `body` sent with these `anthropic-beta` values to the model of this id.
///
/// # Errors
/// The request cannot be expressed to Bedrock.
pub fn count_body<'a>(
    body: &[u8],
    betas: impl Iterator<Item = &'a str>,
    model_id: &str,
) -> Result<Bytes, NotCountable> {
    let invoke = translate(body, betas, ModelTraits::of(model_id)).map_err(NotCountable::new)?;
    let counted = countable(&invoke).map_err(NotCountable::new)?;
    let input = Input {
        input: InvokeModel {
            invoke_model: Body {
                body: STANDARD.encode(counted),
            },
        },
    };
    Ok(serde_json::to_vec(&input)
        .map_err(NotCountable::new)?
        .into())
}

/// What `CountTokens` answered; `None` if it is no count.
pub fn counted(answer: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Output>(answer)
        .ok()
        .map(|output| output.input_tokens)
}

/// An `InvokeModel` body in the form that is counted: `max_tokens` above the thinking budget, and no tools rather than none in
/// a list.
fn countable(invoke: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let invoke = std::str::from_utf8(invoke).map_err(serde::de::Error::custom)?;
    let [thinking, max_tokens, tools] = json::pick(invoke, ["thinking", "max_tokens", "tools"])?;
    let budget = thinking
        .and_then(|thinking| json::pick(thinking.get(), ["budget_tokens"]).ok())
        .and_then(|[budget]| json::count(budget))
        .unwrap_or_default();
    let enough = json::count(max_tokens)
        .filter(|given| *given > budget)
        .unwrap_or_else(|| MAX_TOKENS.max(budget.saturating_add(1)));
    let has_tools = tools.is_some_and(json::is_used);
    let mut out = Vec::with_capacity(invoke.len() + 32);
    out.extend_from_slice(format!("{{\"max_tokens\":{enough}").as_bytes());
    json::members::<serde_json::Error>(invoke, |name, value| {
        let is_left_out =
            name == "max_tokens" || !has_tools && matches!(name, "tools" | "tool_choice");
        if !is_left_out {
            out.push(b',');
            json::write_text(&mut out, name);
            out.push(b':');
            out.extend_from_slice(value.get().as_bytes());
        }
        Ok(())
    })?;
    out.push(b'}');
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const MODEL: &str = "anthropic.claude-opus-4-8";

    fn invoke_model(body: &Value, betas: &[&str]) -> Value {
        let sent = count_body(body.to_string().as_bytes(), betas.iter().copied(), MODEL).unwrap();
        let sent: Value = serde_json::from_slice(&sent).unwrap();
        let inner = sent["input"]["invokeModel"]["body"].as_str().unwrap();
        serde_json::from_slice(&STANDARD.decode(inner).unwrap()).unwrap()
    }

    #[test]
    fn a_request_becomes_an_invoke_body() {
        let body = json!({"model": "claude-x", "stream": true, "system": "s", "messages": [{"role": "user", "content": "a"}]});
        assert_eq!(
            invoke_model(&body, &["context-1m-2025-08-07"]),
            json!({
                "anthropic_version": "bedrock-2023-05-31", "anthropic_beta": ["context-1m-2025-08-07"],
                "system": "s", "messages": [{"role": "user", "content": "a"}], "max_tokens": MAX_TOKENS
            })
        );
    }

    #[test]
    fn max_tokens_is_above_the_thinking_budget() {
        for (thinking, given, sent) in [
            (
                json!({"type": "enabled", "budget_tokens": 10_000}),
                json!(null),
                10_001,
            ),
            (
                json!({"type": "enabled", "budget_tokens": 10_000}),
                json!(10_000),
                10_001,
            ),
            (
                json!({"type": "enabled", "budget_tokens": 1_024}),
                json!(null),
                MAX_TOKENS,
            ),
            (
                json!({"type": "enabled", "budget_tokens": 1_024}),
                json!(2_000),
                2_000,
            ),
            (json!({"type": "adaptive"}), json!(9), 9),
        ] {
            let body = json!({"messages": [], "thinking": thinking, "max_tokens": given});
            assert_eq!(invoke_model(&body, &[])["max_tokens"], sent, "{body}");
        }
    }

    #[test]
    fn an_empty_list_of_tools_goes() {
        for tools in [json!([]), json!(null)] {
            let body = json!({"messages": [], "tools": tools, "tool_choice": {"type": "auto"}});
            let sent = invoke_model(&body, &[]);
            assert!(
                sent.get("tools").is_none() && sent.get("tool_choice").is_none(),
                "{sent}"
            );
        }
        let body =
            json!({"messages": [], "tools": [{"name": "a"}], "tool_choice": {"type": "auto"}});
        assert_eq!(invoke_model(&body, &[])["tools"], json!([{"name": "a"}]));
    }

    #[test]
    fn what_bedrock_cannot_be_told_is_not_counted() {
        let body = json!({"messages": [], "container": "c"});
        assert!(count_body(body.to_string().as_bytes(), std::iter::empty(), MODEL).is_err());
        assert_eq!(counted(br#"{"inputTokens":7,"x":1}"#), Some(7));
        assert_eq!(counted(br#"{"inputTokens":-7}"#), None);
    }
}
