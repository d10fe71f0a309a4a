//! Access keys are kept as `HMAC-SHA256(secret, key)`. Several secrets may be live, so that they can rotate.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::key::base62;

/// The id of a secret that was given without one.
pub const DEFAULT_SECRET_ID: &str = "0";
const SHORTEST_SECRET: usize = 16;

/// Why a hasher setting cannot be used. Never carries a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HasherError {
    /// No secret at all.
    #[error("no secret is given: write `secret`, or `id:secret,id:secret` with the newest first")]
    Empty,
    /// A secret that can be guessed.
    #[error("secret `{0}` is shorter than 16 characters: use at least 32 random ones")]
    TooShort(String),
    /// The same id twice.
    #[error("secret id `{0}` stands twice: give each secret an id of its own")]
    Duplicate(String),
    /// An id that is empty or has other characters.
    #[error("`{0}` is no secret id: use up to 32 of a-z A-Z 0-9 - _")]
    BadId(String),
}

/// The stored form of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The public id of a key that was brought: ten base62 digits of its hash, which tell nothing of the key.
    pub fn brought_key_id(&self) -> String {
        base62(&self.0, 10)
    }
}

struct Secret {
    id: String,
    text: SecretString,
    keyed: Hmac<Sha256>,
}

/// Hashes keys with every live secret.
pub struct KeyHasher {
    secrets: Vec<Secret>,
}

impl KeyHasher {
    /// Reads `secret`, or `id:secret,id:secret` with the newest first. A value without `:` is one secret with id `0`.
    pub fn from_config(config: &SecretString) -> Result<Self, HasherError> {
        let text = config.expose_secret().trim();
        let parts: Vec<(&str, &str)> = if text.contains(':') {
            text.split(',')
                .map(|part| {
                    part.trim()
                        .split_once(':')
                        .unwrap_or((DEFAULT_SECRET_ID, part.trim()))
                })
                .collect()
        } else {
            vec![(DEFAULT_SECRET_ID, text)]
        };
        let mut secrets: Vec<Secret> = Vec::with_capacity(parts.len());
        for (id, secret) in parts {
            if secret.is_empty() {
                return Err(HasherError::Empty);
            }
            let id_is_good = (1..=32).contains(&id.len())
                && id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
            if !id_is_good {
                // A long one may be a secret in the wrong place.
                return Err(HasherError::BadId(
                    id.chars().take(4).collect::<String>() + "…",
                ));
            }
            if secret.len() < SHORTEST_SECRET {
                return Err(HasherError::TooShort(id.to_owned()));
            }
            if secrets.iter().any(|other| other.id == id) {
                return Err(HasherError::Duplicate(id.to_owned()));
            }
            secrets.push(Secret {
                id: id.to_owned(),
                text: SecretString::from(secret),
                keyed: keyed(secret),
            });
        }
        Ok(Self { secrets })
    }

    /// The hash by the newest secret, for new keys, and that secret's id.
    pub fn hash(&self, key: &str) -> (KeyHash, &str) {
        // `from_config` refuses an empty list.
        let newest = &self.secrets[0];
        (newest.hash(key), &newest.id)
    }

    /// The hashes by every live secret, newest first.
    pub fn hashes<'a>(&'a self, key: &'a str) -> impl Iterator<Item = KeyHash> + 'a {
        self.secrets.iter().map(move |secret| secret.hash(key))
    }

    /// A value per secret id that tells whether two processes hold the same secret, and nothing else about it.
    pub fn check_values(&self) -> impl Iterator<Item = (&str, [u8; 32])> {
        self.secrets.iter().map(|secret| {
            (
                secret.id.as_str(),
                check_value(secret.text.expose_secret().as_bytes()),
            )
        })
    }
}

impl fmt::Debug for KeyHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.secrets.iter().map(|secret| &secret.id))
            .finish()
    }
}

impl Secret {
    fn hash(&self, key: &str) -> KeyHash {
        let mut mac = self.keyed.clone();
        mac.update(key.as_bytes());
        KeyHash(mac.finalize().into_bytes().into())
    }
}

fn keyed(secret: &str) -> Hmac<Sha256> {
    // HMAC takes keys of any length; the error type is that of ciphers.
    Hmac::<Sha256>::new_from_slice(secret.as_bytes())
        .unwrap_or_else(|_| unreachable!("HMAC-SHA256 takes a key of any length"))
}

/// `HMAC-SHA256(secret, "spillway key check v1")`.
pub(crate) fn check_value(secret: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)
        .unwrap_or_else(|_| unreachable!("HMAC-SHA256 takes a key of any length"));
    mac.update(b"spillway key check v1");
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hasher(config: &str) -> Result<KeyHasher, HasherError> {
        KeyHasher::from_config(&SecretString::from(config))
    }

    #[test]
    fn a_hash_is_the_hmac_of_the_key() {
        let plain = hasher("a-hasher-secret-of-32-characters").unwrap();
        let (hash, id) = plain.hash("abc");
        assert_eq!(id, DEFAULT_SECRET_ID);
        let hex = hash
            .0
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        // Computed with Python's hmac module.
        assert_eq!(
            hex,
            "33d8c36f4531d7ec01b367ca3cd95a75ebb47548f3be65da4f2012fa9aeb6327"
        );
    }

    #[test]
    fn new_keys_use_the_newest_secret_and_old_ones_are_still_found() {
        let old = hasher("a:first-secret-of-sixteen").unwrap();
        let both = hasher("b:second-secret-of-sixteen,a:first-secret-of-sixteen").unwrap();
        let (stored, _) = old.hash("some-key");
        assert_eq!(both.hash("some-key").1, "b");
        assert_ne!(both.hash("some-key").0, stored);
        assert!(both.hashes("some-key").any(|hash| hash == stored));
    }

    #[test]
    fn bad_settings_say_what_is_wrong_and_never_the_secret() {
        let cases = [
            ("", HasherError::Empty),
            ("a:", HasherError::Empty),
            ("short", HasherError::TooShort("0".into())),
            (
                "a:first-secret-of-sixteen,a:second-secret-of-sixteen",
                HasherError::Duplicate("a".into()),
            ),
        ];
        for (config, error) in cases {
            assert_eq!(hasher(config).unwrap_err(), error);
        }
        let swapped = hasher("long/secret/in/the/wrong/place:id").unwrap_err();
        assert!(!swapped.to_string().contains("secret/in/the"), "{swapped}");
        assert!(!format!("{:?}", hasher("a:first-secret-of-sixteen").unwrap()).contains("first"));
    }

    #[test]
    fn check_values_differ_by_secret_and_are_not_hashes_of_keys() {
        let hasher = hasher("b:second-secret-of-sixteen,a:first-secret-of-sixteen").unwrap();
        let values: Vec<_> = hasher.check_values().collect();
        assert_eq!(
            values.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
            ["b", "a"]
        );
        assert_ne!(values[0].1, values[1].1);
    }
}
