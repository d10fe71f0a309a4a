//! The access key: `sk-spw-<keyId: 10 base62>-<secret: 43 base62><checksum: 6 base62>`.
//!
//! The key id is public. The secret holds 256 random bits. The checksum is the CRC-32 (IEEE) of everything before it, in
//! base62: it lets scanners and the proxy refuse a mistyped key without a look-up.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// What every key that Spillway mints begins with.
pub const PREFIX: &str = "sk-spw-";
const KEY_ID_LEN: usize = 10;
const SECRET_LEN: usize = 43;
const CHECKSUM_LEN: usize = 6;
const KEY_LEN: usize = PREFIX.len() + KEY_ID_LEN + 1 + SECRET_LEN + CHECKSUM_LEN;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Lengths that a key which a tenant brings may have, in characters.
pub const BROUGHT_KEY_LEN: std::ops::RangeInclusive<usize> = 32..=256;

/// Why a text is no access key. Never carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It begins like a key of ours and is cut, too long or has foreign characters.
    #[error("the key is malformed: a Spillway key is {KEY_LEN} characters, `{PREFIX}` first")]
    Malformed,
    /// A character was mistyped or lost.
    #[error("the key is mistyped: its checksum does not match")]
    Checksum,
    /// A brought key outside the allowed lengths.
    #[error("the key has {0} characters: bring one of 32 to 256")]
    Length(usize),
    /// A brought key that could not stand in a URL.
    #[error("the key has characters that are not URL-safe: use A-Z a-z 0-9 - _ . ~ only")]
    Characters,
    /// The operating system gave no randomness.
    #[error("no randomness could be had from the operating system")]
    Randomness,
}

/// A whole key. Its text is a secret, its id is not.
#[derive(Clone)]
pub struct AccessKeyToken {
    text: SecretString,
    id: Option<String>,
}

impl AccessKeyToken {
    /// Mints a key.
    pub fn generate() -> Result<Self, KeyError> {
        let mut text = Zeroizing::new(String::with_capacity(KEY_LEN));
        text.push_str(PREFIX);
        push_random(&mut text, KEY_ID_LEN)?;
        text.push('-');
        push_random(&mut text, SECRET_LEN)?;
        let checksum = checksum(&text);
        text.push_str(&checksum);
        let id = text[PREFIX.len()..PREFIX.len() + KEY_ID_LEN].to_owned();
        Ok(Self {
            text: SecretString::from(text.as_str()),
            id: Some(id),
        })
    }

    /// Reads a key as a client or a Secret holds it: one of ours with a valid checksum, or one that was brought.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Self::parse_brought(text);
        };
        let well_formed = text.len() == KEY_LEN
            && rest.as_bytes()[KEY_ID_LEN] == b'-'
            && rest
                .bytes()
                .enumerate()
                .all(|(at, b)| at == KEY_ID_LEN || b.is_ascii_alphanumeric());
        if !well_formed {
            return Err(KeyError::Malformed);
        }
        let (body, sum) = text.split_at(KEY_LEN - CHECKSUM_LEN);
        if checksum(body) != sum {
            return Err(KeyError::Checksum);
        }
        Ok(Self {
            text: SecretString::from(text),
            id: Some(rest[..KEY_ID_LEN].to_owned()),
        })
    }

    fn parse_brought(text: &str) -> Result<Self, KeyError> {
        if !BROUGHT_KEY_LEN.contains(&text.len()) {
            return Err(KeyError::Length(text.chars().count()));
        }
        if !text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b))
        {
            return Err(KeyError::Characters);
        }
        Ok(Self {
            text: SecretString::from(text),
            id: None,
        })
    }

    /// The public part, or `None` for a brought key, whose id is derived from its hash
    /// ([`KeyHash::brought_key_id`](super::hasher::KeyHash::brought_key_id)).
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// The whole key, for the hasher and the owner's Secret.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl fmt::Debug for AccessKeyToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKeyToken")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Appends `count` evenly distributed base62 digits. 43 of them hold 256 bits.
fn push_random(text: &mut String, count: usize) -> Result<(), KeyError> {
    let mut bytes = Zeroizing::new([0u8; 64]);
    let end = text.len() + count;
    while text.len() < end {
        getrandom::fill(bytes.as_mut()).map_err(|_| KeyError::Randomness)?;
        // 248 is the largest multiple of 62 that a byte can reach: what lies above would favour the first digits.
        let digits = bytes
            .iter()
            .filter(|byte| **byte < 248)
            .map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        text.extend(digits.take(end - text.len()));
    }
    Ok(())
}

