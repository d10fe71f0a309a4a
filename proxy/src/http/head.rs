//! What routing needs of a body, read without building a tree: strings are borrowed, everything else is skipped.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::adapter::bedrock_relay::Operation;
use crate::call::RequestHead;
use crate::http::error::Refusal;

/// The longest model name. Bedrock's longest ARNs have half of it.
const MAX_MODEL_BYTES: usize = 256;
/// Longer session and agent ids are not kept.
const MAX_ID_CHARS: usize = 200;

/// Reads the head of a messages request.
///
/// # Errors
/// The body is not a JSON object with a `model`. A field of another type than expected is the upstream's to refuse.
pub fn request_head(body: &[u8], headers: &HeaderMap) -> Result<RequestHead, Refusal> {
    let fields: Fields<'_> = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    let model = match fields.model {
        Some(Scalar::Text(model)) if model.is_empty() => {
            return Err(Refusal::invalid("no_model", "model: must not be empty"));
        }
        Some(Scalar::Text(model)) if model.len() > MAX_MODEL_BYTES => {
            return Err(Refusal::invalid(
                "long_model",
                "model: must not be longer than 256 bytes",
            ));
        }
        Some(Scalar::Text(model)) => model.into_owned(),
        Some(_) => {
            return Err(Refusal::invalid(
                "no_model",
                "model: Input should be a valid string",
            ));
        }
        None => return Err(Refusal::invalid("no_model", "model: Field required")),
    };
    let session_id = header_id(headers, "x-claude-code-session-id")
        .or_else(|| fields.metadata.and_then(session_of));
    Ok(RequestHead {
        model,
        stream: matches!(fields.stream, Some(Scalar::Bool(true))),
        max_tokens: match fields.max_tokens {
            Some(Scalar::Number(n)) => Some(n),
            _ => None,
        },
        session_id,
        agent_id: header_id(headers, "x-claude-code-agent-id"),
    })
}

/// What is known of a call in Bedrock's format: its model is in the path, and its body is Bedrock's to judge.
pub fn bedrock_head(
    model: String,
    operation: Operation,
    body: &[u8],
    headers: &HeaderMap,
) -> RequestHead {
    #[derive(Deserialize, Default)]
    struct Fields<'a> {
        #[serde(borrow)]
        max_tokens: Option<Scalar<'a>>,
        #[serde(borrow)]
        metadata: Option<&'a RawValue>,
        #[serde(borrow, rename = "inferenceConfig")]
        inference: Option<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Inference<'a> {
        #[serde(borrow, rename = "maxTokens")]
        max_tokens: Option<Scalar<'a>>,
    }
    let fields: Fields<'_> = serde_json::from_slice(body).unwrap_or_default();
    let of_converse = fields
        .inference
        .and_then(|inference| serde_json::from_str::<Inference<'_>>(inference.get()).ok())
        .and_then(|inference| inference.max_tokens);
    RequestHead {
        model,
        stream: operation.is_stream(),
        max_tokens: match fields.max_tokens.or(of_converse) {
            Some(Scalar::Number(n)) => Some(n),
            _ => None,
        },
        session_id: header_id(headers, "x-claude-code-session-id")
            .or_else(|| fields.metadata.and_then(session_of)),
        agent_id: header_id(headers, "x-claude-code-agent-id"),
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a JSON object")]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<Scalar<'a>>,
    #[serde(borrow)]
    stream: Option<Scalar<'a>>,
    #[serde(borrow)]
    max_tokens: Option<Scalar<'a>>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// A value of any type, kept only where it is simple.
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Bool(bool),
    Number(u64),
    Other,
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Borrowed(v)))
            }
            fn visit_str<E>(self, v: &str) -> Result<Self::Value, E> {
                Ok(Scalar::Text(Cow::Owned(v.to_owned())))
            }
            fn visit_bool<E>(self, v: bool) -> Result<Self::Value, E> {
                Ok(Scalar::Bool(v))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Self::Value, E> {
                Ok(Scalar::Number(v))
            }
            fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(Scalar::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }
        deserializer.deserialize_any(Any)
    }
}

/// serde's words for wrong types quote the value; those for wrong syntax do not.
fn malformed(error: &serde_json::Error) -> Refusal {
    let (line, column) = (error.line(), error.column());
    let message = match error.classify() {
        Category::Syntax | Category::Eof => format!("The request body is not valid JSON: {error}"),
        Category::Data if error.to_string().starts_with("duplicate field") => {
            format!("The request body has a field twice: see line {line} column {column}")
        }
        Category::Data | Category::Io => {
            format!("The request body is not a JSON object: see line {line} column {column}")
        }
    };
    Refusal::invalid("malformed_body", message)
}

/// `metadata.user_id` is either a JSON string with a `session_id`, or ends in `_session_<id>`.
fn session_of(metadata: &RawValue) -> Option<String> {
    #[derive(Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow)]
        user_id: Option<Scalar<'a>>,
    }
    #[derive(Deserialize)]
    struct UserId<'a> {
        #[serde(borrow)]
        session_id: Option<Scalar<'a>>,
    }
    let Ok(Metadata {
        user_id: Some(Scalar::Text(user_id)),
    }) = serde_json::from_str(metadata.get())
    else {
        return None;
    };
    if user_id.starts_with('{') {
        match serde_json::from_str(&user_id) {
            Ok(UserId {
                session_id: Some(Scalar::Text(id)),
            }) => kept(&id),
            _ => None,
        }
    } else {
        user_id
            .rsplit_once("_session_")
            .and_then(|(_, id)| kept(id))
    }
}

