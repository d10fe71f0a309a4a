//! Checks AWS Signature Version 4 by making the signature again from the request as it arrived.
//!
//! The canonical request is written here by hand, from the AWS documentation ("Create a signed AWS API request"), so
//! that a mistake of the signing library is not repeated in the check; only the key derivation and HMAC are borrowed.

use std::{fmt::Write, time::SystemTime};

use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};

use super::{config::AwsCredentials, journal::sha256_hex, received::Received};

const SERVICE: &str = "bedrock";
const MAX_SKEW: TimeDelta = TimeDelta::minutes(5);

/// Why a signature was refused. Display is the message AWS answers with.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("Authorization header requires '{0}' parameter.")]
    Incomplete(&'static str),
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    #[error("Credential should be scoped to {0}.")]
    Scope(String),
    #[error("'{0}' must be a 'SignedHeader' in the AWS Authorization.")]
    Unsigned(String),
    #[error("Signature expired or not yet current: {0}")]
    Expired(String),
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    PayloadHash,
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

impl SignatureError {
    /// The exception's name.
    pub(crate) fn exception(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationTokenException",
            Self::Incomplete(_) => "IncompleteSignatureException",
            Self::UnknownKey => "UnrecognizedClientException",
            Self::Scope(_)
            | Self::Unsigned(_)
            | Self::Expired(_)
            | Self::PayloadHash
            | Self::Mismatch => "InvalidSignatureException",
        }
    }
}

struct Authorization<'a> {
    access_key_id: &'a str,
    date: &'a str,
    region: &'a str,
    service: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn parse(value: &'a str) -> Result<Self, SignatureError> {
        let fields = value
            .strip_prefix("AWS4-HMAC-SHA256")
            .ok_or(SignatureError::Missing)?;
        let field = |name: &'static str| {
            fields
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='))
                .ok_or(SignatureError::Incomplete(name))
        };
        let credential = field("Credential")?;
        let parts: Vec<&str> = credential.split('/').collect();
        let [access_key_id, date, region, service, "aws4_request"] = parts[..] else {
            return Err(SignatureError::Scope(
                "a valid date, region, service and 'aws4_request'".to_owned(),
            ));
        };
        Ok(Self {
            access_key_id,
            date,
            region,
            service,
            signed_headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
        })
    }
}

/// Checks a request against the principals that are accepted.
pub(crate) fn verify(
    request: &Received,
    principals: &[AwsCredentials],
    region: Option<&str>,
    now: SystemTime,
) -> Result<(), SignatureError> {
    let authorization = Authorization::parse(
        request
            .header("authorization")
            .ok_or(SignatureError::Missing)?,
    )?;
    let principal = principals
        .iter()
        .find(|principal| principal.access_key_id == authorization.access_key_id)
        .filter(|principal| {
            principal.session_token.as_deref() == request.header("x-amz-security-token")
        })
        .ok_or(SignatureError::UnknownKey)?;
    if authorization.service != SERVICE {
        return Err(SignatureError::Scope(format!(
            "correct service: '{SERVICE}'"
        )));
    }
    if let Some(region) = region.filter(|region| *region != authorization.region) {
        return Err(SignatureError::Scope(format!("a valid region: '{region}'")));
    }
    must_be_signed(request, &authorization)?;
    let timestamp = request
        .header("x-amz-date")
        .ok_or(SignatureError::Incomplete("X-Amz-Date"))?;
    let time = NaiveDateTime::parse_from_str(timestamp, "%Y%m%dT%H%M%SZ")
        .map_err(|_| SignatureError::Incomplete("X-Amz-Date"))?
        .and_utc();
    if (DateTime::<Utc>::from(now) - time).abs() > MAX_SKEW
        || !timestamp.starts_with(authorization.date)
    {
        return Err(SignatureError::Expired(timestamp.to_owned()));
    }
    let payload_hash = sha256_hex(&request.body);
    if request
        .header("x-amz-content-sha256")
        .is_some_and(|hash| hash != payload_hash)
    {
        return Err(SignatureError::PayloadHash);
    }
    let scope = format!(
        "{}/{}/{}/aws4_request",
        authorization.date, authorization.region, authorization.service
    );
    let canonical = canonical_request(request, &authorization.signed_headers, &payload_hash);
    let to_sign = format!(
        "AWS4-HMAC-SHA256\n{timestamp}\n{scope}\n{}",
        sha256_hex(canonical.as_bytes())
    );
    let key = generate_signing_key(
        &principal.secret_access_key,
        time.into(),
        authorization.region,
        SERVICE,
    );
    if calculate_signature(key, to_sign.as_bytes()) == authorization.signature {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

/// `host`, and everything AWS itself reads, must be part of the signature.
fn must_be_signed(request: &Received, authorization: &Authorization) -> Result<(), SignatureError> {
    let amz = request
        .headers
        .keys()
        .map(http::HeaderName::as_str)
        .filter(|name| name.starts_with("x-amz-"));
    for name in ["host"].into_iter().chain(amz) {
        if !authorization.signed_headers.contains(&name) {
            return Err(SignatureError::Unsigned(name.to_owned()));
        }
    }
    Ok(())
}

fn canonical_request(request: &Received, signed_headers: &[&str], payload_hash: &str) -> String {
    let mut canonical = format!(
        "{}\n{}\n{}\n",
        request.method,
        canonical_path(&request.path),
        canonical_query(request.query.as_deref().unwrap_or_default()),
    );
    for name in signed_headers {
        let values: Vec<String> = request
            .headers
            .get_all(*name)
            .iter()
            .map(|value| {
                String::from_utf8_lossy(value.as_bytes())
                    .split_ascii_whitespace()
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect();
        canonical.push_str(name);
        canonical.push(':');
        canonical.push_str(&values.join(","));
        canonical.push('\n');
    }
    canonical.push('\n');
    canonical.push_str(&signed_headers.join(";"));
    canonical.push('\n');
    canonical.push_str(payload_hash);
    canonical
}

/// Every segment of the path as sent is encoded once more (only S3 does not): `%3A` becomes `%253A`.
fn canonical_path(path: &str) -> String {
    path.split('/').map(encode).collect::<Vec<_>>().join("/")
}

fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (encode(&decode(name)), encode(&decode(value)))
        })
        .collect();
    pairs.sort();
    pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("&")
}

/// Percent-encodes everything but the unreserved characters of RFC 3986.
fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Undoes percent-encoding once; what is no valid escape stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escape.unwrap_or(bytes[at]));
        at += if escape.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_is_encoded_once_more() {
        assert_eq!(
            canonical_path("/model/us.anthropic.claude-v1%3A0/invoke"),
            "/model/us.anthropic.claude-v1%253A0/invoke"
        );
        assert_eq!(canonical_path("/model/a:b/invoke"), "/model/a%3Ab/invoke");
    }

    #[test]
    fn query_is_sorted_and_encoded_once() {
        assert_eq!(canonical_query("b=2&a=%2F&c"), "a=%2F&b=2&c=");
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(text in ".{0,60}") {
            prop_assert_eq!(decode(&encode(&text)), text);
        }
    }

    #[test]
    fn stray_percent_signs_stay() {
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz%41"), "%zzA");
    }
}
