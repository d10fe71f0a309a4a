//! What a request presents as its key, and as proof that it came through the front door.

use std::fmt;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

use crate::http::error::Refusal;

/// The key that a request presents: in its path, else `x-api-key`, else `Authorization: Bearer`.
pub fn presented_key<'a>(path_key: Option<&'a str>, headers: &'a HeaderMap) -> Option<&'a str> {
    path_key
        .or_else(|| text(headers, "x-api-key").filter(|key| !key.trim().is_empty()))
        .or_else(|| bearer(headers))
        .map(str::trim)
        .filter(|key| !key.is_empty())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = text(headers, AUTHORIZATION.as_str())?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Compares `x-origin-verify` with `PROXY_ORIGIN_VERIFY_SECRET`.
pub struct OriginVerify(Option<[u8; 32]>);

impl fmt::Debug for OriginVerify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The digest of a secret that can be guessed tells it.
        f.debug_struct("OriginVerify")
            .field("is_required", &self.0.is_some())
            .finish()
    }
}

impl OriginVerify {
    /// Requires `secret` of every request; `None` requires nothing.
    pub fn new(secret: Option<&SecretString>) -> Self {
        Self(secret.map(|secret| Sha256::digest(secret.expose_secret()).into()))
    }

    /// Lets requests pass that came through the front door.
    ///
    /// # Errors
    /// 403 without the right header.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(expected) = &self.0 else {
            return Ok(());
        };
        // Digests are compared, not secrets: how long the comparison takes tells nothing of the secret.
        let passed = headers
            .get("x-origin-verify")
            .is_some_and(|value| <[u8; 32]>::from(Sha256::digest(value.as_bytes())) == *expected);
        if passed {
            Ok(())
        } else {
            Err(Refusal::forbidden(
                "origin",
                "Requests must come through the public address of this service",
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| ((*name).parse().unwrap(), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn the_path_wins_over_x_api_key_over_bearer() {
        let both = headers(&[
            ("x-api-key", "of-header"),
            ("authorization", "Bearer of-bearer"),
        ]);
        assert_eq!(presented_key(Some("of-path"), &both), Some("of-path"));
        assert_eq!(presented_key(None, &both), Some("of-header"));
        assert_eq!(
            presented_key(None, &headers(&[("authorization", "bearer  of-bearer ")])),
            Some("of-bearer")
        );
        let empty = headers(&[("x-api-key", " "), ("authorization", "Bearer of-bearer")]);
        assert_eq!(presented_key(None, &empty), Some("of-bearer"));
        for without in [
            headers(&[]),
            headers(&[("authorization", "Basic dTpw")]),
            headers(&[("x-api-key", "")]),
        ] {
            assert_eq!(presented_key(None, &without), None);
        }
        assert_eq!(presented_key(Some(""), &headers(&[])), None);
    }

    #[test]
    fn the_origin_secret_is_required_where_it_is_set() {
        let verify = OriginVerify::new(Some(&"front-door".into()));
        assert!(
            verify
                .check(&headers(&[("x-origin-verify", "front-door")]))
                .is_ok()
        );
        for wrong in [headers(&[]), headers(&[("x-origin-verify", "front-doo")])] {
            assert_eq!(verify.check(&wrong).unwrap_err().status, 403);
        }
        assert!(OriginVerify::new(None).check(&headers(&[])).is_ok());
        assert_eq!(format!("{verify:?}"), "OriginVerify { is_required: true }");
    }
}
