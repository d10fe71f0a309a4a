//! What is known of a call in Bedrock's format: its model is in the path, and its body is Bedrock's to judge.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::adapter::bedrock_relay::Operation;
use crate::call::RequestHead;
use crate::http::head::{header_id, session_of};

#[derive(Deserialize, Default)]
struct Fields<'a> {
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
    #[serde(borrow, rename = "inferenceConfig")]
    inference: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Inference {
    #[serde(rename = "maxTokens")]
    max_tokens: u64,
}

/// Reads the head of a call; whatever cannot be read is not known.
pub fn bedrock_head(
    model: String,
    operation: Operation,
    body: &[u8],
    headers: &HeaderMap,
) -> RequestHead {
    let fields: Fields<'_> = serde_json::from_slice(body).unwrap_or_default();
    let of_invoke = || serde_json::from_str(fields.max_tokens?.get()).ok();
    let of_converse = || {
        serde_json::from_str::<Inference>(fields.inference?.get())
            .ok()
            .map(|inference| inference.max_tokens)
    };
    RequestHead {
        model,
        stream: operation.is_stream(),
        max_tokens: of_invoke().or_else(of_converse),
        session_id: header_id(headers, "x-claude-code-session-id").or_else(|| {
            fields
                .metadata
                .and_then(|metadata| session_of(metadata.get().as_bytes()))
        }),
        agent_id: header_id(headers, "x-claude-code-agent-id"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(operation: Operation, body: &str) -> RequestHead {
        bedrock_head(
            "m".to_owned(),
            operation,
            body.as_bytes(),
            &HeaderMap::new(),
        )
    }

    #[test]
    fn a_call_says_its_bounds_in_either_api() {
        let invoke = head(
            Operation::InvokeStream,
            r#"{"max_tokens":7,"metadata":{"user_id":"{\"session_id\":\"s-1\"}"},"messages":[]}"#,
        );
        assert_eq!(
            (
                invoke.stream,
                invoke.max_tokens,
                invoke.session_id.as_deref()
            ),
            (true, Some(7), Some("s-1"))
        );
        let converse = head(
            Operation::Converse,
            r#"{"inferenceConfig":{"maxTokens":9,"x":[]}}"#,
        );
        assert_eq!((converse.stream, converse.max_tokens), (false, Some(9)));
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        let deep = format!(
            r#"{{"metadata":{}1{}}}"#,
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        for body in [
            "",
            "[]",
            r#"{"max_tokens":"x"}"#,
            r#"{"inferenceConfig":[]}"#,
            &deep,
        ] {
            let head = head(Operation::Invoke, body);
            assert_eq!((head.max_tokens, head.session_id), (None, None));
        }
    }
}
