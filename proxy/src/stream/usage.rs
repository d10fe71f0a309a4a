//! Token counts out of the `usage` objects of answers and streams.

use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use spillway_core::domain::tokens::TokenUsage;

/// Folds the `usage` objects of one answer: of each count the last value that is not null wins, since a stream's
/// `message_delta` is cumulative and may leave out what `message_start` said.
/// Source: <https://docs.anthropic.com/en/api/messages#response-usage>.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct UsageFold {
    /// Uncached input tokens.
    #[serde(default, rename = "input_tokens", deserialize_with = "count")]
    pub input: Option<u64>,
    /// Output tokens so far.
    #[serde(default, rename = "output_tokens", deserialize_with = "count")]
    pub output: Option<u64>,
    /// Tokens read from the cache.
    #[serde(
        default,
        rename = "cache_read_input_tokens",
        deserialize_with = "count"
    )]
    pub cache_read: Option<u64>,
    /// Tokens written to the cache, of either lifetime.
    #[serde(
        default,
        rename = "cache_creation_input_tokens",
        deserialize_with = "count"
    )]
    pub cache_creation: Option<u64>,
    /// Of these, by lifetime.
    #[serde(default, rename = "cache_creation", deserialize_with = "parts")]
    pub parts: CacheParts,
}

/// `usage.cache_creation`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheParts {
    five_minutes: Option<u64>,
    one_hour: Option<u64>,
}

impl CacheParts {
    /// Tokens written to the five-minute and to the one-hour cache.
    pub fn new(five_minutes: Option<u64>, one_hour: Option<u64>) -> Self {
        Self {
            five_minutes,
            one_hour,
        }
    }
}

/// A count, or `None` for anything that is none: metering must not depend on the rest being well-formed.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match deserializer.deserialize_any(Lenient)? {
        Found::Count(count) => Ok(Some(count)),
        Found::Parts(_) | Found::Other => Ok(None),
    }
}

/// The parts, or none of them if they are not an object.
fn parts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CacheParts, D::Error> {
    match deserializer.deserialize_any(Lenient)? {
        Found::Parts(parts) => Ok(parts),
        Found::Count(_) | Found::Other => Ok(CacheParts::default()),
    }
}

/// What stands where a count or an object of counts is expected. What is neither is skipped without keeping any of it,
/// however large it is.
enum Found {
    Count(u64),
    Parts(CacheParts),
    Other,
}

#[derive(Deserialize)]
enum Part {
    #[serde(rename = "ephemeral_5m_input_tokens")]
    FiveMinutes,
    #[serde(rename = "ephemeral_1h_input_tokens")]
    OneHour,
    #[serde(other)]
    Other,
}

struct PartCount(Option<u64>);

impl<'de> Deserialize<'de> for PartCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        count(deserializer).map(Self)
    }
}

struct Lenient;

