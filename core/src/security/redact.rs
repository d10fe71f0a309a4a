//! Masks what looks like a key in texts that come from elsewhere and may reach a log.

use std::borrow::Cow;

/// What keys begin with: Spillway's, Anthropic's, AWS access key ids and Bedrock API keys.
const PREFIXES: &[&str] = &[
    "sk-spw-",
    "sk-ant-",
    "AKIA",
    "ASIA",
    "ABSK",
    "bedrock-api-key-",
];
/// Shorter runs are words and not keys.
const SHORTEST_KEY: usize = 16;

/// `text` with every key-shaped run replaced by its prefix and `***`.
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut masked = String::new();
    let mut rest = text;
    while let Some((at, prefix)) = PREFIXES
        .iter()
        .filter_map(|prefix| rest.find(prefix).map(|at| (at, prefix)))
        .min()
    {
        let run = rest[at..]
            .find(|c: char| !(c.is_ascii_alphanumeric() || "-_+/=.~".contains(c)))
            .unwrap_or(rest.len() - at);
        masked.push_str(&rest[..at + prefix.len()]);
        if run >= SHORTEST_KEY {
            masked.push_str("***");
        } else {
            masked.push_str(&rest[at + prefix.len()..at + run]);
        }
        rest = &rest[at + run..];
    }
    if masked.is_empty() {
        return Cow::Borrowed(text);
    }
    masked.push_str(rest);
    Cow::Owned(masked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_are_masked_and_words_are_not() {
        for (text, masked) in [
            (
                "POST /ak/sk-spw-abcdefghij-secretsecretsecret/v1/messages",
                "POST /ak/sk-spw-***",
            ),
            (
                "x-api-key: sk-ant-api03-0123456789abcdef, next",
                "x-api-key: sk-ant-***, next",
            ),
            (
                "credential AKIA0123456789ABCDEF here",
                "credential AKIA*** here",
            ),
            ("keys begin with sk-ant-oat", "keys begin with sk-ant-oat"),
            ("nothing", "nothing"),
        ] {
            assert!(redact(text).starts_with(masked), "{}", redact(text));
            assert!(!redact(text).contains("0123456789"));
        }
    }

    proptest! {
        #[test]
        fn texts_without_a_prefix_stay(text in "[^skAb]{0,80}") {
            prop_assert_eq!(redact(&text), text.as_str());
        }
    }
}