fn checksum(body: &str) -> String {
    let mut rest = crc32fast::hash(body.as_bytes());
    let mut digits = [b'0'; CHECKSUM_LEN];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(rest % 62) as usize];
        rest /= 62;
    }
    digits.iter().map(|byte| char::from(*byte)).collect()
}

/// A base62 text of `len` digits made from `bytes`, for ids that are derived and not random.
pub(super) fn base62(bytes: &[u8], len: usize) -> String {
    let mut number = u128::from_be_bytes(std::array::from_fn(|at| {
        bytes.get(at).copied().unwrap_or(0)
    }));
    (0..len)
        .map(|_| {
            let digit = ALPHABET[(number % 62) as usize];
            number /= 62;
            char::from(digit)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_minted_key_has_the_published_form_and_reads_back() {
        let key = AccessKeyToken::generate().unwrap();
        assert_eq!(key.expose().len(), 67);
        assert!(key.expose().starts_with("sk-spw-"));
        let read = AccessKeyToken::parse(key.expose()).unwrap();
        assert_eq!(read.id(), key.id());
        assert_eq!(key.id().unwrap().len(), 10);
    }

    #[test]
    fn keys_do_not_repeat_and_do_not_show() {
        let (a, b) = (
            AccessKeyToken::generate().unwrap(),
            AccessKeyToken::generate().unwrap(),
        );
        assert_ne!(a.expose(), b.expose());
        assert!(!format!("{a:?}").contains(&a.expose()[18..]));
    }

    #[test]
    fn the_checksum_is_the_crc32_in_base62() {
        let body = format!("sk-spw-0123456789-{}", "a".repeat(43));
        let key = format!("{body}{}", checksum(&body));
        assert!(AccessKeyToken::parse(&key).is_ok());
        let number = key[key.len() - 6..].bytes().fold(0u64, |n, b| {
            n * 62 + ALPHABET.iter().position(|d| *d == b).unwrap() as u64
        });
        assert_eq!(number, u64::from(crc32fast::hash(body.as_bytes())));
    }

    #[test]
    fn brought_keys_are_long_and_url_safe() {
        assert!(AccessKeyToken::parse(&"k".repeat(32)).is_ok());
        assert_eq!(
            AccessKeyToken::parse("short").unwrap_err(),
            KeyError::Length(5)
        );
        assert_eq!(
            AccessKeyToken::parse(&"k".repeat(257)).unwrap_err(),
            KeyError::Length(257)
        );
        assert_eq!(
            AccessKeyToken::parse(&format!("{}/", "k".repeat(40))).unwrap_err(),
            KeyError::Characters
        );
    }

    proptest! {
        #[test]
        fn any_mistyped_character_is_noticed(at in 0usize..67, with in proptest::char::range('0', 'z')) {
            let key = AccessKeyToken::generate().unwrap();
            let mut typed: Vec<char> = key.expose().chars().collect();
            prop_assume!(typed[at] != with);
            typed[at] = with;
            let typed: String = typed.into_iter().collect();
            // A prefix that is hit makes it a brought key, which is looked up and not found.
            prop_assert!(at < PREFIX.len() || AccessKeyToken::parse(&typed).is_err());
        }

        #[test]
        fn no_text_makes_the_parser_stumble(text in ".{0,300}") {
            let _ = AccessKeyToken::parse(&text);
            let _ = AccessKeyToken::parse(&format!("{PREFIX}{text}"));
        }
    }
}
