//! Envelope encryption of credentials at rest.
//!
//! Each record has a data key of its own, which AWS KMS makes and wraps, or which is wrapped under a local key. The data
//! key encrypts with AES-256-GCM under a fresh 96-bit nonce; the associated data binds table, row and column, so that
//! ciphertexts cannot be swapped. Layout of a sealed record:
//!
//! `version (1) | kind (1) | len u16 | wrapping key id | len u16 | wrapped data key | nonce (12) | ciphertext and tag`

use std::fmt;

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::kms::Kms;
use super::local::{LocalKeyError, LocalKeys};

const VERSION: u8 = 1;
const NONCE_LEN: usize = 12;
pub(super) const DATA_KEY_LEN: usize = 32;

/// The column that a ciphertext belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordBinding {
    /// Table name.
    pub table: &'static str,
    /// The row's primary key.
    pub row: Uuid,
    /// Column name.
    pub column: &'static str,
}

impl RecordBinding {
    fn associated_data(&self) -> Vec<u8> {
        format!("spillway/v1\0{}\0{}\0{}", self.table, self.row, self.column).into_bytes()
    }
}

/// A ciphertext with all that is needed to open it but the wrapping key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(pub Vec<u8>);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Why a record could not be sealed or opened. Carries no plaintext.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// The bytes are no sealed record of a version that this binary knows.
    #[error("the sealed record is damaged or of a newer format")]
    Malformed,
    /// The tag does not match: another row's ciphertext, a changed byte, or a wrong key.
    #[error("the sealed record does not belong to {table}.{column} of row {row}, or was changed")]
    Authentication {
        /// Table of the binding.
        table: &'static str,
        /// Column of the binding.
        column: &'static str,
        /// Row of the binding.
        row: Uuid,
    },
    /// The wrapping key is not among those configured.
    #[error(
        "the record is sealed with key `{0}`, which is not configured: add it to PROXY_LOCAL_ENCRYPTION_KEY or set PROXY_KMS_KEY_ID"
    )]
    UnknownKey(String),
    /// AWS KMS refused or could not be reached.
    #[error("AWS KMS could not {operation} with key `{key_id}`: {message}")]
    Kms {
        /// `GenerateDataKey` or `Decrypt`.
        operation: &'static str,
        /// The KMS key.
        key_id: String,
        /// AWS' error code, without its message, which may name accounts.
        message: String,
        /// Whether trying again may help.
        retryable: bool,
    },
    /// The operating system gave no randomness.
    #[error("no randomness could be had from the operating system")]
    Randomness,
}

impl EnvelopeError {
    /// Whether the same call may succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Kms {
                retryable: true,
                ..
            }
        )
    }
}

/// Seals with one key and opens with every configured one.
#[derive(Debug, Clone)]
pub struct Envelope {
    local: Option<LocalKeys>,
    kms: Option<Kms>,
}

#[derive(Clone, Copy)]
enum Kind {
    Local = 1,
    Kms = 2,
}

impl Envelope {
    /// An envelope from `PROXY_LOCAL_ENCRYPTION_KEY` alone: `key`, or `id:key,id:key` with the newest first; a key is 32
    /// raw bytes or their base64.
    pub fn local(config: &SecretString) -> Result<Self, LocalKeyError> {
        Ok(Self {
            local: Some(LocalKeys::from_config(config)?),
            kms: None,
        })
    }

    /// An envelope that seals with AWS KMS and still opens what the local keys sealed.
    pub fn kms(
        client: aws_sdk_kms::Client,
        key_id: impl Into<String>,
        local: Option<&SecretString>,
    ) -> Result<Self, LocalKeyError> {
        let local = local.map(LocalKeys::from_config).transpose()?;
        Ok(Self {
            local,
            kms: Some(Kms::new(client, key_id.into())),
        })
    }

    /// The id of the key that new records are sealed with: `kms:<key id>` or `local:<id>`.
    pub fn encrypted_with(&self) -> String {
        match (&self.kms, &self.local) {
            (Some(kms), _) => format!("kms:{}", kms.key_id()),
            (None, Some(local)) => format!("local:{}", local.newest().id()),
            (None, None) => String::new(),
        }
    }

    /// A value per local key id that tells whether two processes hold the same key, and nothing else about it.
    pub fn check_values(&self) -> Vec<(String, [u8; 32])> {
        self.local
            .iter()
            .flat_map(LocalKeys::check_values)
            .collect()
    }

