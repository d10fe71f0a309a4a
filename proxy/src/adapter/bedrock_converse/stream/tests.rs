//! The traps of Converse's streams, each by its name.

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use base64::Engine as _;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::stream::FrameReader;

mod citations;
mod thinking;

fn frame(kind: (&'static str, &str), message_type: &'static str, payload: &Value) -> Vec<u8> {
    let text = |value: &str| HeaderValue::String(value.to_owned().into());
    let message = Message::new(payload.to_string())
        .add_header(Header::new(kind.0, text(kind.1)))
        .add_header(Header::new(":message-type", text(message_type)));
    let mut out = Vec::new();
    write_message_to(&message, &mut out).unwrap();
    out
}

fn event(name: &str, mut payload: Value) -> Vec<u8> {
    payload["p"] = "abcdefgh".into();
    frame((":event-type", name), "event", &payload)
}

fn start() -> Vec<u8> {
    event("messageStart", json!({"role": "assistant"}))
}

fn delta(index: u64, delta: &Value) -> Vec<u8> {
    event(
        "contentBlockDelta",
        json!({"contentBlockIndex": index, "delta": delta}),
    )
}

fn text(index: u64, text: &str) -> Vec<u8> {
    delta(index, &json!({"text": text}))
}

fn reasoning(index: u64, content: &Value) -> Vec<u8> {
    delta(index, &json!({"reasoningContent": content}))
}

fn tool_start(index: u64, id: &str, name: &str) -> Vec<u8> {
    let start = json!({"toolUse": {"toolUseId": id, "name": name}});
    event(
        "contentBlockStart",
        json!({"contentBlockIndex": index, "start": start}),
    )
}

fn citation(index: u64, title: &str) -> Vec<u8> {
    let citation = json!({"title": title, "sourceContent": [{"text": "c"}], "location": {"documentPage": {"documentIndex": 0, "start": 1, "end": 2}}});
    delta(index, &json!({"citation": citation}))
}

fn stop(index: u64) -> Vec<u8> {
    event("contentBlockStop", json!({"contentBlockIndex": index}))
}

fn message_stop(reason: &str) -> Vec<u8> {
    event("messageStop", json!({"stopReason": reason}))
}

fn metadata() -> Vec<u8> {
    let usage = json!({"inputTokens": 7, "outputTokens": 5, "totalTokens": 12, "new": {}});
    event(
        "metadata",
        json!({"usage": usage, "metrics": {"latencyMs": 1}}),
    )
}

fn context() -> Context {
    Context {
        id: "msg_1".into(),
        model: "claude-x".into(),
        is_claude: true,
        input_guess: 100,
        ..Context::default()
    }
}

fn other() -> Context {
    Context {
        is_claude: false,
        ..context()
    }
}

/// The events' names and data, and the error that they end with.
fn read(context: Context, frames: &[Vec<u8>]) -> (Vec<(String, Value)>, Option<StreamError>) {
    let mut events = Events::new(context);
    let (text, error) = run(&mut events, frames);
    let seen = text
        .split_terminator("\n\n")
        .map(|event| {
            let (name, data) = event
                .strip_prefix("event: ")
                .and_then(|event| event.split_once("\ndata: "))
                .unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            (name.to_owned(), data)
        })
        .collect();
    (seen, error)
}

fn run(events: &mut Events, frames: &[Vec<u8>]) -> (String, Option<StreamError>) {
    let mut reader = FrameReader::new(1 << 20);
    let (mut out, mut all) = (BytesMut::new(), Vec::new());
    let mut error = None;
    'all: for frame in frames {
        reader.push(frame.clone().into());
        while let Some(frame) = reader.next_frame().unwrap() {
            let taken = events.on_frame(frame, &mut out);
            all.extend_from_slice(&events.take_start().unwrap_or_default());
            all.extend_from_slice(&out.split());
            if let Err(failed) = taken {
                error = Some(failed);
                break 'all;
            }
        }
    }
    if error.is_none() {
        all.extend_from_slice(&events.finish().unwrap_or_default());
    }
    (String::from_utf8(all).unwrap(), error)
}

