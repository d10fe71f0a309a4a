//! What of AWS's words may be logged.

use std::borrow::Cow;

use spillway_core::security::redact::redact;

/// Parts of messages that tell of a credential. Errors about signatures repeat what was signed.
const CREDENTIAL_WORDS: &[&str] = &[
    "AKIA",
    "ASIA",
    "Credential=",
    "AWS4-HMAC",
    "x-amz-security-token",
];
/// What is logged in the place of such a message.
const WITHHELD: &str = "(withheld: it tells of a credential)";
/// How much of a message is logged, in bytes.
const LONGEST: usize = 300;

/// Whether a message tells of a credential.
pub(crate) fn tells_of_a_credential(text: &str) -> bool {
    CREDENTIAL_WORDS.iter().any(|word| text.contains(word))
}

/// A message as it may be logged: cut, and without what looks like a key.
pub(crate) fn for_log(message: &str) -> Cow<'_, str> {
    if tells_of_a_credential(message) {
        return WITHHELD.into();
    }
    let redacted = redact(message);
    if redacted.len() <= LONGEST {
        return redacted;
    }
    let cut = &redacted[..redacted.floor_char_boundary(LONGEST)];
    format!("{cut}…").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_about_signatures_are_withheld_and_keys_masked() {
        let signed = "The Canonical String for this request should have been 'POST\n/model/x/invoke\n\nhost:bedrock\nx-amz-security-token:IQoJb3JpZ2luX2VjEXAMPLE'";
        for message in [signed, "AWS4-HMAC-SHA256 Credential=x", "key ASIAEXAMPLE"] {
            assert_eq!(for_log(message), WITHHELD, "{message}");
        }
        assert_eq!(
            for_log("the key ABSKexampleexampleexample is not valid"),
            "the key ABSK*** is not valid"
        );
        assert_eq!(for_log("Too many tokens"), "Too many tokens");
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let logged = for_log(&"ü".repeat(400)).into_owned();
        assert_eq!(logged, format!("{}…", "ü".repeat(150)));
        let logged = for_log(&format!("a{}", "ü".repeat(400))).into_owned();
        assert_eq!(logged, format!("a{}…", "ü".repeat(149)));
    }
}