    /// Encrypts `plaintext` for the column that `binding` names.
    pub async fn seal(
        &self,
        binding: &RecordBinding,
        plaintext: &[u8],
    ) -> Result<Sealed, EnvelopeError> {
        let (kind, key_id, data_key, wrapped) = match (&self.kms, &self.local) {
            (Some(kms), _) => {
                let (data_key, wrapped) = kms.generate_data_key(binding).await?;
                (Kind::Kms, kms.key_id(), data_key, wrapped)
            }
            (None, Some(local)) => {
                let data_key = random_data_key()?;
                let wrapped =
                    encrypt(local.newest().key(), &wrap_data(binding), data_key.as_ref())?;
                (Kind::Local, local.newest().id(), data_key, wrapped)
            }
            (None, None) => return Err(EnvelopeError::UnknownKey("none".into())),
        };
        let mut sealed = vec![VERSION, kind as u8];
        push_field(&mut sealed, key_id.as_bytes())?;
        push_field(&mut sealed, &wrapped)?;
        sealed.extend(encrypt(&data_key, &binding.associated_data(), plaintext)?);
        Ok(Sealed(sealed))
    }

    /// Decrypts what [`seal`](Self::seal) made for the same `binding`.
    pub async fn open(
        &self,
        binding: &RecordBinding,
        sealed: &Sealed,
    ) -> Result<SecretString, EnvelopeError> {
        let record = Record::read(&sealed.0).ok_or(EnvelopeError::Malformed)?;
        let data_key = match (record.kind, &self.local, &self.kms) {
            (Kind::Local, Some(local), _) => {
                let key = local
                    .named(record.key_id)
                    .ok_or_else(|| EnvelopeError::UnknownKey(format!("local:{}", record.key_id)))?;
                let bytes = decrypt(key.key(), &wrap_data(binding), record.wrapped, binding)?;
                to_data_key(&bytes)?
            }
            (Kind::Kms, _, Some(kms)) => {
                kms.decrypt(binding, record.key_id, record.wrapped).await?
            }
            (Kind::Local, None, _) => {
                return Err(EnvelopeError::UnknownKey(format!(
                    "local:{}",
                    record.key_id
                )));
            }
            (Kind::Kms, _, None) => {
                return Err(EnvelopeError::UnknownKey(format!("kms:{}", record.key_id)));
            }
        };
        let plaintext = decrypt(
            &data_key,
            &binding.associated_data(),
            record.ciphertext,
            binding,
        )?;
        let text = std::str::from_utf8(&plaintext).map_err(|_| EnvelopeError::Malformed)?;
        Ok(SecretString::from(text))
    }

    /// Seals a secret text; see [`seal`](Self::seal).
    pub async fn seal_text(
        &self,
        binding: &RecordBinding,
        secret: &SecretString,
    ) -> Result<Sealed, EnvelopeError> {
        self.seal(binding, secret.expose_secret().as_bytes()).await
    }
}

pub(super) type DataKey = Zeroizing<[u8; DATA_KEY_LEN]>;

pub(super) fn to_data_key(bytes: &[u8]) -> Result<DataKey, EnvelopeError> {
    bytes
        .try_into()
        .map(Zeroizing::new)
        .map_err(|_| EnvelopeError::Malformed)
}

fn random_data_key() -> Result<DataKey, EnvelopeError> {
    let mut key = Zeroizing::new([0; DATA_KEY_LEN]);
    getrandom::fill(key.as_mut()).map_err(|_| EnvelopeError::Randomness)?;
    Ok(key)
}

fn wrap_data(binding: &RecordBinding) -> Vec<u8> {
    let mut data = b"data key\0".to_vec();
    data.extend(binding.associated_data());
    data
}