/// The content that the events add up to, as a client adds them.
fn content(events: &[(String, Value)]) -> Vec<Value> {
    let mut blocks: Vec<Value> = Vec::new();
    let mut open = None;
    for (name, data) in events {
        match name.as_str() {
            "content_block_start" => {
                assert_eq!((open, &data["index"]), (None, &json!(blocks.len())));
                open = Some(blocks.len());
                blocks.push(data["content_block"].clone());
            }
            "content_block_delta" => {
                let at = open.unwrap();
                assert_eq!(data["index"], json!(at));
                let (member, piece) = match data["delta"]["type"].as_str().unwrap() {
                    "text_delta" => ("text", &data["delta"]["text"]),
                    "thinking_delta" => ("thinking", &data["delta"]["thinking"]),
                    "signature_delta" => ("signature", &data["delta"]["signature"]),
                    "input_json_delta" => ("json", &data["delta"]["partial_json"]),
                    "citations_delta" => {
                        let citation = data["delta"]["citation"].clone();
                        let mut citations = blocks[at]["citations"].as_array().cloned();
                        citations.get_or_insert_default().push(citation);
                        blocks[at]["citations"] = citations.into();
                        continue;
                    }
                    other => panic!("{other}"),
                };
                let so_far = blocks[at][member].as_str().unwrap_or_default().to_owned();
                blocks[at][member] = (so_far + piece.as_str().unwrap()).into();
            }
            "content_block_stop" => {
                assert_eq!(open.take().map(|at| json!(at)), Some(data["index"].clone()));
            }
            _ => assert_eq!(open, None, "{name}"),
        }
    }
    assert_eq!(open, None);
    blocks
}

