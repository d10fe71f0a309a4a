//! Why an answer ended.

use serde_json::value::RawValue;

use super::context::Context;
use crate::adapter::json;

/// `stop_reason` for a `stopReason`.
/// Sources: `StopReason` of the service model; <https://docs.anthropic.com/en/api/handling-stop-reasons>.
const REASONS: &[(&str, &str)] = &[
    ("end_turn", "end_turn"),
    ("tool_use", "tool_use"),
    ("max_tokens", "max_tokens"),
    (STOP_SEQUENCE, STOP_SEQUENCE),
    ("guardrail_intervened", "refusal"),
    ("content_filtered", "refusal"),
    (
        "model_context_window_exceeded",
        "model_context_window_exceeded",
    ),
    ("malformed_model_output", "end_turn"),
    ("malformed_tool_use", "end_turn"),
];

const STOP_SEQUENCE: &str = "stop_sequence";

/// Why an answer ended, in the words of the Messages API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stop {
    reason: &'static str,
    /// As JSON.
    sequence: Option<String>,
}

impl Stop {
    /// From a `stopReason` and the fields that were asked for beside it (`/stop_sequence`).
    pub(super) fn read(
        reason: Option<&RawValue>,
        fields: Option<&RawValue>,
        context: &Context,
    ) -> Self {
        let reason = reason.and_then(json::text).unwrap_or_default();
        let reason = REASONS
            .iter()
            .find(|(converse, _)| *converse == reason)
            .map_or("end_turn", |(_, reason)| *reason);
        let told = fields
            .and_then(|fields| json::pick(fields.get(), ["stop_sequence"]).ok())
            .and_then(|[sequence]| sequence)
            .filter(|sequence| json::escaped(sequence).is_some())
            .map(|sequence| sequence.get().to_owned());
        let only = || {
            let sequence = context.only_stop_sequence.as_ref()?;
            serde_json::to_string(sequence).ok()
        };
        Self {
            reason,
            sequence: if reason == STOP_SEQUENCE {
                told.or_else(only)
            } else {
                None
            },
        }
    }

    /// Appends `stop_reason` and `stop_sequence`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\"stop_reason\":\"");
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\",\"stop_sequence\":");
        out.extend_from_slice(self.sequence.as_deref().unwrap_or("null").as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stop(reason: &str, fields: Option<&str>, only: Option<&str>) -> String {
        let context = Context {
            only_stop_sequence: only.map(str::to_owned),
            ..Context::default()
        };
        let reason = serde_json::value::to_raw_value(reason).unwrap();
        let fields = fields.map(|fields| serde_json::from_str(fields).unwrap());
        let mut out = Vec::new();
        Stop::read(Some(&reason), fields, &context).write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn reasons_are_translated_and_new_ones_end_the_turn() {
        for (reason, expected) in [
            ("tool_use", "tool_use"),
            ("guardrail_intervened", "refusal"),
            ("content_filtered", "refusal"),
            (
                "model_context_window_exceeded",
                "model_context_window_exceeded",
            ),
            ("malformed_tool_use", "end_turn"),
            ("unheard_of", "end_turn"),
        ] {
            assert_eq!(
                stop(reason, None, Some("x")),
                format!(r#""stop_reason":"{expected}","stop_sequence":null"#)
            );
        }
    }

    #[test]
    fn the_sequence_that_stopped_it_is_named_where_it_is_known() {
        for (fields, only, expected) in [
            (Some(r#"{"stop_sequence":"E\nD"}"#), Some("x"), r#""E\nD""#),
            (Some(r#"{"stop_sequence":null}"#), Some("a\"b"), r#""a\"b""#),
            (Some("[]"), None, "null"),
            (None, Some("END"), r#""END""#),
        ] {
            assert_eq!(
                stop("stop_sequence", fields, only),
                format!(r#""stop_reason":"stop_sequence","stop_sequence":{expected}"#)
            );
        }
    }
}
