//! Durations as people write them in a manifest: `30s`, `5m`, `1h`.

use std::borrow::Cow;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A whole number of seconds, minutes or hours, as text.
///
/// It keeps the text that was written, so that what the API server stores is what a person applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DurationString(pub String);

/// The text is not a whole number followed by `s`, `m` or `h`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a whole number with a unit: 30s, 5m or 1h")]
pub struct InvalidDuration;

impl DurationString {
    /// The duration meant, or why the text cannot be read. At least one second.
    pub fn parse(&self) -> Result<Duration, InvalidDuration> {
        self.0.parse::<Parsed>().map(|parsed| parsed.0)
    }
}

struct Parsed(Duration);

impl FromStr for Parsed {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, seconds_per_unit) = match text.as_bytes().last() {
            Some(b's') => (&text[..text.len() - 1], 1),
            Some(b'm') => (&text[..text.len() - 1], 60),
            Some(b'h') => (&text[..text.len() - 1], 3600),
            _ => return Err(InvalidDuration),
        };
        if digits.starts_with('0')
            || digits.len() > 6
            || !digits.bytes().all(|byte| byte.is_ascii_digit())
        {
            return Err(InvalidDuration);
        }
        let count: u64 = digits.parse().map_err(|_| InvalidDuration)?;
        Ok(Self(Duration::from_secs(count * seconds_per_unit)))
    }
}

impl JsonSchema for DurationString {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "maxLength": 8,
            "x-kubernetes-validations": [json!({
                "rule": "self.matches('^[1-9][0-9]{0,5}[smh]$')",
                "message": InvalidDuration.to_string(),
            })],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Duration, InvalidDuration> {
        DurationString(text.to_owned()).parse()
    }

    #[test]
    fn whole_numbers_with_a_unit_are_read() {
        assert_eq!(parse("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse("1h"), Ok(Duration::from_hours(1)));
        assert_eq!(parse("999999h"), Ok(Duration::from_hours(999_999)));
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "", "s", "0s", "05s", "30", "1.5h", "-1s", "+1s", "30 s", "1h30m", "1000000s", "1d",
            "1ms", "é",
        ] {
            assert_eq!(parse(text), Err(InvalidDuration), "{text:?}");
        }
    }
}
