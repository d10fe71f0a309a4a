//! What passes between client and Plan, and what does not.

use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{Provider, UsageStatus};
use spillway_e2e::upstream::{Outcome, PLAN_API_KEY, Script, Usage, digest, sha256_hex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::stack::{LIMIT, Setup, Stack, events, text};

const USAGE: Usage = Usage {
    input_tokens: 2050,
    output_tokens: 31,
    cache_read_input_tokens: 7,
    cache_creation_5m_input_tokens: 11,
    cache_creation_1h_input_tokens: 13,
};

const TOKENS: TokenUsage = TokenUsage {
    input: 2050,
    output: 31,
    cache_read: 7,
    cache_creation_5m: 11,
    cache_creation_1h: 13,
};

#[tokio::test]
async fn request_and_answer_pass_unchanged_and_are_metered() {
    for stream in [false, true] {
        let mut stack = Stack::start(Setup::default()).await;
        stack
            .fakes
            .plan
            .next(Script::text("a story of some length").usage(USAGE));
        let body = format!(
            r#" {{"model":"claude-sonnet-4-5" , "unheard_of": 1e2,"stream":{stream},"max_tokens":9,"messages":[{{"role":"user","content":"a"}}]}}"#
        );
        let response = stack
            .client
            .post(format!(
                "{}/ak/path-key/v1/messages?beta=true&x=%20",
                stack.url
            ))
            .header("authorization", "Bearer sk-spw-mine")
            .header("x-api-key", "sk-spw-mine")
            .header("cookie", "a=b")
            .header("x-forwarded-for", "10.0.0.1")
            .header("x-amz-date", "now")
            .header("anthropic-beta", "new-beta-2027-01-01")
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json")
            .header("accept-encoding", "gzip, br")
            .header("x-unheard-of", "yes")
            .body(body.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
        let headers = response.headers().clone();
        let answer = response.text().await.unwrap();

        let seen = stack
            .fakes
            .plan
            .wait_requests(LIMIT, |seen| {
                seen.iter()
                    .any(|one| one.answer.outcome == Outcome::Complete)
            })
            .await;
        let seen = &seen.unwrap()[0];
        assert_eq!(seen.body_sha256, sha256_hex(body.as_bytes()));
        assert_eq!(
            (seen.path.as_str(), seen.query.as_deref()),
            ("/v1/messages", Some("beta=true&x=%20"))
        );
        assert_eq!(
            seen.header("x-api-key"),
            Some(digest(PLAN_API_KEY.as_bytes()).as_str())
        );
        assert_eq!(seen.header("accept-encoding"), Some("identity"));
        assert_eq!(seen.header("anthropic-beta"), Some("new-beta-2027-01-01"));
        assert_eq!(seen.header("x-unheard-of"), Some("yes"));
        for private in ["authorization", "cookie", "x-forwarded-for", "x-amz-date"] {
            assert_eq!(seen.header(private), None, "{private}");
        }
        assert_eq!(headers["request-id"], seen.answer.request_id.as_str());
        assert_eq!(u64::try_from(answer.len()).unwrap(), seen.answer.body_bytes);
        if stream {
            assert_eq!(text(&events(&answer)), "a story of some length");
        }

        let outcome = stack.outcome().await;
        assert_eq!(
            (outcome.status, outcome.http_status, outcome.provider),
            (UsageStatus::Ok, 200, Some(Provider::Plan))
        );
        assert_eq!(
            (outcome.tokens, outcome.estimated, outcome.is_fallback),
            (TOKENS, false, false)
        );
        assert_eq!(
            outcome.upstream_request_id.as_deref(),
            Some(seen.answer.request_id.as_str())
        );
        assert!(
            outcome.ttft.unwrap() <= outcome.latency && outcome.overhead <= outcome.ttft.unwrap()
        );
        stack.assert_metered_once();
    }
}

#[tokio::test]
async fn an_answer_that_the_upstream_would_compress_comes_readable() {
    let mut stack = Stack::start(Setup::default()).await;
    stack.fakes.plan.next(Script {
        gzip: true,
        ..Script::text("hello").usage(USAGE)
    });
    let response = stack
        .request(false)
        .header("accept-encoding", "gzip")
        .send()
        .await
        .unwrap();
    assert!(response.text().await.unwrap().contains("hello"));
    assert_eq!(stack.outcome().await.tokens, TOKENS);
}

#[tokio::test]
async fn connections_to_the_plan_are_reused() {
    let mut stack = Stack::start(Setup::default()).await;
    for _ in 0..3 {
        stack.send(false).await.text().await.unwrap();
        stack.outcome().await;
    }
    assert_eq!(stack.fakes.plan.request_count(), 3);
}

/// Answers the next request with exactly this, and closes.
async fn answer_once(listener: &TcpListener, answer: &[u8]) {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut received = Vec::new();
    // The body is the JSON object of `stack::body`, which ends the request.
    while !received.ends_with(b"}") {
        assert_ne!(stream.read_buf(&mut received).await.unwrap(), 0);
    }
    stream.write_all(answer).await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn answers_pass_byte_for_byte_with_all_their_end_to_end_headers() {
    const HEADERS: &[(&str, &str)] = &[
        ("request-id", "req_of_the_plan"),
        ("anthropic-organization-id", "org"),
        ("anthropic-ratelimit-requests-remaining", "7"),
        ("x-unheard-of", "a"),
        ("x-unheard-of", "b, c"),
        ("date", "Sat, 21 Nov 2026 11:00:00 GMT"),
        ("server", "upstream"),
        ("via", "1.1 edge"),
    ];
    const WHOLE: &str = "{ \"unheard_of\":1e2, \"content\" : [ ],\n\"usage\":{\"input_tokens\":3,\"output_tokens\":2}}\r\n";
    const STREAM: &str = ": a comment\r\nevent: message_start\r\ndata: {\"type\":\"message_start\", \"message\":{\"usage\":{\"input_tokens\":3}}}\r\n\r\nevent:unheard_of\ndata:{ \"x\" : 1.0 }\nid: 7\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\"}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n\n";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut stack = Stack::start(Setup {
        plan_url: Some(url.parse().unwrap()),
        ..Setup::default()
    })
    .await;
    for (is_stream, kind, body) in [
        (false, "application/json; charset=utf-8", WHOLE),
        (true, "text/event-stream; charset=utf-8", STREAM),
    ] {
        let mut sent = HEADERS.to_vec();
        sent.push(("content-type", kind));
        let mut answer = "HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\n".to_owned();
        for part in sent
            .iter()
            .flat_map(|(name, value)| [name, ": ", value, "\r\n"])
            .chain(["\r\n", body])
        {
            answer.push_str(part);
        }
        let (response, ()) = tokio::join!(
            stack.send(is_stream),
            answer_once(&listener, answer.as_bytes())
        );
        assert_eq!(response.status(), 200);
        let mut received: Vec<(String, String)> = response
            .headers()
            .iter()
            // Of this hop: how the test's own server frames the body.
            .filter(|(name, _)| !matches!(name.as_str(), "content-length" | "transfer-encoding"))
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        let mut expected: Vec<(String, String)> = sent
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        received.sort();
        expected.sort();
        assert_eq!(received, expected);
        assert_eq!(response.text().await.unwrap(), body);
        assert_eq!(stack.outcome().await.tokens.input, 3);
    }
}
