//! What routing needs of a body, read without building a tree: strings are borrowed, everything else is skipped.

use std::borrow::Cow;
use std::fmt;

use http::HeaderMap;
use memchr::memchr_iter;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::call::RequestHead;
use crate::http::error::Refusal;
use crate::http::json_fields::{self, Malformed};

/// The longest model name. Bedrock's longest ARNs have half of it.
const MAX_MODEL_BYTES: usize = 256;
/// Longer session and agent ids are not kept.
const MAX_ID_CHARS: usize = 200;

/// Reads the head of a messages request.
///
/// # Errors
/// The body is not a JSON object with a `model`. A field of another type than expected is the upstream's to refuse, and so is
/// what is wrong inside a value.
pub fn request_head(body: &[u8], headers: &HeaderMap) -> Result<RequestHead, Refusal> {
    let fields = Fields::read(body).map_err(|error| malformed(&error, body))?;
    let model = match fields.model.map(scalar) {
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
        stream: matches!(fields.stream.map(scalar), Some(Scalar::Bool(true))),
        max_tokens: match fields.max_tokens.map(scalar) {
            Some(Scalar::Number(n)) => Some(n),
            _ => None,
        },
        session_id,
        agent_id: header_id(headers, "x-claude-code-agent-id"),
    })
}

/// The values of the fields that are looked at, as they stand in the body.
#[derive(Default)]
struct Fields<'a> {
    model: Option<&'a [u8]>,
    stream: Option<&'a [u8]>,
    max_tokens: Option<&'a [u8]>,
    metadata: Option<&'a [u8]>,
}

/// Why a body has no head.
enum BadBody {
    Malformed(Malformed),
    Twice(&'static str),
}

impl From<Malformed> for BadBody {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl<'a> Fields<'a> {
    fn read(body: &'a [u8]) -> Result<Self, BadBody> {
        let mut read = Self::default();
        json_fields::fields(body, |key, value| {
            let (name, slot) = match &*unescaped(key) {
                b"\"model\"" => ("model", &mut read.model),
                b"\"stream\"" => ("stream", &mut read.stream),
                b"\"max_tokens\"" => ("max_tokens", &mut read.max_tokens),
                b"\"metadata\"" => ("metadata", &mut read.metadata),
                _ => return Ok(()),
            };
            // Which of two counts, everybody decides for themselves: here and upstream must not differ.
            match slot.replace(value) {
                None => Ok(()),
                Some(_) => Err(BadBody::Twice(name)),
            }
        })?;
        Ok(read)
    }
}

/// A key in its plain form: any letter of it may be written as an escape.
fn unescaped(key: &[u8]) -> Cow<'_, [u8]> {
    if !key.contains(&b'\\') {
        return Cow::Borrowed(key);
    }
    match serde_json::from_slice::<String>(key) {
        Ok(plain) => Cow::Owned(format!("\"{plain}\"").into_bytes()),
        Err(_) => Cow::Borrowed(key),
    }
}

fn scalar(value: &[u8]) -> Scalar<'_> {
    match value.first() {
        // Large, and none of the simple ones.
        Some(b'{' | b'[') => Scalar::Other,
        _ => serde_json::from_slice(value).unwrap_or(Scalar::Other),
    }
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

fn malformed(error: &BadBody, body: &[u8]) -> Refusal {
    let message = match error {
        BadBody::Malformed(Malformed { expected, at }) => {
            let before = &body[..*at];
            let line = memchr_iter(b'\n', before).count() + 1;
            let column = before
                .iter()
                .rev()
                .take_while(|byte| **byte != b'\n')
                .count()
                + 1;
            format!(
                "The request body is not a valid JSON object: expected {expected} at line {line} column {column}"
            )
        }
        BadBody::Twice(name) => format!("The request body has the field `{name}` twice"),
    };
    Refusal::invalid("malformed_body", message)
}

/// `metadata.user_id` is either a JSON string with a `session_id`, or ends in `_session_<id>`.
pub(super) fn session_of(metadata: &[u8]) -> Option<String> {
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
    }) = serde_json::from_slice(metadata)
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

pub(super) fn header_id(headers: &HeaderMap, name: &str) -> Option<String> {
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

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[\\\\\"{}\\[\\]é\n]{0,40}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                proptest::collection::vec(("[\\\\\"}a]{0,4}", inner), 0..4).prop_map(|fields| {
                    fields.into_iter().collect::<serde_json::Map<_, _>>().into()
                }),
            ]
        })
    }

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
            (
                &br#"{"model": "x", "messages": ["#[..],
                "expected the end of this object or list at line 1 column 28",
            ),
            (b"", "expected a JSON object at line 1 column 1"),
            (b"hello", "expected a JSON object at line 1 column 1"),
            (
                b"{\"model\": \"\xff\xfe\"}",
                "model: Input should be a valid string",
            ),
            (br#""secret""#, "not a valid JSON object"),
            (
                b"{\"model\":\"a\",\n \"stream\" true}",
                "expected a colon behind the key at line 2 column 11",
            ),
            (
                br#"{"model":"secret}"#,
                "expected the end of this text at line 1 column 10",
            ),
            (br#"{"model":secret}"#, "expected a value"),
            (
                br#"{"model":"a" "stream":true}"#,
                "expected a comma or a closing brace",
            ),
            (br#"{"model":"a",}"#, "expected a key in double quotes"),
            (br#"{"model":"a","model":"b"}"#, "`model` twice"),
            (br#"{"model":"a","mod\u0065l":"b"}"#, "`model` twice"),
            (br#"{"model":"a"} {"#, "expected nothing behind the object"),
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

    proptest! {
        #[test]
        fn any_bytes_end_in_a_head_or_a_refusal(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = request_head(&body, &HeaderMap::new());
        }

        /// Whatever serde makes of a body that it accepts is made of it here.
        #[test]
        fn json_is_read_as_by_others(fields in proptest::collection::vec(("[a-c\\\\\"{}é]{0,20}", json()), 0..8), stream: bool) {
            let mut body: serde_json::Map<String, serde_json::Value> = fields.into_iter().collect();
            body.insert("model".to_owned(), "m".into());
            body.insert("stream".to_owned(), stream.into());
            let body = serde_json::Value::from(body);
            for text in [body.to_string(), serde_json::to_string_pretty(&body).unwrap()] {
                let head = head(&text).unwrap();
                prop_assert_eq!((head.model.as_str(), head.stream), ("m", stream));
            }
        }

        #[test]
        fn any_model_name_survives(model in "\\PC{1,60}") {
            let body = serde_json::json!({"messages": [], "model": model, "stream": true}).to_string();
            prop_assert_eq!(head(&body).unwrap().model, model);
        }
    }
}
