//! A Plan that answers nonsense. What goes wrong before content is answered by Bedrock, what goes wrong later ends in an `error`
//! event.

mod cases;

use tokio::time::timeout;

use crate::support::{Proxy, World, message, send, within};
use crate::upstream::RawUpstream;
use crate::{assert_bounded, assert_serves};

use self::cases::{Case, Got};

async fn check(world: &World, proxy: &Proxy, case: &Case) {
    let name = case.name;
    proxy.reset_peak();
    let asked = async {
        let body = message("hello", case.stream);
        let response = send(proxy, world.key.expose(), &body).await;
        let status = response.status().as_u16();
        let encoding = response.headers().get("content-encoding").cloned();
        (status, encoding, response.bytes().await.unwrap())
    };
    let (status, _, body) = timeout(within(), asked)
        .await
        .unwrap_or_else(|_| panic!("{name}: no end"));
    let tail = String::from_utf8_lossy(&body[body.len().saturating_sub(300)..]).into_owned();
    let is_error =
        |kind: &str| tail.contains(&format!(r#"{{"type":"error","error":{{"type":"{kind}"#));
    let is_right = match case.got {
        // The fake Bedrock repeats what it was asked.
        Got::Bedrock => {
            status == 200
                && String::from_utf8_lossy(&body).contains("hello")
                && !is_error("api_error")
        }
        Got::Plan => status < 400 && !tail.contains("event: error"),
        Got::Event(kind) => status == 200 && is_error(kind) && tail.ends_with("}\n\n"),
        Got::Error(expected, kind) => status == expected && is_error(kind),
    };
    assert!(is_right, "{name}: {status} {tail}");
    // An event may be as large as 16 MB, an answer that is not streamed 32 MB; a buffer that grows is there twice, and the
    // allocator keeps for a while what was freed.
    assert_bounded(proxy, 160, name);
}

async fn run(cases: Vec<Case>) {
    let upstream = RawUpstream::start().await;
    let world = World::create_with(|fakes| fakes.plan_url.clone_from(&upstream.url)).await;
    let proxy = world
        .start_with(&[
            ("PROXY_PLAN_FIRST_BYTE_TIMEOUT", "1"),
            ("PROXY_PLAN_REQUEST_TIMEOUT", "2"),
            ("PROXY_STREAM_IDLE_TIMEOUT", "1"),
            ("PROXY_CIRCUIT_FAILURE_THRESHOLD", "1000000"),
        ])
        .await;
    for case in &cases {
        upstream.next(case.told.clone());
        check(&world, &proxy, case).await;
    }
    let rows = world.rows(cases.len()).await;
    assert_eq!(rows.len(), cases.len());
    for (case, row) in cases.iter().zip(rows) {
        let provider = if case.got == Got::Bedrock {
            "bedrock"
        } else {
            "plan"
        };
        let (status, estimated, tokens) = case.row;
        assert_eq!(
            (row.status.as_str(), row.estimated, row.provider.as_deref()),
            (status, estimated, Some(provider)),
            "{}: {row:?}",
            case.name
        );
        if let Some(tokens) = tokens {
            assert_eq!(
                (row.input_tokens, row.output_tokens),
                tokens,
                "{}",
                case.name
            );
        }
        let id = row.upstream_request_id.unwrap_or_default();
        assert!(
            id.len() <= 256,
            "{}: {} bytes of request id",
            case.name,
            id.len()
        );
    }
    // With the Plan told nothing, Bedrock answers.
    assert_serves(&world, &proxy, "a hostile plan").await;
}

#[tokio::test]
async fn heads_that_are_none() {
    run(cases::heads()).await;
}

#[tokio::test]
async fn streams_that_fail_before_their_content() {
    run(cases::early()).await;
}

#[tokio::test]
async fn streams_that_fail_after_it() {
    run(cases::late()).await;
}

#[tokio::test]
async fn streams_that_are_odd() {
    run(cases::odd()).await;
}

#[tokio::test]
async fn answers_that_are_none() {
    run(cases::wholes()).await;
}