fn header_id(headers: &HeaderMap, name: &str) -> Option<String> {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .and_then(kept)
}

fn kept(id: &str) -> Option<String> {
    let printable = id.bytes().all(|b| b.is_ascii_graphic());
    (!id.is_empty() && id.len() <= MAX_ID_CHARS && printable).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn head(body: &str) -> Result<RequestHead, Refusal> {
        request_head(body.as_bytes(), &HeaderMap::new())
    }

    #[test]
    fn reads_what_routing_needs_and_skips_the_rest() {
        let head = head(
            r#"{"model":"claude-x","messages":[{"content":[{"a":[1,{"model":"no"}]}]}],"stream":true,"max_tokens":64000,
               "metadata":{"user_id":"{\"session_id\":\"s-1\",\"device\":2}"},"unheard_of":{"stream":false}}"#,
        )
        .unwrap();
        assert_eq!(
            head,
            RequestHead {
                model: "claude-x".to_owned(),
                stream: true,
                max_tokens: Some(64_000),
                session_id: Some("s-1".to_owned()),
                agent_id: None,
            }
        );
    }

    #[test]
    fn fields_of_another_type_are_left_to_the_upstream() {
        for body in [
            r#"{"model":"m","stream":"true","max_tokens":-1,"metadata":7}"#,
            r#"{"model":"m","stream":null,"max_tokens":1.5,"metadata":{"user_id":[]}}"#,
            r#"{"model":"m","stream":{"a":[1]},"max_tokens":[{}],"metadata":null}"#,
        ] {
            let head = head(body).unwrap();
            assert_eq!(
                (head.stream, head.max_tokens, head.session_id),
                (false, None, None),
                "{body}"
            );
        }
    }

    #[test]
    fn sessions_come_from_the_header_first_and_from_both_forms_of_user_id() {
        let old = r#"{"model":"m","metadata":{"user_id":"user_ab_account__session_f00d"}}"#;
        assert_eq!(head(old).unwrap().session_id.as_deref(), Some("f00d"));
        let mut headers = HeaderMap::new();
        headers.insert(
            "x-claude-code-session-id",
            HeaderValue::from_static("of-header"),
        );
        headers.insert("x-claude-code-agent-id", HeaderValue::from_static("agent"));
        let head = request_head(old.as_bytes(), &headers).unwrap();
        assert_eq!(
            (head.session_id.as_deref(), head.agent_id.as_deref()),
            (Some("of-header"), Some("agent"))
        );
    }

    #[test]
    fn malformed_bodies_are_refused_with_the_place_and_without_their_content() {
        for (body, words) in [
            (&br#"{"model": "x", "messages": ["#[..], "EOF while parsing"),
            (b"", "EOF while parsing a value at line 1 column 0"),
            (b"hello", "expected value at line 1 column 1"),
            (b"{\"model\": \"\xff\xfe\"}", "line 1"),
            (br#""secret""#, "not a JSON object"),
            (br#"{"model":"a","model":"b"}"#, "twice"),
            (br#"{"model":"a"} {"#, "trailing characters"),
            (b"{}", "model: Field required"),
            (br#"{"model":3}"#, "model: Input should be a valid string"),
        ] {
            let refusal = request_head(body, &HeaderMap::new()).unwrap_err();
            assert_eq!(refusal.status, 400);
            assert!(
                refusal.message.contains(words),
                "{} / {words}",
                refusal.message
            );
            assert!(!refusal.message.contains("secret"), "{}", refusal.message);
        }
    }

    #[test]
    fn a_model_has_at_most_256_bytes() {
        let body = |length| format!(r#"{{"model":"{}"}}"#, "m".repeat(length));
        assert!(head(&body(256)).is_ok());
        let refusal = head(&body(257)).unwrap_err();
        assert_eq!(refusal.status, 400);
        assert!(refusal.message.starts_with("model: "));
    }

    #[test]
    fn a_call_in_bedrocks_format_says_its_bounds_in_either_api() {
        let head = |operation, body: &str| {
            bedrock_head(
                "m".to_owned(),
                operation,
                body.as_bytes(),
                &HeaderMap::new(),
            )
        };
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
        for body in [
            "",
            "[]",
            r#"{"max_tokens":"x"}"#,
            r#"{"inferenceConfig":[]}"#,
        ] {
            assert_eq!(head(Operation::Invoke, body).max_tokens, None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_a_head_or_a_refusal(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = request_head(&body, &HeaderMap::new());
        }

        #[test]
        fn any_model_name_survives(model in "\\PC{1,60}") {
            let body = serde_json::json!({"messages": [], "model": model, "stream": true}).to_string();
            prop_assert_eq!(head(&body).unwrap().model, model);
        }
    }
}
