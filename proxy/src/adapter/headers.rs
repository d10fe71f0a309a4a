//! Which headers pass between client and upstream.

use http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, COOKIE, EXPECT,
    FORWARDED, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The headers of a request that go on to the Plan: all end-to-end ones but credentials, cookies and what tells of the way
/// here. The body is sent decoded and its length anew; answers are asked for unencoded, since usage is read beside their bytes.
pub(super) fn for_plan(received: &HeaderMap) -> HeaderMap {
    let mut passed = HeaderMap::with_capacity(received.len() + 2);
    for (name, value) in received {
        if !is_hop_by_hop(name) && !is_private(name) && !is_named_in_connection(received, name) {
            passed.append(name, value.clone());
        }
    }
    passed.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    passed
}

/// Takes the headers out of an answer that end at this hop.
pub(super) fn strip_answer(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = connection_options(headers)
        .filter_map(|name| name.parse().ok())
        .collect();
    for name in named
        .iter()
        .chain(&[CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE])
    {
        headers.remove(name);
    }
    for name in [
        "keep-alive",
        "proxy-connection",
        "proxy-authenticate",
        "proxy-authentication-info",
    ] {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    [
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        EXPECT,
        HOST,
        CONTENT_LENGTH,
        CONTENT_ENCODING,
    ]
    .contains(name)
        || name.as_str() == "keep-alive"
}

fn is_private(name: &HeaderName) -> bool {
    let text = name.as_str();
    [AUTHORIZATION, COOKIE, FORWARDED].contains(name)
        || matches!(text, "x-api-key" | "x-origin-verify")
        || ["proxy-", "x-forwarded-", "x-amz-"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
}

fn is_named_in_connection(headers: &HeaderMap, name: &HeaderName) -> bool {
    connection_options(headers).any(|option| option.eq_ignore_ascii_case(name.as_str()))
}

fn connection_options(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(str::trim))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    name.parse::<HeaderName>().unwrap(),
                    HeaderValue::from_str(value).unwrap(),
                )
            })
            .collect()
    }

    fn appended(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        headers
    }

    #[test]
    fn end_to_end_headers_pass_with_all_their_values() {
        let sent = [
            ("anthropic-version", "2023-06-01"),
            ("anthropic-beta", "a,b"),
            ("anthropic-beta", "c"),
            ("anthropic-future", "x"),
            ("user-agent", "claude-cli/2.1.197"),
            ("x-stainless-lang", "js"),
            ("x-claude-code-session-id", "s"),
            ("x-spillway-future", "y"),
            ("content-type", "application/json"),
            ("accept", "application/json"),
        ];
        let mut passed = for_plan(&appended(&sent));
        assert_eq!(passed.remove(ACCEPT_ENCODING).unwrap(), "identity");
        assert_eq!(passed, appended(&sent));
    }

    #[test]
    fn credentials_and_the_way_here_stay() {
        let kept = [
            "authorization",
            "x-api-key",
            "cookie",
            "proxy-authorization",
            "proxy-connection",
            "x-origin-verify",
            "forwarded",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-amz-date",
            "x-amz-security-token",
            "host",
            "connection",
            "keep-alive",
            "te",
            "trailer",
            "transfer-encoding",
            "upgrade",
            "content-length",
            "content-encoding",
            "expect",
            "x-hop",
        ];
        let mut sent: Vec<(&str, &str)> = kept.iter().map(|name| (*name, "secret")).collect();
        sent.push(("connection", "close, X-Hop"));
        sent.push(("accept-encoding", "gzip, br, zstd"));
        let passed = for_plan(&appended(&sent));
        assert_eq!(passed, map(&[("accept-encoding", "identity")]));
    }

    #[test]
    fn an_answer_loses_what_ends_at_this_hop_and_nothing_else() {
        let mut headers = map(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("request-id", "req_1"),
            ("retry-after", "3"),
            ("x-should-retry", "true"),
            ("anthropic-ratelimit-requests-remaining", "9"),
            ("content-length", "2"),
            ("server", "cloudflare"),
        ]);
        strip_answer(&mut headers);
        let passed = [
            "request-id",
            "retry-after",
            "x-should-retry",
            "anthropic-ratelimit-requests-remaining",
            "content-length",
            "server",
        ];
        assert_eq!(headers.len(), passed.len());
        assert!(passed.iter().all(|name| headers.contains_key(*name)));
    }
}
