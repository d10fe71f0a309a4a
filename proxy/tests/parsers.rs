//! What the fuzz targets promise holds for their seeds, for whatever they found before, and for streams of the words that
//! matter: above all that it makes no difference how the bytes of a stream are split.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::doc_markdown,
    clippy::expect_used,
    clippy::missing_panics_doc,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the targets are compiled into this test"
)]

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use std::path::Path;

use proptest::prelude::*;

/// Parts of server-sent events.
const SSE: &[&str] = &[
    "event: message_start\n",
    "event: content_block_start\r\n",
    "event: content_block_delta\r",
    "event: message_delta\n",
    "event: message_stop\n",
    "event: error\n",
    "event: ping\n",
    "data: {\"message\":{\"usage\":{\"input_tokens\":12,\"output_tokens\":1}}}\n",
    "data: {\"usage\":{\"output_tokens\":7,\"cache_creation\":{\"ephemeral_1h_input_tokens\":[]}}}\n",
    "data: {\"content_block\":{\"type\":\"text\"}}\n",
    "data: {\"delta\":{\"text\":\"hello\"}}\n",
    "data: {\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}\n",
    "data",
    ":",
    "\u{feff}",
    "x",
    "\n",
    "\r",
    "\r\n",
    "\n\n",
];

/// Frames of `InvokeModel`, and what does not belong there.
const INVOKE: &[&str] = &[
    // {"type":"message_start","message":{"usage":{"input_tokens":12,"output_tokens":1}}}
    "event:chunk {\"bytes\":\"eyJ0eXBlIjoibWVzc2FnZV9zdGFydCIsIm1lc3NhZ2UiOnsidXNhZ2UiOnsiaW5wdXRfdG9rZW5zIjoxMiwib3V0cHV0X3Rva2VucyI6MX19fQ==\"}\n",
    // {"type":"content_block_delta","delta":{"text":"hello"}}
    "event:chunk {\"bytes\":\"eyJ0eXBlIjoiY29udGVudF9ibG9ja19kZWx0YSIsImRlbHRhIjp7InRleHQiOiJoZWxsbyJ9fQ==\",\"p\":\"ab\"}\n",
    // {"type":"message_stop"}
    "event:chunk {\"bytes\":\"eyJ0eXBlIjoibWVzc2FnZV9zdG9wIn0=\"}\n",
    "event:chunk {\"bytes\":\"%\"}\n",
    "event:other {}\n",
    "exception:throttlingException {\"message\":\"slow down\"}\n",
    "error:x \n",
    "\n",
];

/// Frames of Converse.
const CONVERSE: &[&str] = &[
    "event:messageStart {\"role\":\"assistant\"}\n",
    "event:contentBlockStart {\"contentBlockIndex\":1,\"start\":{\"toolUse\":{\"toolUseId\":\"a\",\"name\":\"b\"}}}\n",
    "event:contentBlockDelta {\"contentBlockIndex\":0,\"delta\":{\"text\":\"hello\"}}\n",
    "event:contentBlockDelta {\"contentBlockIndex\":0,\"delta\":{\"text\":\"\"}}\n",
    "event:contentBlockDelta {\"contentBlockIndex\":0,\"delta\":{\"reasoningContent\":{\"text\":\"hm\"}}}\n",
    "event:contentBlockDelta {\"contentBlockIndex\":0,\"delta\":{\"reasoningContent\":{\"signature\":\"c2ln\"}}}\n",
    "event:contentBlockDelta {\"contentBlockIndex\":2,\"delta\":{\"reasoningContent\":{\"redactedContent\":\"YWJj\"}}}\n",
    "event:contentBlockDelta {\"contentBlockIndex\":1,\"delta\":{\"toolUse\":{\"input\":\"{}\"}}}\n",
    "event:contentBlockStop {\"contentBlockIndex\":0}\n",
    "event:contentBlockStop {\"contentBlockIndex\":1}\n",
    "event:messageStop {\"stopReason\":\"end_turn\"}\n",
    "event:metadata {\"usage\":{\"inputTokens\":7,\"outputTokens\":5}}\n",
    "event:contentBlockDelta {\n",
    "exception:validationException {\"message\":\"no\"}\n",
    "\n",
];

/// Lines of heads, and what comes behind them.
const HEADS: &[&str] = &[
    "POST /v1/messages HTTP/1.1\r\n",
    "GET / HTTP/1.1\n",
    "host: x\r\n",
    "content-length: 5\r\n",
    "Content-Length: 5\n",
    "transfer-encoding: chunked\r\n",
    "Transfer-Encoding:chunked\n",
    "x-content-length: 1\r\n",
    "x: content-length: 1\r\n",
    "content-length\r\n",
    "hello",
    "0\r\n",
    "\r\n",
    "\n",
    "\r",
    " ",
];

