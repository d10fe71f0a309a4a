//! Local wrapping keys, for installations without AWS KMS.

use std::fmt;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::envelope::{DATA_KEY_LEN, DataKey};
use super::hasher::{DEFAULT_SECRET_ID, check_value};

/// Why a local encryption key cannot be used. Never carries the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LocalKeyError {
    /// Neither 32 raw bytes nor their base64.
    #[error(
        "key `{0}` is not 32 bytes: give 32 raw bytes or their base64 (`openssl rand -base64 32`)"
    )]
    BadKey(String),
    /// An id that is empty or has other characters.
    #[error(
        "a key id must be up to 32 of a-z A-Z 0-9 - _: write `id:key,id:key` with the newest first"
    )]
    BadId,
    /// The same id twice.
    #[error("key id `{0}` stands twice: give each key an id of its own")]
    Duplicate(String),
}

/// The configured keys, newest first.
#[derive(Clone)]
pub(super) struct LocalKeys(Arc<[LocalKey]>);

/// A wrapping key and its public id.
pub(super) struct LocalKey {
    id: String,
    key: DataKey,
}

impl LocalKey {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn key(&self) -> &[u8; DATA_KEY_LEN] {
        &self.key
    }
}

impl LocalKeys {
    pub(super) fn from_config(config: &SecretString) -> Result<Self, LocalKeyError> {
        let text = config.expose_secret();
        if let Some(key) = read_key(text) {
            return Ok(Self(
                [LocalKey {
                    id: DEFAULT_SECRET_ID.to_owned(),
                    key,
                }]
                .into(),
            ));
        }
        let mut keys: Vec<LocalKey> = Vec::new();
        for part in text.trim().split(',') {
            let (id, key) = part
                .trim()
                .split_once(':')
                .ok_or_else(|| LocalKeyError::BadKey(DEFAULT_SECRET_ID.to_owned()))?;
            if !(1..=32).contains(&id.len())
                || !id
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            {
                return Err(LocalKeyError::BadId);
            }
            let key = read_key(key).ok_or_else(|| LocalKeyError::BadKey(id.to_owned()))?;
            if keys.iter().any(|other| other.id == id) {
                return Err(LocalKeyError::Duplicate(id.to_owned()));
            }
            keys.push(LocalKey {
                id: id.to_owned(),
                key,
            });
        }
        Ok(Self(keys.into()))
    }

    pub(super) fn newest(&self) -> &LocalKey {
        // `from_config` never makes an empty list.
        &self.0[0]
    }

    pub(super) fn named(&self, id: &str) -> Option<&LocalKey> {
        self.0.iter().find(|key| key.id == id)
    }

    pub(super) fn check_values(&self) -> impl Iterator<Item = (String, [u8; 32])> {
        self.0
            .iter()
            .map(|key| (key.id.clone(), check_value(key.key.as_ref())))
    }
}

impl fmt::Debug for LocalKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|key| &key.id))
            .finish()
    }
}

/// 32 raw bytes, or any base64 of 32 bytes. Raw first: 32 characters of base64 would be 24 bytes.
fn read_key(text: &str) -> Option<DataKey> {
    if let Ok(raw) = text.as_bytes().try_into() {
        return Some(Zeroizing::new(raw));
    }
    let text = text.trim();
    let decoded = [STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD]
        .iter()
        .find_map(|engine| engine.decode(text).ok())?;
    Zeroizing::new(decoded)
        .as_slice()
        .try_into()
        .ok()
        .map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_raw_bytes_or_their_base64() {
        let raw = LocalKeys::from_config(&"0123456789abcdef0123456789abcdef".into()).unwrap();
        let encoded =
            LocalKeys::from_config(&"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\n".into())
                .unwrap();
        assert_eq!(raw.newest().key(), encoded.newest().key());
        assert_eq!(raw.newest().id(), "0");
    }

    #[test]
    fn bad_keys_are_named_by_id_and_never_shown() {
        for (config, error) in [
            ("too short", LocalKeyError::BadKey("0".into())),
            ("a:dG9vIHNob3J0", LocalKeyError::BadKey("a".into())),
            (":0123456789abcdef0123456789abcdef", LocalKeyError::BadId),
            (
                "a:0123456789abcdef0123456789abcdef,a:0123456789abcdef0123456789abcdef",
                LocalKeyError::Duplicate("a".into()),
            ),
        ] {
            assert_eq!(
                LocalKeys::from_config(&config.into()).unwrap_err(),
                error,
                "{config}"
            );
        }
    }
}