fn names(events: &[(String, Value)]) -> Vec<&str> {
    events.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn a_stream_becomes_one_of_the_messages_api() {
    let frames = [
        start(),
        text(0, "Grü"),
        text(0, "ße \"\n\u{1f680}"),
        stop(0),
        tool_start(1, "t_1", "look"),
        delta(1, &json!({"toolUse": {"input": "{\"a\""}})),
        delta(1, &json!({"toolUse": {"input": ":1}"}})),
        stop(1),
        message_stop("tool_use"),
        metadata(),
    ];
    let (events, error) = read(context(), &frames);
    assert!(error.is_none());
    assert_eq!(
        content(&events),
        [
            json!({"type": "text", "text": "Grüße \"\n\u{1f680}"}),
            json!({"type": "tool_use", "id": "t_1", "name": "look", "input": {}, "json": "{\"a\":1}"})
        ]
    );
    assert_eq!(events[0].1["message"]["model"], "claude-x");
    let end = &events[events.len() - 2].1;
    assert_eq!(
        end["delta"],
        json!({"stop_reason": "tool_use", "stop_sequence": null})
    );
    assert_eq!(events.last().unwrap().0, "message_stop");
}

#[test]
fn usage_is_guessed_at_the_start_and_exact_at_the_end() {
    let (events, _) = read(
        context(),
        &[
            start(),
            text(0, "a"),
            stop(0),
            message_stop("end_turn"),
            metadata(),
        ],
    );
    assert_eq!(events[0].1["message"]["usage"]["input_tokens"], 100);
    let usage = &events[events.len() - 2].1["usage"];
    assert_eq!(
        (&usage["input_tokens"], &usage["output_tokens"]),
        (&json!(7), &json!(5))
    );
}

#[test]
fn the_end_waits_for_the_usage_in_either_order_and_does_without() {
    let head = [start(), text(0, "a"), stop(0)];
    for (tail, input) in [
        (vec![message_stop("end_turn"), metadata()], 7),
        (vec![metadata(), message_stop("end_turn")], 7),
        (vec![message_stop("end_turn")], 100),
    ] {
        let frames: Vec<_> = head.iter().cloned().chain(tail).collect();
        let (events, _) = read(context(), &frames);
        assert_eq!(names(&events)[4..], ["message_delta", "message_stop"]);
        assert_eq!(events[4].1["usage"]["input_tokens"], input);
    }
}

#[test]
fn usage_that_converse_does_not_count_is_nothing_and_no_report() {
    let uncounted = || event("metadata", json!({"usage": {"new": 1}}));
    for (tail, input, is_counted) in [
        (vec![uncounted()], 0, false),
        (vec![event("metadata", json!({}))], 0, false),
        (vec![metadata()], 7, true),
    ] {
        let frames: Vec<_> = [vec![start(), text(0, "a"), message_stop("end_turn")], tail].concat();
        let mut events = Events::new(context());
        let (seen, _) = run(&mut events, &frames);
        let end = seen.split("event: message_delta").nth(1).unwrap();
        assert!(end.contains(&format!("\"input_tokens\":{input},")), "{end}");
        assert_eq!(events.ended_uncounted(), !is_counted);
    }
    let frames = [start(), metadata(), uncounted(), message_stop("end_turn")];
    let mut events = Events::new(context());
    run(&mut events, &frames);
    assert!(!events.ended_uncounted(), "what was counted stays");
}

#[test]
fn a_stream_without_stop_has_no_end() {
    let (events, error) = read(context(), &[start(), text(0, "a"), stop(0), metadata()]);
    assert!(error.is_none());
    assert_eq!(names(&events).last(), Some(&"content_block_stop"));
}

#[test]
fn empty_and_blank_texts_show_nothing() {
    let frames = [
        start(),
        text(0, ""),
        stop(0),
        text(1, " "),
        text(1, "\n"),
        stop(1),
        text(2, ""),
        text(2, "\n "),
        text(2, "words"),
        text(2, ""),
        stop(2),
        message_stop("end_turn"),
        metadata(),
    ];
    let (events, _) = read(context(), &frames);
    assert_eq!(
        content(&events),
        [json!({"type": "text", "text": "\n words"})]
    );
}

#[test]
fn a_call_without_arguments_is_whole() {
    for deltas in [vec![], vec![delta(0, &json!({"toolUse": {"input": ""}}))]] {
        let frames: Vec<_> = [
            vec![start(), tool_start(0, "t", "n")],
            deltas,
            vec![stop(0), message_stop("tool_use"), metadata()],
        ]
        .concat();
        let (events, _) = read(context(), &frames);
        let block = &content(&events)[0];
        assert_eq!(
            (&block["input"], block["json"].as_str().unwrap_or("")),
            (&json!({}), "")
        );
    }
}

#[test]
fn names_come_back_and_ids_can_be_replayed() {
    let mut names = super::super::names::Names::of_tools();
    let long = "n".repeat(90);
    let wire = names.wire(Cow::Borrowed(&long)).to_owned();
    let context = Context {
        tools: names.into_changed(),
        ..context()
    };
    let frames = [
        start(),
        tool_start(0, "functions.n:0", &wire),
        stop(0),
        message_stop("tool_use"),
        metadata(),
    ];
    let (events, _) = read(context, &frames);
    let block = &content(&events)[0];
    assert_eq!(block["name"], long);
    assert!(
        block["id"]
            .as_str()
            .unwrap()
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    );
}

#[test]
fn what_has_no_form_is_passed_over() {
    let server =
        json!({"toolUse": {"toolUseId": "s", "name": "nova_grounding", "type": "server_tool_use"}});
    let frames = [
        start(),
        event(
            "contentBlockStart",
            json!({"contentBlockIndex": 0, "start": server}),
        ),
        delta(0, &json!({"toolUse": {"input": "{}"}})),
        stop(0),
        event(
            "contentBlockStart",
            json!({"contentBlockIndex": 1, "start": {"toolResult": {"toolUseId": "s"}}}),
        ),
        delta(1, &json!({"toolResult": [{"text": "x"}]})),
        stop(1),
        event(
            "contentBlockStart",
            json!({"contentBlockIndex": 2, "start": {}}),
        ),
        text(2, "a"),
        delta(2, &json!({"new": {}})),
        delta(2, &json!({"citation": {"location": {"web": {}}}})),
        stop(2),
        event("somethingNew", json!({})),
        delta(3, &json!({"image": {}})),
        stop(3),
        message_stop("end_turn"),
        metadata(),
        text(9, "after the end"),
    ];
    let (events, error) = read(context(), &frames);
    assert!(error.is_none());
    assert_eq!(content(&events), [json!({"type": "text", "text": "a"})]);
}

#[test]
fn blocks_that_are_not_closed_are_closed() {
    let frames = [
        text(0, "a"),
        reasoning(1, &json!({"text": "b"})),
        text(1, "c"),
        message_stop("end_turn"),
        metadata(),
    ];
    let (events, _) = read(context(), &frames);
    assert_eq!(names(&events)[0], "message_start", "also without its frame");
    assert_eq!(content(&events).len(), 3);
}

#[test]
fn exceptions_end_the_stream_before_and_after_content() {
    let exception = frame(
        (":exception-type", "throttlingException"),
        "exception",
        &json!({"message": "slow down"}),
    );
    let error = frame(
        (":error-code", "internalServerException"),
        "error",
        &json!({}),
    );
    for head in [vec![], vec![start()], vec![start(), text(0, "a")]] {
        for (last, expected) in [
            (&exception, "throttlingException"),
            (&error, "internalServerException"),
        ] {
            let frames: Vec<_> = head.iter().cloned().chain([last.clone()]).collect();
            let (events, error) = read(context(), &frames);
            assert!(
                matches!(&error, Some(StreamError::Reported { code, .. }) if code == expected),
                "{error:?}"
            );
            assert_eq!(
                events.is_empty(),
                head.is_empty(),
                "nothing is made up before it"
            );
        }
    }
}

#[test]
fn an_event_that_is_none_is_an_error() {
    for payload in [
        json!([]),
        json!("x"),
        json!({"contentBlockIndex": 0, "delta": []}),
    ] {
        let bad = frame((":event-type", "contentBlockDelta"), "event", &payload);
        let (_, error) = read(context(), &[start(), bad]);
        assert!(
            matches!(error, Some(StreamError::Malformed(_))),
            "{payload}"
        );
    }
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![Just(""), Just(" "), Just("word"), Just("ü\n\"")];
    (0..10_u8, 0..3_u64, word).prop_map(|(kind, index, word)| match kind {
        0 | 1 => text(index, word),
        2 => reasoning(index, &json!({"text": word})),
        3 => reasoning(index, &json!({"signature": word})),
        4 => reasoning(index, &json!({"redactedContent": "cmVk"})),
        5 => tool_start(index, "t", "n"),
        6 => delta(index, &json!({"toolUse": {"input": word}})),
        7 => event(
            "contentBlockStart",
            json!({"contentBlockIndex": index, "start": {"image": {}}}),
        ),
        8 => citation(index, "t"),
        _ => stop(index),
    })
}

proptest! {
    #[test]
    fn any_frames_become_whole_blocks_none_of_them_empty(frames in proptest::collection::vec(any_frame(), 0..20), is_claude in any::<bool>()) {
        let frames: Vec<_> = [vec![start()], frames, vec![message_stop("end_turn"), metadata()]].concat();
        let (events, error) = read(Context { is_claude, ..context() }, &frames);
        prop_assert!(error.is_none());
        prop_assert_eq!(names(&events)[0], "message_start");
        prop_assert_eq!(events.last().unwrap().0.as_str(), "message_stop");
        for block in content(&events) {
            prop_assert!(block["text"].as_str().is_none_or(|text| !text.trim().is_empty()));
            if block["type"] == "thinking" && !is_claude {
                prop_assert!(!block["signature"].as_str().unwrap().is_empty());
            }
        }
    }
}

#[test]
fn a_signature_without_end_is_not_collected() {
    let piece = "x".repeat(512 * 1024);
    let frames: Vec<_> = std::iter::once(start())
        .chain((0..20).map(|_| reasoning(0, &json!({"signature": piece}))))
        .collect();
    let (events, error) = read(context(), &frames);
    assert!(matches!(error, Some(StreamError::Malformed(_))));
    assert!(events.iter().all(|(name, _)| name == "message_start"));
}
