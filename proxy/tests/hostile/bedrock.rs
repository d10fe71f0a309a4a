//! A Bedrock that answers nonsense: to calls that fell over to it, and to those in its own format.

use std::time::Duration;

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::time::timeout;

use crate::support::{MODEL, Proxy, World, client, message, within};
use crate::upstream::{RawUpstream, Told, head};
use crate::{assert_bounded, assert_serves};

const EVENTS: &str = "application/vnd.amazon.eventstream";
const BEDROCK_PATH: &str = "/bedrock/model/us.anthropic.claude-sonnet-4-5-20250929-v1%3A0";

fn frame(message: &Message) -> Vec<u8> {
    let mut out = Vec::new();
    write_message_to(message, &mut out).unwrap();
    out
}

fn event(kind: &'static str, payload: Vec<u8>) -> Vec<u8> {
    let text = |name: &'static str, value: &'static str| {
        Header::new(name, HeaderValue::String(value.into()))
    };
    frame(
        &Message::new(payload)
            .add_header(text(":message-type", "event"))
            .add_header(text(":event-type", kind)),
    )
}

fn chunk(json: &str) -> Vec<u8> {
    event(
        "chunk",
        format!(r#"{{"bytes":"{}"}}"#, STANDARD.encode(json)).into(),
    )
}

/// The prelude of a frame that says it has so many bytes.
fn prelude(length: u32, headers: u32) -> Vec<u8> {
    let mut out = length.to_be_bytes().to_vec();
    out.extend_from_slice(&headers.to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out
}

fn begun() -> Vec<u8> {
    [
        chunk(r#"{"type":"message_start","message":{"usage":{"input_tokens":12,"output_tokens":1}}}"#),
        chunk(r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#),
        chunk(r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello"}}"#),
    ]
    .concat()
}

fn stream(parts: &[&[u8]]) -> Vec<u8> {
    [head(EVENTS).as_bytes(), &begun(), &parts.concat()].concat()
}

/// Streams that go wrong after content.
fn streams() -> Vec<(&'static str, Told)> {
    let mut bad_checksum = chunk(r#"{"type":"message_stop"}"#);
    let last = bad_checksum.len() - 1;
    bad_checksum[last] ^= 1;
    let mut bad_prelude = chunk(r#"{"type":"message_stop"}"#);
    bad_prelude[9] ^= 1;
    let bad_headers = {
        let mut out = prelude(20, 4);
        out.extend_from_slice(b"\xff\xff\xff\xff");
        let checksum = crc32fast::hash(&out).to_be_bytes();
        [&out[..], &checksum].concat()
    };
    let zeroes = vec![0; 64 * 1024];
    vec![
        ("a bad checksum", Told::close(stream(&[&bad_checksum]))),
        (
            "a bad checksum of the prelude",
            Told::close(stream(&[&bad_prelude])),
        ),
        ("half a frame", Told::close(stream(&[&chunk("{}")[..20]]))),
        ("half a prelude", Told::close(stream(&[&[0, 0, 0]]))),
        (
            "the largest length, without end",
            Told::endless(stream(&[&prelude(u32::MAX, 0)]), zeroes.clone()),
        ),
        (
            "a length beyond the limit, without end",
            Told::endless(stream(&[&prelude(400_000_000, 0)]), zeroes.clone()),
        ),
        (
            "a length of nothing",
            Told::close(stream(&[&prelude(0, 0)])),
        ),
        (
            "headers beyond the frame",
            Told::close(stream(&[&prelude(100, 90), &[0; 88]])),
        ),
        ("malformed headers", Told::close(stream(&[&bad_headers]))),
        ("no frames", Told::endless(stream(&[]), zeroes)),
        ("no end", Told::close(stream(&[]))),
        ("silence", Told::hold(stream(&[]))),
        ("an exception that is no JSON", {
            let text = |name: &'static str, value: &'static str| {
                Header::new(name, HeaderValue::String(value.into()))
            };
            let exception = Message::new(vec![0xff; 1000])
                .add_header(text(":message-type", "exception"))
                .add_header(text(":exception-type", "internalServerException"));
            Told::close(stream(&[&frame(&exception)]))
        }),
    ]
}

/// Posts to `path`; returns status and body.
async fn ask(proxy: &Proxy, key: &str, path: &str, name: &str, streams: bool) -> (u16, Vec<u8>) {
    let mut body = message("hello", streams);
    if path != "/v1/messages" {
        body.as_object_mut()
            .unwrap()
            .retain(|field, _| !matches!(field.as_str(), "model" | "stream"));
        body["anthropic_version"] = "bedrock-2023-05-31".into();
    }
    let asked = async {
        let request = client().post(format!("{}{path}", proxy.url()));
        let response = request
            .header("x-api-key", key)
            .json(&body)
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.bytes().await.unwrap().to_vec(),
        )
    };
    timeout(within(), asked)
        .await
        .unwrap_or_else(|_| panic!("{name}: no end"))
}

async fn start(world: &World) -> Proxy {
    // The Plan is down, and asked once more after Bedrock.
    world.fakes.plan.down().await;
    world
        .start_with(&[
            ("PROXY_PLAN_REQUEST_TIMEOUT", "2"),
            ("PROXY_STREAM_IDLE_TIMEOUT", "1"),
            ("PROXY_CIRCUIT_FAILURE_THRESHOLD", "1000000"),
        ])
        .await
}

#[tokio::test]
async fn streams_that_are_none_end_in_an_error_event_or_an_exception() {
    let upstream = RawUpstream::start().await;
    let world = World::create_with(|fakes| fakes.bedrock_url.clone_from(&upstream.url)).await;
    let proxy = start(&world).await;
    let key = world.key.expose();
    let cases = streams();
    for (name, told) in &cases {
        let path = format!("{BEDROCK_PATH}/invoke-with-response-stream");
        for path in ["/v1/messages", &path] {
            proxy.reset_peak();
            upstream.next(told.clone());
            let (status, body) = ask(&proxy, key, path, name, true).await;
            let text = String::from_utf8_lossy(&body);
            assert_eq!(status, 200, "{path} {name}: {text}");
            let is_right = if path == "/v1/messages" {
                text.contains("hello") && text.contains("event: error\ndata: {\"type\":\"error\"")
            } else {
                text.contains(":exception-type") && text.contains("\"message\"")
            };
            assert!(is_right, "{path} {name}: {text}");
            assert_bounded(&proxy, 64, &format!("{path} {name}"));
        }
    }
    let rows = world.rows(2 * cases.len()).await;
    for (at, row) in rows.iter().enumerate() {
        let name = cases[at / 2].0;
        assert_eq!(
            (row.status.as_str(), row.estimated, row.provider.as_deref()),
            ("upstream_error", true, Some("bedrock")),
            "{name}: {row:?}"
        );
        assert_eq!(
            (row.input_tokens, row.output_tokens),
            (12, 2),
            "{name}: {row:?}"
        );
    }
    world.fakes.plan.up().await;
    assert_serves(&world, &proxy, "a hostile bedrock").await;
}

#[tokio::test]
async fn answers_and_heads_that_are_none_end_in_an_error() {
    let upstream = RawUpstream::start().await;
    let world = World::create_with(|fakes| fakes.bedrock_url.clone_from(&upstream.url)).await;
    let proxy = start(&world).await;
    let key = world.key.expose();
    let blanks = " ".repeat(64 * 1024);
    let json = head("application/json");
    let cases = [
        (
            "an answer without end",
            Told::endless(json.as_str(), blanks.as_str()),
        ),
        (
            "an error without end",
            Told::endless("HTTP/1.1 400 Bad Request\r\n\r\n", blanks.as_str()),
        ),
        (
            "a header that never ends",
            Told::endless("HTTP/1.1 200 OK\r\nx: ", blanks.as_str()),
        ),
        (
            "interim answers without end",
            Told::trickle("", "HTTP/1.1 103 x\r\n\r\n", Duration::from_millis(20)),
        ),
        (
            "another protocol",
            Told::close("HTTP/1.1 101 x\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
        ),
        (
            "less than the declared length",
            Told::close("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{}"),
        ),
        ("no HTTP at all", Told::close("\0\0\0\r\n\r\n")),
        ("silence", Told::hold("")),
    ];
    for (name, told) in &cases {
        for path in ["/v1/messages", &format!("{BEDROCK_PATH}/invoke")] {
            proxy.reset_peak();
            upstream.next(told.clone());
            let (status, body) = ask(&proxy, key, path, name, false).await;
            assert!(status >= 400, "{path} {name}: {status}");
            let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
            let message = if path == "/v1/messages" {
                &body["error"]["message"]
            } else {
                &body["message"]
            };
            assert!(message.is_string(), "{path} {name}: {status} {body}");
            assert_bounded(&proxy, 100, &format!("{path} {name}"));
        }
    }
    let rows = world.rows(2 * cases.len()).await;
    assert!(
        rows.iter()
            .all(|row| row.status.ends_with("_error") && row.model.contains("claude")),
        "{rows:?}"
    );
    assert!(rows.iter().any(|row| row.model == MODEL));
    world.fakes.plan.up().await;
    assert_serves(&world, &proxy, "a hostile bedrock").await;
}
