//! Whom requests are signed as.

use aws_credential_types::provider::ProvideCredentials as _;
use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::identity::Identity;
use secrecy::SecretString;
use spillway_core::security::credentials::BedrockSecret;

use crate::adapter::bedrock::{PodCredentials, static_credentials};

/// How a request proves where it is from.
pub(super) enum Proof {
    /// It is signed.
    Signature(Identity),
    /// It carries a Bedrock API key.
    Bearer(SecretString),
}

/// The pod has no credentials.
#[derive(Debug, thiserror::Error)]
#[error("the pod's own AWS credentials cannot be had")]
pub(super) struct NoIdentity(#[source] CredentialsError);

/// What a request with this secret is sent with.
pub(super) async fn proof(secret: &BedrockSecret) -> Result<Proof, NoIdentity> {
    let credentials = match secret {
        BedrockSecret::AccessKeys {
            access_key_id,
            secret_access_key,
            session_token,
        } => static_credentials(access_key_id, secret_access_key, session_token.as_ref()),
        BedrockSecret::ApiKey(key) => return Ok(Proof::Bearer(key.clone())),
        BedrockSecret::PodIdentity => PodCredentials
            .provide_credentials()
            .await
            .map_err(NoIdentity)?,
    };
    Ok(Proof::Signature(credentials.into()))
}
