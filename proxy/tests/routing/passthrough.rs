//! What passes between client and Plan, and what does not.

use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{Provider, UsageStatus};
use spillway_e2e::upstream::{Outcome, PLAN_API_KEY, Script, Usage, digest, sha256_hex};

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
