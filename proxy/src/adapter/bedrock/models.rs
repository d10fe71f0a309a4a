//! What is known of Bedrock's models by their ids.

/// Who made a model, as far as their requests differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    /// Claude.
    Anthropic,
    /// Amazon's Nova.
    Nova,
    /// Any other.
    Other,
}

/// Which cache points a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caching {
    /// None: it refuses a request that has one.
    No,
    /// Those of five minutes, in `system` and `messages` alone.
    NotInTools,
    /// Those of five minutes; a `ttl` is refused.
    FiveMinutes,
    /// Those of an hour too.
    OneHour,
}

/// What a model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ModelTraits {
    /// Who made it.
    pub(crate) vendor: Vendor,
    /// Which cache points it takes.
    pub(crate) caching: Caching,
    /// Whether it knows `output_config.effort`.
    pub(crate) effort: bool,
    /// The most output tokens that may be asked for, where asking for more is refused and clients are likely to.
    pub(crate) max_output: Option<u64>,
}

/// Claude models that know less than those of today: a part of their ids, their caching, whether they know effort.
/// Sources: <https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html>; `Extra inputs are not permitted` answers
/// to a `ttl`; <https://docs.anthropic.com/en/docs/build-with-claude/effort>.
const OLDER_CLAUDES: &[(&str, Caching, bool)] = &[
    ("claude-v2", Caching::No, false),
    ("claude-instant", Caching::No, false),
    ("claude-3-haiku", Caching::No, false),
    ("claude-3-sonnet", Caching::No, false),
    ("claude-3-opus", Caching::No, false),
    ("claude-3-5-sonnet-20240620", Caching::No, false),
    ("claude-3-5-", Caching::FiveMinutes, false),
    ("claude-3-7-", Caching::FiveMinutes, false),
    ("claude-sonnet-4-20250514", Caching::FiveMinutes, false),
    ("claude-opus-4-20250514", Caching::FiveMinutes, false),
    ("claude-opus-4-1-", Caching::FiveMinutes, false),
    ("claude-sonnet-4-5-", Caching::OneHour, false),
    ("claude-haiku-4-5-", Caching::OneHour, false),
];

/// Output limits that a request is refused for.
/// Source: <https://docs.aws.amazon.com/nova/latest/userguide/what-is-nova.html>.
const OUTPUT_LIMITS: &[(&str, u64)] = &[
    ("amazon.nova-micro-", 10_000),
    ("amazon.nova-lite-", 10_000),
    ("amazon.nova-pro-", 10_000),
];

impl ModelTraits {
    /// What a model id, inference profile id or ARN tells. An ARN that names no vendor, as of an application inference profile,
    /// counts as Anthropic's: the client asked for Claude.
    pub(crate) fn of(id: &str) -> Self {
        if !is_anthropic(id) {
            let is_nova = id.contains("amazon.nova-");
            return Self {
                vendor: if is_nova { Vendor::Nova } else { Vendor::Other },
                caching: if is_nova {
                    Caching::NotInTools
                } else {
                    Caching::No
                },
                effort: false,
                max_output: OUTPUT_LIMITS
                    .iter()
                    .find(|(part, _)| id.contains(part))
                    .map(|(_, limit)| *limit),
            };
        }
        let (caching, effort) = OLDER_CLAUDES
            .iter()
            .find(|(part, ..)| id.contains(part))
            .map_or((Caching::OneHour, true), |(_, caching, effort)| {
                (*caching, *effort)
            });
        Self {
            vendor: Vendor::Anthropic,
            caching,
            effort,
            max_output: None,
        }
    }

    /// Whether it is a Claude model, which takes the Messages API's own fields.
    pub(crate) fn is_anthropic(&self) -> bool {
        self.vendor == Vendor::Anthropic
    }
}

fn is_anthropic(id: &str) -> bool {
    let names_anthropic =
        id.starts_with("anthropic.") || id.contains(".anthropic.") || id.contains("/anthropic.");
    let resource = id
        .strip_prefix("arn:")
        .and_then(|arn| arn.rsplit_once(':'))
        .map(|(_, resource)| resource);
    let names_nobody = resource.is_some_and(|resource| !resource.contains('.'));
    names_anthropic || names_nobody
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anthropic_models_are_known_by_their_ids() {
        for id in [
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "global.anthropic.claude-opus-5-v1",
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
            "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3",
        ] {
            assert!(ModelTraits::of(id).is_anthropic(), "{id}");
        }
        for id in [
            "amazon.nova-lite-v1:0",
            "us.amazon.nova-lite-v1:0",
            "openai.gpt-oss-120b-1:0",
            "us.deepseek.r1-v1:0",
            "arn:aws:bedrock:us-east-1::foundation-model/amazon.nova-lite-v1",
        ] {
            assert!(!ModelTraits::of(id).is_anthropic(), "{id}");
        }
    }

    #[test]
    fn what_a_model_takes_is_told_by_its_id() {
        for (id, caching, effort, max_output) in [
            (
                "eu.anthropic.claude-3-7-sonnet-20250219-v1:0",
                Caching::FiveMinutes,
                false,
                None,
            ),
            (
                "anthropic.claude-3-haiku-20240307-v1:0",
                Caching::No,
                false,
                None,
            ),
            (
                "us.anthropic.claude-opus-4-1-20250805-v1:0",
                Caching::FiveMinutes,
                false,
                None,
            ),
            (
                "us.anthropic.claude-sonnet-4-5-20250929-v1:0",
                Caching::OneHour,
                false,
                None,
            ),
            (
                "global.anthropic.claude-opus-4-5-20251101-v1:0",
                Caching::OneHour,
                true,
                None,
            ),
            ("us.anthropic.claude-opus-4-8", Caching::OneHour, true, None),
            (
                "us.amazon.nova-lite-v1:0",
                Caching::NotInTools,
                false,
                Some(10_000),
            ),
            (
                "us.amazon.nova-2-lite-v1:0",
                Caching::NotInTools,
                false,
                None,
            ),
            ("openai.gpt-oss-120b-1:0", Caching::No, false, None),
        ] {
            let traits = ModelTraits::of(id);
            assert_eq!(
                (traits.caching, traits.effort, traits.max_output),
                (caching, effort, max_output),
                "{id}"
            );
        }
    }
}