/// `nonce | ciphertext and tag`.
fn encrypt(
    key: &[u8; DATA_KEY_LEN],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Vec<u8>, EnvelopeError> {
    let mut nonce = [0; NONCE_LEN];
    getrandom::fill(&mut nonce).map_err(|_| EnvelopeError::Randomness)?;
    let ciphertext = Aes256Gcm::new(key.into())
        .encrypt(
            &Nonce::from(nonce),
            Payload {
                msg: plaintext,
                aad,
            },
        )
        .map_err(|_| EnvelopeError::Malformed)?;
    Ok([nonce.as_slice(), &ciphertext].concat())
}

fn decrypt(
    key: &[u8; DATA_KEY_LEN],
    aad: &[u8],
    sealed: &[u8],
    binding: &RecordBinding,
) -> Result<Zeroizing<Vec<u8>>, EnvelopeError> {
    let (nonce, ciphertext) = sealed
        .split_first_chunk::<NONCE_LEN>()
        .ok_or(EnvelopeError::Malformed)?;
    Aes256Gcm::new(key.into())
        .decrypt(
            &Nonce::from(*nonce),
            Payload {
                msg: ciphertext,
                aad,
            },
        )
        .map(Zeroizing::new)
        .map_err(|_| EnvelopeError::Authentication {
            table: binding.table,
            column: binding.column,
            row: binding.row,
        })
}

fn push_field(record: &mut Vec<u8>, field: &[u8]) -> Result<(), EnvelopeError> {
    let len = u16::try_from(field.len()).map_err(|_| EnvelopeError::Malformed)?;
    record.extend(len.to_be_bytes());
    record.extend(field);
    Ok(())
}

/// The parts of a sealed record.
struct Record<'a> {
    kind: Kind,
    key_id: &'a str,
    wrapped: &'a [u8],
    ciphertext: &'a [u8],
}

impl<'a> Record<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (&[version, kind], rest) = bytes.split_first_chunk::<2>()?;
        let kind = match (version, kind) {
            (VERSION, 1) => Kind::Local,
            (VERSION, 2) => Kind::Kms,
            _ => return None,
        };
        let (key_id, rest) = take_field(rest)?;
        let (wrapped, ciphertext) = take_field(rest)?;
        Some(Self {
            kind,
            key_id: std::str::from_utf8(key_id).ok()?,
            wrapped,
            ciphertext,
        })
    }
}

fn take_field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*len).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const OLD: &str = "old:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const NEW: &str = "new:ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";

    fn envelope(config: &str) -> Envelope {
        Envelope::local(&SecretString::from(config)).unwrap()
    }

    fn binding(row: u128) -> RecordBinding {
        RecordBinding {
            table: "plan_keys",
            row: Uuid::from_u128(row),
            column: "sealed",
        }
    }

    #[tokio::test]
    async fn what_was_sealed_opens_for_its_own_column_only() {
        let envelope = envelope(OLD);
        let sealed = envelope.seal(&binding(1), b"sk-ant-secret").await.unwrap();
        assert_eq!(
            envelope
                .open(&binding(1), &sealed)
                .await
                .unwrap()
                .expose_secret(),
            "sk-ant-secret"
        );
        let elsewhere = [
            binding(2),
            RecordBinding {
                table: "bedrock_keys",
                ..binding(1)
            },
            RecordBinding {
                column: "other",
                ..binding(1)
            },
        ];
        for other in elsewhere {
            assert!(
                matches!(
                    envelope.open(&other, &sealed).await,
                    Err(EnvelopeError::Authentication { .. })
                ),
                "{other:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_new_key_seals_and_the_old_one_still_opens() {
        let sealed = envelope(OLD).seal(&binding(1), b"secret").await.unwrap();
        let both = envelope(&format!("{NEW},{OLD}"));
        assert_eq!(both.encrypted_with(), "local:new");
        assert_eq!(
            both.open(&binding(1), &sealed)
                .await
                .unwrap()
                .expose_secret(),
            "secret"
        );
        let error = envelope(NEW).open(&binding(1), &sealed).await.unwrap_err();
        assert!(
            matches!(&error, EnvelopeError::UnknownKey(id) if id == "local:old"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_same_text_never_seals_to_the_same_bytes() {
        let envelope = envelope(OLD);
        let (a, b) = (
            envelope.seal(&binding(1), b"secret").await.unwrap(),
            envelope.seal(&binding(1), b"secret").await.unwrap(),
        );
        assert_ne!(a, b);
        assert!(!format!("{a:?}").contains("secret"));
    }

    proptest! {
        #[test]
        fn changed_or_foreign_bytes_never_open(at in any::<prop::sample::Index>(), flip in 1u8.., foreign in proptest::collection::vec(any::<u8>(), 0..200)) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let envelope = envelope(OLD);
                let mut sealed = envelope.seal(&binding(1), b"secret").await.unwrap();
                let at = at.index(sealed.0.len());
                sealed.0[at] ^= flip;
                assert!(envelope.open(&binding(1), &sealed).await.is_err());
                assert!(envelope.open(&binding(1), &Sealed(foreign)).await.is_err());
            });
        }
    }
}
