//! What the Plan answers, and what becomes of it.

use std::time::Duration;

use crate::upstream::{Told, head};

const MB: usize = 1024 * 1024;
const START: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n\n";
const DELTA: &str = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\"hello\"}}\n\n";
const END: &str = "event: message_delta\ndata: {\"type\":\"message_delta\",\"usage\":{\"output_tokens\":40}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Got {
    /// The Plan's own answer.
    Plan,
    /// Bedrock's.
    Bedrock,
    /// The Plan's up to an `error` event of this type, or of any where it depends on who is faster.
    Event(&'static str),
    /// An error of this status and type.
    Error(u16, &'static str),
}

pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) told: Told,
    pub(super) stream: bool,
    pub(super) got: Got,
    /// The usage row's status, whether it is estimated, and its input and output tokens where they are known.
    pub(super) row: (&'static str, bool, Option<(i64, i64)>),
}

fn case(
    name: &'static str,
    told: Told,
    got: Got,
    row: (&'static str, bool, Option<(i64, i64)>),
) -> Case {
    Case {
        name,
        told,
        stream: true,
        got,
        row,
    }
}

/// A case that Bedrock answers.
fn invisible(name: &'static str, told: Told) -> Case {
    case(name, told, Got::Bedrock, ("ok", false, None))
}

/// A case that ends in an `error` event after content.
fn cut(name: &'static str, told: Told, kind: &'static str) -> Case {
    case(
        name,
        told,
        Got::Event(kind),
        ("upstream_error", true, Some((12, 2))),
    )
}

fn events(parts: &[&str]) -> String {
    head("text/event-stream") + &parts.concat()
}

fn chunked(chunks: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n{chunks}"
    )
}

fn chunk(text: &str) -> String {
    format!("{:x}\r\n{text}\r\n", text.len())
}

/// Heads of answers.
pub(super) fn heads() -> Vec<Case> {
    let long = "a".repeat(64 * 1024);
    vec![
        invisible(
            "a header that never ends",
            Told::endless("HTTP/1.1 200 OK\r\nx: ", long.as_str()),
        ),
        invisible(
            "headers that never end",
            Told::endless("HTTP/1.1 200 OK\r\n", "x-a: b\r\n".repeat(1000)),
        ),
        invisible(
            "a status line that never ends",
            Told::endless("HTTP/1.1 200 ", long.as_str()),
        ),
        invisible("no HTTP at all", Told::close("\0\u{1}\u{2}hello\r\n\r\n")),
        invisible("nothing at all", Told::close("")),
        invisible("half a head", Told::close("HTTP/1.1 200 OK\r\ncontent-ty")),
        invisible(
            "a head that takes too long",
            Told::trickle(
                "HTTP/1.1 200 OK\r\n",
                "x-a: b\r\n",
                Duration::from_millis(100),
            ),
        ),
        invisible("silence", Told::hold("")),
        invisible(
            "interim answers without end",
            Told::trickle(
                "",
                "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(10),
                Duration::from_millis(20),
            ),
        ),
        invisible(
            "another protocol",
            Told::close(
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
            ),
        ),
        invisible(
            "two lengths",
            Told::close("HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello"),
        ),
        case(
            "interim answers",
            Told::close(format!(
                "{}{}",
                "HTTP/1.1 100 Continue\r\n\r\n".repeat(20),
                events(&[START, DELTA, END])
            )),
            Got::Plan,
            ("ok", false, Some((12, 40))),
        ),
        case(
            "a huge request id and bytes of all kinds",
            Told::close(format!(
                "HTTP/1.1 200 OK\r\nrequest-id: {}\r\nx-odd: \u{ff}\r\ncontent-type: text/event-stream\r\n\r\n{START}{DELTA}{END}",
                &long[..50_000]
            )),
            Got::Plan,
            ("ok", false, Some((12, 40))),
        ),
    ]
}

/// Streams that fail before their content.
pub(super) fn early() -> Vec<Case> {
    vec![
        invisible("no event at all", Told::close(events(&[]))),
        invisible("no content and no end", Told::hold(events(&[START]))),
        invisible(
            "half an event",
            Told::close(events(&[START, "event: content_block_del"])),
        ),
        invisible("half a chunk", Told::close(chunked("ff\r\nevent: mess"))),
        invisible(
            "a chunk of no size",
            Told::close(chunked("zz\r\nhello\r\n")),
        ),
        invisible(
            "a chunk beyond all",
            Told::close(chunked("fffffffffffffffff\r\nhello\r\n")),
        ),
        invisible(
            "a chunk extension without end",
            Told::endless(chunked("5;"), "x".repeat(64 * 1024)),
        ),
    ]
}

