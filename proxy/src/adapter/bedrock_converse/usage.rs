//! Converse's token counts as those of the Messages API.

use serde_json::value::RawValue;

use crate::adapter::json;

/// The counts of an answer. Input excludes what was read from or written to the cache, in both APIs.
/// Source: `TokenUsage` of the service model; members that it lacks are passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Usage {
    input: u64,
    output: u64,
    cache_read: u64,
    cache_write: u64,
    /// Of what was written, that which lives for five minutes and for an hour, where Converse tells.
    parts: Option<(u64, u64)>,
}

impl Usage {
    /// A guess at the input, for a stream's beginning.
    pub(super) fn guess(input: u64, output: u64) -> Self {
        Self {
            input,
            output,
            ..Self::default()
        }
    }

    /// What Converse reported; `None` where it counts no tokens.
    pub(super) fn read(usage: &RawValue) -> Option<Self> {
        let [input, output, cache_read, cache_write, details] = json::pick(
            usage.get(),
            [
                "inputTokens",
                "outputTokens",
                "cacheReadInputTokens",
                "cacheWriteInputTokens",
                "cacheDetails",
            ],
        )
        .ok()?;
        Some(Self {
            input: json::count(input)?,
            output: json::count(output)?,
            cache_read: json::count(cache_read).unwrap_or(0),
            cache_write: json::count(cache_write).unwrap_or(0),
            parts: details.and_then(parts),
        })
    }

    /// Appends it as `usage`.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let Self {
            input,
            output,
            cache_read,
            cache_write,
            parts,
        } = self;
        let parts = parts.map_or_else(String::new, |(short, long)| {
            format!(
                "\"cache_creation\":{{\"ephemeral_5m_input_tokens\":{short},\"ephemeral_1h_input_tokens\":{long}}},"
            )
        });
        out.extend_from_slice(
            format!(
                "{{\"input_tokens\":{input},\"cache_creation_input_tokens\":{cache_write},\"cache_read_input_tokens\":{cache_read},{parts}\"output_tokens\":{output}}}"
            )
            .as_bytes(),
        );
    }
}

fn parts(details: &RawValue) -> Option<(u64, u64)> {
    let (mut short, mut long, mut any) = (0_u64, 0_u64, false);
    json::each::<serde_json::Error>(details.get(), |_, part| {
        let [ttl, tokens] = json::pick(part.get(), ["ttl", "inputTokens"])?;
        let tokens = json::count(tokens).unwrap_or(0);
        match ttl.map(RawValue::get) {
            Some(r#""1h""#) => long = long.saturating_add(tokens),
            _ => short = short.saturating_add(tokens),
        }
        any = true;
        Ok(())
    })
    .ok()?;
    any.then_some((short, long))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::UsageFold;

    fn usage(json: &str) -> Option<Usage> {
        Usage::read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn counts_are_carried_over_and_what_is_not_known_is_passed_over() {
        let usage = usage(
            r#"{"inputTokens":5,"outputTokens":7,"totalTokens":42,"cacheReadInputTokens":20,"cacheWriteInputTokens":10,"cacheReadInputTokenCount":20,"serverToolUsage":{},"cacheDetails":[{"ttl":"1h","inputTokens":6},{"ttl":"5m","inputTokens":4}]}"#,
        )
        .unwrap();
        let mut json = Vec::new();
        usage.write(&mut json);
        let tokens = serde_json::from_slice::<UsageFold>(&json).unwrap().tokens();
        assert_eq!(
            (tokens.input, tokens.output, tokens.cache_read),
            (5, 7, 20),
            "cache tokens are not counted twice"
        );
        assert_eq!((tokens.cache_creation_5m, tokens.cache_creation_1h), (4, 6));
    }

    #[test]
    fn what_counts_nothing_is_no_usage() {
        for json in [
            "{}",
            "[]",
            r#"{"inputTokens":1}"#,
            r#"{"inputTokens":"1","outputTokens":-2}"#,
        ] {
            assert_eq!(usage(json), None, "{json}");
        }
    }
}
