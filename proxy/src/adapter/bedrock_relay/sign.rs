//! Signs a request over exactly what is sent.

use std::time::SystemTime;

use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_smithy_runtime_api::client::identity::Identity;
use bytes::Bytes;
use http::Request;
use http::header::AUTHORIZATION;

/// What Bedrock's signatures are scoped to.
const SERVICE: &str = "bedrock";

/// Why a request cannot be signed.
#[derive(Debug, thiserror::Error)]
#[error("the request cannot be signed")]
pub(super) struct SignError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl SignError {
    fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(error.into())
    }
}

/// Signs `request` with AWS Signature Version 4. All its headers are signed, `host` included.
pub(super) fn sign_v4(
    request: &mut Request<Bytes>,
    identity: &Identity,
    region: &str,
    now: SystemTime,
) -> Result<(), SignError> {
    let params = v4::SigningParams::builder()
        .identity(identity)
        .region(region)
        .name(SERVICE)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(SignError::new)?
        .into();
    let headers = request
        .headers()
        .iter()
        .map(|(name, value)| Ok((name.as_str(), value.to_str().map_err(SignError::new)?)))
        .collect::<Result<Vec<_>, SignError>>()?;
    let signable = SignableRequest::new(
        request.method().as_str(),
        request.uri().to_string(),
        headers.into_iter(),
        SignableBody::Bytes(request.body()),
    )
    .map_err(SignError::new)?;
    let (instructions, _) = sign(signable, &params)
        .map_err(SignError::new)?
        .into_parts();
    instructions.apply_to_request_http1x(request);
    if let Some(signature) = request.headers_mut().get_mut(AUTHORIZATION) {
        signature.set_sensitive(true);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_credential_types::Credentials;

    use super::*;

    #[test]
    fn every_header_is_signed_and_a_session_token_goes_with_it() {
        let mut request = Request::builder()
            .method("POST")
            .uri("https://bedrock-runtime.eu-west-1.amazonaws.com/model/a%3Ab/invoke")
            .header("host", "bedrock-runtime.eu-west-1.amazonaws.com")
            .header("content-type", "application/json")
            .header("x-amzn-bedrock-trace", "ENABLED")
            .body(Bytes::from_static(b"{}"))
            .unwrap();
        let identity = Credentials::new("AKIA1", "secret", Some("token".into()), None, "t").into();
        let now = UNIX_EPOCH + Duration::from_hours(500_000);
        sign_v4(&mut request, &identity, "eu-west-1", now).unwrap();
        let authorization = &request.headers()["authorization"];
        assert!(authorization.is_sensitive());
        let text = authorization.to_str().unwrap();
        assert!(
            text.contains("Credential=AKIA1/20270115/eu-west-1/bedrock/aws4_request"),
            "{text}"
        );
        assert!(
            text.contains("SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amzn-bedrock-trace"),
            "{text}"
        );
        assert_eq!(request.headers()["x-amz-security-token"], "token");
    }
}