impl<'de> Visitor<'de> for Lenient {
    type Value = Found;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }
    fn visit_u64<E>(self, count: u64) -> Result<Found, E> {
        Ok(Found::Count(count))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Found, E> {
        Ok(Found::Other)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Found, E> {
        Ok(Found::Other)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Found, E> {
        Ok(Found::Other)
    }
    fn visit_str<E>(self, _: &str) -> Result<Found, E> {
        Ok(Found::Other)
    }
    fn visit_unit<E>(self) -> Result<Found, E> {
        Ok(Found::Other)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Found, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Found::Other)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Found, A::Error> {
        let mut parts = CacheParts::default();
        while let Some(part) = map.next_key()? {
            match part {
                Part::FiveMinutes => parts.five_minutes = map.next_value::<PartCount>()?.0,
                Part::OneHour => parts.one_hour = map.next_value::<PartCount>()?.0,
                Part::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Found::Parts(parts))
    }
}

impl UsageFold {
    /// Takes over every count that `later` has.
    pub fn merge(&mut self, later: &Self) {
        self.input = later.input.or(self.input);
        self.output = later.output.or(self.output);
        self.cache_read = later.cache_read.or(self.cache_read);
        self.cache_creation = later.cache_creation.or(self.cache_creation);
        self.parts.five_minutes = later.parts.five_minutes.or(self.parts.five_minutes);
        self.parts.one_hour = later.parts.one_hour.or(self.parts.one_hour);
    }

    /// Takes over the counts that are still missing here from `other`.
    pub fn fill_from(&mut self, other: &Self) {
        let mut filled = other.clone();
        filled.merge(self);
        *self = filled;
    }

    /// Whether nothing was reported.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The counts by price class. Cache writes whose lifetime was not reported count as five minutes.
    pub fn tokens(&self) -> TokenUsage {
        let one_hour = self.parts.one_hour.unwrap_or(0);
        let five_minutes = self.parts.five_minutes.unwrap_or(0);
        let written = self
            .cache_creation
            .unwrap_or(five_minutes.saturating_add(one_hour));
        let one_hour = one_hour.min(written);
        TokenUsage {
            input: self.input.unwrap_or(0),
            output: self.output.unwrap_or(0),
            cache_read: self.cache_read.unwrap_or(0),
            cache_creation_5m: written - one_hour,
            cache_creation_1h: one_hour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fold(objects: &[&str]) -> TokenUsage {
        let mut usage = UsageFold::default();
        for object in objects {
            usage.merge(&serde_json::from_str(object).unwrap());
        }
        usage.tokens()
    }

    #[test]
    fn the_last_value_that_is_not_null_wins() {
        let start = r#"{"input_tokens":2050,"cache_read_input_tokens":7,"cache_creation_input_tokens":null,"output_tokens":4}"#;
        let end = r#"{"input_tokens":null,"output_tokens":31772,"cache_creation_input_tokens":11}"#;
        let expected = TokenUsage {
            input: 2050,
            output: 31772,
            cache_read: 7,
            cache_creation_5m: 11,
            cache_creation_1h: 0,
        };
        assert_eq!(fold(&[start, end]), expected);
        assert_eq!(
            fold(&[start, r#"{"output_tokens":2}"#]).output,
            2,
            "downwards too"
        );
    }

    #[test]
    fn cache_writes_are_told_apart_by_lifetime() {
        for (object, five_minutes, one_hour) in [
            (
                r#"{"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":70}}"#,
                30,
                70,
            ),
            (
                r#"{"cache_creation":{"ephemeral_5m_input_tokens":30,"ephemeral_1h_input_tokens":70}}"#,
                30,
                70,
            ),
            (
                r#"{"cache_creation_input_tokens":100,"cache_creation":{"ephemeral_1h_input_tokens":70}}"#,
                30,
                70,
            ),
            (r#"{"cache_creation_input_tokens":100}"#, 100, 0),
            (
                r#"{"cache_creation_input_tokens":100,"cache_creation":null}"#,
                100,
                0,
            ),
            (
                r#"{"cache_creation_input_tokens":5,"cache_creation":{"ephemeral_1h_input_tokens":70}}"#,
                0,
                5,
            ),
        ] {
            let tokens = fold(&[object]);
            assert_eq!(
                (tokens.cache_creation_5m, tokens.cache_creation_1h),
                (five_minutes, one_hour),
                "{object}"
            );
        }
    }

    #[test]
    fn nonsense_of_any_depth_and_size_is_skipped() {
        const DEPTH: usize = 100_000;
        let deep = format!("{}{}", "[".repeat(DEPTH), "]".repeat(DEPTH));
        let wide = format!("[{}1]", "1,".repeat(DEPTH));
        for nonsense in [deep, wide, r#"{"a":[{"b":null}]}"#.to_owned()] {
            let usage = format!(
                r#"{{"input_tokens":{nonsense},"cache_creation":{{"ephemeral_1h_input_tokens":7,"ephemeral_5m_input_tokens":{nonsense}}},"output_tokens":9}}"#
            );
            let tokens = fold(&[&usage]);
            assert_eq!(
                (tokens.input, tokens.output, tokens.cache_creation_1h),
                (0, 9, 7)
            );
        }
    }

    #[test]
    fn nonsense_in_one_field_leaves_the_others() {
        let tokens = fold(&[
            r#"{"input_tokens":"many","output_tokens":-3,"cache_read_input_tokens":9,"cache_creation":"x"}"#,
        ]);
        assert_eq!(
            tokens,
            TokenUsage {
                cache_read: 9,
                ..TokenUsage::default()
            }
        );
    }
}
