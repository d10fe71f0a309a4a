//! The plaintext forms of upstream credentials. Sealed as JSON text, never stored or shown otherwise.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::envelope::{Envelope, EnvelopeError, RecordBinding, Sealed};

/// How calls to Bedrock are authenticated.
#[derive(Clone)]
pub enum BedrockSecret {
    /// Static AWS credentials, for `SigV4`.
    AccessKeys {
        /// `AWS_ACCESS_KEY_ID`.
        access_key_id: String,
        /// `AWS_SECRET_ACCESS_KEY`.
        secret_access_key: SecretString,
        /// `AWS_SESSION_TOKEN`.
        session_token: Option<SecretString>,
    },
    /// A Bedrock API key, sent as bearer token.
    ApiKey(SecretString),
    /// The proxy pod's own AWS identity.
    PodIdentity,
}

/// The JSON that is sealed.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Stored<'a> {
    AccessKeys {
        access_key_id: std::borrow::Cow<'a, str>,
        secret_access_key: std::borrow::Cow<'a, str>,
        session_token: Option<std::borrow::Cow<'a, str>>,
    },
    ApiKey {
        token: std::borrow::Cow<'a, str>,
    },
    PodIdentity,
}

impl BedrockSecret {
    /// The column that holds a Bedrock credential.
    pub const fn binding(row: uuid::Uuid) -> RecordBinding {
        RecordBinding {
            table: "bedrock_keys",
            row,
            column: "sealed",
        }
    }

    /// Seals the credential for its row.
    pub async fn seal(
        &self,
        envelope: &Envelope,
        row: uuid::Uuid,
    ) -> Result<Sealed, EnvelopeError> {
        let stored = match self {
            Self::AccessKeys {
                access_key_id,
                secret_access_key,
                session_token,
            } => Stored::AccessKeys {
                access_key_id: access_key_id.into(),
                secret_access_key: secret_access_key.expose_secret().into(),
                session_token: session_token
                    .as_ref()
                    .map(|token| token.expose_secret().into()),
            },
            Self::ApiKey(token) => Stored::ApiKey {
                token: token.expose_secret().into(),
            },
            Self::PodIdentity => Stored::PodIdentity,
        };
        let json =
            Zeroizing::new(serde_json::to_vec(&stored).map_err(|_| EnvelopeError::Malformed)?);
        envelope.seal(&Self::binding(row), &json).await
    }

    /// Opens a credential of its row.
    pub async fn open(
        envelope: &Envelope,
        row: uuid::Uuid,
        sealed: &Sealed,
    ) -> Result<Self, EnvelopeError> {
        let json = envelope.open(&Self::binding(row), sealed).await?;
        let stored =
            serde_json::from_str(json.expose_secret()).map_err(|_| EnvelopeError::Malformed)?;
        Ok(match stored {
            Stored::AccessKeys {
                access_key_id,
                secret_access_key,
                session_token,
            } => Self::AccessKeys {
                access_key_id: access_key_id.into_owned(),
                secret_access_key: secret_access_key.into_owned().into(),
                session_token: session_token.map(|token| token.into_owned().into()),
            },
            Stored::ApiKey { token } => Self::ApiKey(token.into_owned().into()),
            Stored::PodIdentity => Self::PodIdentity,
        })
    }
}

impl fmt::Debug for BedrockSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AccessKeys { .. } => "AccessKeys",
            Self::ApiKey(_) => "ApiKey",
            Self::PodIdentity => "PodIdentity",
        })
    }
}

/// An Anthropic Console API key.
#[derive(Debug, Clone)]
pub struct PlanSecret(pub SecretString);

/// Why a text cannot be a Plan key. Never carries the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlanKeyError {
    /// A claude.ai subscription's token.
    #[error(
        "it is a claude.ai OAuth token (sk-ant-oat…), which may not serve others: create an API key in the Anthropic Console and store that"
    )]
    OAuthToken,
    /// Nothing there.
    #[error("it is empty: store an Anthropic Console API key")]
    Empty,
    /// A line break, a quote, or another character that no header can carry.
    #[error(
        "it has characters that no HTTP header can carry: store the API key alone, without quotes or line breaks"
    )]
    Characters,
}

impl PlanSecret {
    /// Takes an API key as it stands in a Secret or the environment; surrounding white space is cut off.
    pub fn parse(text: &str) -> Result<Self, PlanKeyError> {
        let key = text.trim();
        if key.is_empty() {
            return Err(PlanKeyError::Empty);
        }
        if key.starts_with("sk-ant-oat") {
            return Err(PlanKeyError::OAuthToken);
        }
        if !key
            .bytes()
            .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\'')
        {
            return Err(PlanKeyError::Characters);
        }
        Ok(Self(SecretString::from(key)))
    }

    /// The column that holds a Plan key.
    pub const fn binding(row: uuid::Uuid) -> RecordBinding {
        RecordBinding {
            table: "plan_keys",
            row,
            column: "sealed",
        }
    }

    /// Seals the key for its row.
    pub async fn seal(
        &self,
        envelope: &Envelope,
        row: uuid::Uuid,
    ) -> Result<Sealed, EnvelopeError> {
        envelope.seal_text(&Self::binding(row), &self.0).await
    }

    /// Opens the key of a row.
    pub async fn open(
        envelope: &Envelope,
        row: uuid::Uuid,
        sealed: &Sealed,
    ) -> Result<Self, EnvelopeError> {
        envelope.open(&Self::binding(row), sealed).await.map(Self)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn credentials_survive_sealing_and_do_not_show() {
        let envelope = Envelope::local(&"0123456789abcdef0123456789abcdef".into()).unwrap();
        let row = Uuid::from_u128(7);
        let secret = BedrockSecret::AccessKeys {
            access_key_id: "AKIAEXAMPLE".into(),
            secret_access_key: "very/secret".into(),
            session_token: Some("token".into()),
        };
        assert!(!format!("{secret:?}").contains("secret"));
        let sealed = secret.seal(&envelope, row).await.unwrap();
        let BedrockSecret::AccessKeys {
            access_key_id,
            secret_access_key,
            session_token,
        } = BedrockSecret::open(&envelope, row, &sealed).await.unwrap()
        else {
            panic!("another kind came back")
        };
        assert_eq!(access_key_id, "AKIAEXAMPLE");
        assert_eq!(secret_access_key.expose_secret(), "very/secret");
        assert_eq!(session_token.unwrap().expose_secret(), "token");
    }

    #[test]
    fn only_console_keys_may_be_plan_keys() {
        assert_eq!(
            PlanSecret::parse("sk-ant-oat01-abc").unwrap_err(),
            PlanKeyError::OAuthToken
        );
        assert_eq!(PlanSecret::parse(" \n").unwrap_err(), PlanKeyError::Empty);
        assert_eq!(
            PlanSecret::parse("sk-ant-\napi").unwrap_err(),
            PlanKeyError::Characters
        );
        assert_eq!(
            PlanSecret::parse("sk-ant-api03-abc\n")
                .unwrap()
                .0
                .expose_secret(),
            "sk-ant-api03-abc"
        );
    }
}
