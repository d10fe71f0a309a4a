//! What Bedrock calls models: model ids, inference profiles and ARNs, and the names that these stand for.

/// The longest id. Source: `InvokeModel`'s `modelId` in the Bedrock runtime's service model.
const MAX_ID_BYTES: usize = 2048;

/// What the id of an inference profile across regions puts before the model's.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/userguide/inference-profiles-support.html>.
const GEOGRAPHIES: &[&str] = &[
    "af", "apac", "au", "ca", "eu", "global", "il", "in", "jp", "me", "mx", "sa", "uk", "us",
    "us-gov",
];

/// Kinds of ARN that name the model they are of. Application inference profiles, provisioned throughput and imported models do
/// not.
const NAMING_ARNS: &[&str] = &["foundation-model", "inference-profile"];

const ANTHROPIC: &str = "anthropic.";

/// Whether a text has the characters of an id and may be put into a path.
pub fn is_well_formed(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= MAX_ID_BYTES
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".:/-_".contains(&byte))
}

/// Whether a name is one of Bedrock's own, as `us.anthropic.claude-opus-4-6-v1` or an ARN, and not one such as
/// `claude-opus-4-6` that only a pool's mapping gives a meaning.
pub fn is_bedrock_id(name: &str) -> bool {
    name.starts_with("arn:")
        || name.split_once('.').is_some_and(|(first, rest)| {
            let is_vendor = !first.is_empty()
                && first
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
            !rest.is_empty() && (is_vendor || GEOGRAPHIES.contains(&first))
        })
}

/// The foundation model that an id stands for, without geography and ARN; `None` where the id alone does not tell.
pub fn foundation_model(id: &str) -> Option<&str> {
    let id = profile(id)?;
    let model = match id.split_once('.') {
        Some((geography, model)) if GEOGRAPHIES.contains(&geography) => model,
        _ => id,
    };
    is_bedrock_id(model).then_some(model)
}

/// The id in an ARN that names one; any other id as it is.
fn profile(id: &str) -> Option<&str> {
    if !id.starts_with("arn:") {
        return Some(id);
    }
    // arn:partition:service:region:account:kind/id; the id may hold colons.
    let (kind, id) = id.splitn(6, ':').nth(5)?.split_once('/')?;
    NAMING_ARNS.contains(&kind).then_some(id)
}

/// Every name that an id may be allowed by: itself, the id in its ARN, the foundation model, and for a model of Anthropic's the
/// name that their API has for it, with and without its date.
pub fn names(id: &str) -> Vec<&str> {
    let mut names = vec![id];
    names.extend(profile(id));
    if let Some(model) = foundation_model(id) {
        names.push(model);
        if let Some(name) = model.strip_prefix(ANTHROPIC).map(without_version) {
            names.push(name);
            names.push(without_date(name));
        }
    }
    names.dedup();
    names
}

/// Cuts off a version as in `-v1:0`.
fn without_version(name: &str) -> &str {
    name.rmatch_indices("-v")
        .find(|(at, mark)| name[at + mark.len()..].starts_with(|c: char| c.is_ascii_digit()))
        .map_or(name, |(at, _)| &name[..at])
}

/// Cuts off a date as in `-20250929`.
fn without_date(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((rest, date)) if date.len() == 8 && date.bytes().all(|b| b.is_ascii_digit()) => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_names() {
        for id in [
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "us.anthropic.claude-opus-4-6-v1",
            "us-gov.anthropic.claude-3-haiku-20240307-v1:0",
            "ai21.jamba-1-5-mini-v1:0",
            "deepseek.v3.1",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
        ] {
            assert!(is_bedrock_id(id), "{id}");
        }
        for name in [
            "claude-sonnet-4-5",
            "claude-3.5-sonnet",
            "gpt-4.1",
            "",
            ".",
            "a.",
        ] {
            assert!(!is_bedrock_id(name), "{name}");
        }
    }

    #[test]
    fn a_foundation_model_is_found_where_the_id_names_it() {
        const MODEL: &str = "anthropic.claude-sonnet-4-5-20250929-v1:0";
        for id in [
            MODEL.to_owned(),
            format!("us.{MODEL}"),
            format!("us-gov.{MODEL}"),
            format!("global.{MODEL}"),
            format!("arn:aws:bedrock:us-east-1::foundation-model/{MODEL}"),
            format!("arn:aws-cn:bedrock:cn-north-1:123456789012:inference-profile/apac.{MODEL}"),
        ] {
            assert_eq!(foundation_model(&id), Some(MODEL), "{id}");
        }
        assert_eq!(
            foundation_model("minimax.minimax-m2.1"),
            Some("minimax.minimax-m2.1")
        );
        for id in [
            "claude-sonnet-4-5",
            "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3",
            "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/a1b2c3",
            "arn:",
            "us.",
            "",
        ] {
            assert_eq!(foundation_model(id), None, "{id}");
        }
    }

    #[test]
    fn an_id_is_known_by_the_names_of_anthropics_api_too() {
        let id = "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
        assert_eq!(
            names(id),
            [
                id,
                "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
                "anthropic.claude-sonnet-4-5-20250929-v1:0",
                "claude-sonnet-4-5-20250929",
                "claude-sonnet-4-5",
            ]
        );
        assert_eq!(
            names("anthropic.claude-opus-4-6-v1"),
            ["anthropic.claude-opus-4-6-v1", "claude-opus-4-6"]
        );
        assert_eq!(
            names("us.amazon.nova-lite-v1:0"),
            ["us.amazon.nova-lite-v1:0", "amazon.nova-lite-v1:0"]
        );
        assert_eq!(names("claude-x"), ["claude-x"]);
        let opaque = "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3";
        assert_eq!(names(opaque), [opaque]);
    }

    #[test]
    fn only_well_formed_ids_go_into_paths() {
        assert!(is_well_formed(
            "arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-3-haiku-20240307-v1:0"
        ));
        for id in ["", "a b", "a%2Fb", "a?b", "a#b", "a\r\nb", "ü"] {
            assert!(!is_well_formed(id), "{id}");
        }
        assert!(!is_well_formed(&"a".repeat(MAX_ID_BYTES + 1)));
    }
}