/// Streams that fail after it.
pub(super) fn late() -> Vec<Case> {
    vec![
        cut(
            "half a chunk after content",
            Told::close(chunked(
                &(chunk(START) + &chunk(DELTA) + "ff\r\nevent: mess"),
            )),
            "api_error",
        ),
        cut(
            "a chunk of no size after content",
            Told::close(chunked(&(chunk(START) + &chunk(DELTA) + "zz\r\n"))),
            "api_error",
        ),
        cut(
            "silence after content",
            Told::hold(events(&[START, DELTA])),
            "timeout_error",
        ),
        cut(
            "only comments after content",
            Told::trickle(
                events(&[START, DELTA]),
                ": life\n\n",
                Duration::from_millis(50),
            ),
            "timeout_error",
        ),
        cut(
            "only pings after content",
            Told::trickle(
                events(&[START, DELTA]),
                "event: ping\ndata: {}\n\n",
                Duration::from_millis(50),
            ),
            "timeout_error",
        ),
        cut(
            "a line that never ends",
            Told::endless(
                events(&[START, DELTA, "event: content_block_delta\ndata: "]),
                "x".repeat(64 * 1024),
            ),
            "",
        ),
        cut(
            "lines that never become an event",
            Told::endless(events(&[START, DELTA]), "data: x\n".repeat(8 * 1024)),
            "",
        ),
        cut(
            "an event of 100 MB",
            Told::close(events(&[START, DELTA, "data: "]) + &"x".repeat(100 * MB) + "\n\n" + END),
            "",
        ),
        case(
            "a line that never ends, from the first on",
            Told::endless(events(&[]), "x".repeat(64 * 1024)),
            Got::Event(""),
            ("upstream_error", true, None),
        ),
    ]
}

/// Streams that are odd, and pass.
pub(super) fn odd() -> Vec<Case> {
    let tiny =
        ":\n\n".repeat(100_000) + &DELTA.repeat(20_000) + &"event: x\ndata\n\n".repeat(50_000);
    let bad_utf8 = [
        events(&[START]).as_bytes(),
        b"event: content_block_delta\ndata: {\"delta\":{\"text\":\"\xff\xfe\xc3\x28\"}}\n\n",
        b"\xff: \xfe\n\n: \xff\n\n",
        END.as_bytes(),
    ]
    .concat();
    vec![
        case(
            "events without number",
            Told::close(events(&[START, &tiny, END])),
            Got::Plan,
            ("ok", false, Some((12, 40))),
        ),
        case(
            "bad UTF-8",
            Told::close(bad_utf8),
            Got::Plan,
            ("ok", false, Some((12, 40))),
        ),
        case(
            "usage that is none",
            Told::close(events(&[
                &START.replace(
                    "12",
                    &format!("{}{}", "[".repeat(50_000), "]".repeat(50_000)),
                ),
                DELTA,
                END,
            ])),
            Got::Plan,
            ("ok", true, None),
        ),
        case(
            "more than the declared length",
            Told::close(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{START}{DELTA}{END}",
                START.len() + DELTA.len()
            )),
            Got::Event("api_error"),
            ("upstream_error", true, Some((12, 2))),
        ),
        case(
            "gzip that was not asked for",
            Told::close(format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close\r\n\r\n{START}"
            )),
            Got::Plan,
            ("ok", true, None),
        ),
        case(
            "whole where a stream was asked for",
            Told::close(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{\"usage\":{\"input_tokens\":12,\"output_tokens\":40  }}",
            ),
            Got::Plan,
            ("ok", false, Some((12, 40))),
        ),
    ]
}

/// Answers that are not streamed.
pub(super) fn wholes() -> Vec<Case> {
    let json = head("application/json");
    let whole = |name, told, got, row| Case {
        stream: false,
        ..case(name, told, got, row)
    };
    let bedrocks = ("ok", false, None);
    // The Plan bills it, so nobody else is asked.
    let spent = ("upstream_error", true, None);
    vec![
        whole(
            "less than the declared length",
            Told::close(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{}",
            ),
            Got::Bedrock,
            bedrocks,
        ),
        whole(
            "an answer without end",
            Told::endless(json.as_str(), " ".repeat(64 * 1024)),
            Got::Error(502, "api_error"),
            spent,
        ),
        whole(
            "an error without end",
            Told::endless("HTTP/1.1 400 Bad Request\r\n\r\n", "x".repeat(64 * 1024)),
            Got::Error(400, "api_error"),
            ("client_error", false, Some((0, 0))),
        ),
        whole(
            "an answer that is not finished in time",
            Told::trickle(json.as_str(), " ", Duration::from_millis(100)),
            Got::Error(504, "timeout_error"),
            spent,
        ),
        whole(
            "no JSON",
            Told::close(json.clone() + "\0\0\0"),
            Got::Plan,
            ("ok", true, None),
        ),
        whole(
            "no body",
            Told::close("HTTP/1.1 204 No Content\r\n\r\n"),
            Got::Plan,
            ("ok", true, None),
        ),
    ]
}
