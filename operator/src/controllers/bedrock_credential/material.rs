//! The credential that a Secret holds.

use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};
use spillway_core::security::credentials::BedrockSecret;
use zeroize::Zeroizing;

use super::super::conditions::Problem;
use super::super::references::secret_entry;
use super::plan::Desired;

pub(super) const ACCESS_KEY_ID: &str = "AWS_ACCESS_KEY_ID";
pub(super) const SECRET_ACCESS_KEY: &str = "AWS_SECRET_ACCESS_KEY";
pub(super) const SESSION_TOKEN: &str = "AWS_SESSION_TOKEN";

impl Desired {
    /// The credential that `secret` holds.
    pub fn material(&self, secret: Option<&Secret>) -> Result<BedrockSecret, Problem> {
        if let Some(reference) = &self.auth.secret_ref {
            let field = "spec.auth.secretRef";
            let entry = |key| {
                let text = secret_entry(secret, field, &self.namespace, &reference.name, key)?;
                one_line(&text, field, &self.namespace, &reference.name, key)
            };
            let has_token = secret
                .and_then(|secret| secret.data.as_ref())
                .is_some_and(|data| data.contains_key(SESSION_TOKEN));
            return Ok(BedrockSecret::AccessKeys {
                access_key_id: entry(ACCESS_KEY_ID)?.expose_secret().to_owned(),
                secret_access_key: entry(SECRET_ACCESS_KEY)?,
                session_token: if has_token {
                    Some(entry(SESSION_TOKEN)?)
                } else {
                    None
                },
            });
        }
        if let Some(reference) = &self.auth.api_key_secret_ref {
            let field = "spec.auth.apiKeySecretRef";
            let text = secret_entry(
                secret,
                field,
                &self.namespace,
                &reference.name,
                &reference.key,
            )?;
            return one_line(
                &text,
                field,
                &self.namespace,
                &reference.name,
                &reference.key,
            )
            .map(BedrockSecret::ApiKey);
        }
        Ok(BedrockSecret::PodIdentity)
    }
}

/// A value that a header can carry: one line of visible ASCII, without the line break that editors leave behind.
fn one_line(
    text: &SecretString,
    field: &str,
    namespace: &str,
    name: &str,
    key: &str,
) -> Result<SecretString, Problem> {
    let value = text.expose_secret().trim();
    if value.is_empty() || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::reference(
            "CredentialInvalid",
            format!(
                "{field} names key {key} of Secret {namespace}/{name}, which is empty or has characters that no AWS credential \
                 has: store the value alone, without quotes or line breaks"
            ),
        ));
    }
    Ok(SecretString::from(value))
}

/// One text for one credential, to be fingerprinted.
pub(super) fn canonical(material: &BedrockSecret) -> Zeroizing<String> {
    Zeroizing::new(match material {
        BedrockSecret::AccessKeys {
            access_key_id,
            secret_access_key,
            session_token,
        } => format!(
            "access_keys\n{access_key_id}\n{}\n{}",
            secret_access_key.expose_secret(),
            session_token
                .as_ref()
                .map_or("", |token| token.expose_secret()),
        ),
        BedrockSecret::ApiKey(token) => format!("api_key\n{}", token.expose_secret()),
        BedrockSecret::PodIdentity => "pod_identity".to_owned(),
    })
}