/// Parts of answers.
const ANSWERS: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.0 200 OK\n",
    "content-length: 5\r\n",
    "content-length: 6\n",
    "transfer-encoding: chunked\r\n",
    "connection: close\r\n",
    "x: y\r\n",
    "\r\n",
    "\n",
    "hello",
    "5\r\nhello\r\n",
    "5;x=y\r\n",
    "0\r\n\r\n",
    "\r",
];

/// Some of these parts, behind the byte that says how they are split.
fn stream(parts: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let some = prop::collection::vec(prop::sample::select(parts), 0..24);
    (1_u8..64, some).prop_map(|(size, parts)| [&[size], parts.concat().as_bytes()].concat())
}

/// One change of an input.
#[derive(Debug, Clone)]
enum Change {
    Put(prop::sample::Index, u8),
    Insert(prop::sample::Index, &'static str),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        if data.is_empty() {
            return;
        }
        let span = |at: usize, length: usize| at..data.len().min(at + length);
        match self {
            Self::Put(at, byte) => {
                let at = at.index(data.len());
                data[at] = *byte;
            }
            Self::Insert(at, text) => {
                let at = at.index(data.len());
                data.splice(at..at, text.bytes());
            }
            Self::Remove(at, length) => drop(data.drain(span(at.index(data.len()), *length))),
            Self::Repeat(at, length) => {
                let span = span(at.index(data.len()), *length);
                let copy = data[span.clone()].to_vec();
                data.splice(span.start..span.start, copy);
            }
        }
    }
}

/// What means something to some parser.
const WORDS: &[&str] = &[
    "\"",
    "\\",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\n",
    "\r",
    "\n\n",
    " ",
    "null",
    "true",
    "-1",
    "1e99",
    "0.5",
    "\\u0000",
    "\\ud800",
    "\\ud83d\\ude00",
    "\"\":",
    "\"model\":\"m\",",
    "\"type\":\"text\",",
    "\"content\":[",
    "\"cache_control\":{\"type\":\"ephemeral\"},",
    "\u{feff}",
    "\u{2028}",
    "18446744073709551616",
    "event:metadata ",
    "exception:x ",
];

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<prop::sample::Index>();
    prop_oneof![
        (at(), any::<u8>()).prop_map(|(at, byte)| Change::Put(at, byte)),
        (at(), prop::sample::select(WORDS)).prop_map(|(at, word)| Change::Insert(at, word)),
        (at(), 1_usize..40).prop_map(|(at, length)| Change::Remove(at, length)),
        (at(), 1_usize..40).prop_map(|(at, length)| Change::Repeat(at, length)),
    ]
}

/// A target and one of its seeds.
fn seed() -> impl Strategy<Value = (targets::Target, Vec<u8>)> {
    let seeds: Vec<_> = targets::TARGETS
        .iter()
        .flat_map(|target| seeds(target.0).map(|(_, data)| (*target, data)))
        // Larger ones only make this slow.
        .filter(|(_, data)| data.len() < 16 * 1024)
        .collect();
    prop::sample::select(seeds)
}

proptest! {
    #[test]
    fn seeds_that_are_changed_keep_the_promises_too(
        (target, mut data) in seed(),
        changes in prop::collection::vec(change(), 1..8),
    ) {
        for change in &changes {
            change.apply(&mut data);
        }
        println!("{}", target.0);
        target.1(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn server_sent_events_are_the_same_for_every_split(data in stream(SSE)) {
        targets::sse(&data);
    }

    #[test]
    fn frames_and_their_usage_are_the_same_for_every_split(
        data in prop_oneof![stream(INVOKE), stream(CONVERSE)],
    ) {
        targets::event_stream(&data);
    }

    #[test]
    fn invoke_model_is_translated_the_same_for_every_split(data in stream(INVOKE)) {
        targets::invoke_stream(&data);
    }

    #[test]
    fn heads_end_and_say_their_length_as_the_parser_finds(data in stream(HEADS)) {
        targets::wire_head(&data);
    }

    #[test]
    fn answers_are_the_same_for_every_split(data in stream(ANSWERS)) {
        targets::answer(&data);
    }

    #[test]
    fn converse_is_translated_the_same_for_every_split(data in stream(CONVERSE)) {
        targets::converse_stream(&data);
    }
}

/// The seeds of a target, by name.
fn seeds(target: &str) -> impl Iterator<Item = (String, Vec<u8>)> {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let folder = Path::new(&package).join("../fuzz/seeds");
    std::fs::read_dir(folder.join(target)).unwrap().map(|seed| {
        let path = seed.unwrap().path();
        (path.display().to_string(), std::fs::read(path).unwrap())
    })
}

#[test]
fn every_seed_keeps_the_promises_of_its_target() {
    for (name, target) in targets::TARGETS {
        let mut count = 0;
        for (path, data) in seeds(name) {
            println!("{path}");
            target(&data);
            count += 1;
        }
        assert!(count > 0, "{name} has no seeds");
    }
}
