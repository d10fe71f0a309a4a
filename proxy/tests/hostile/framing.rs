//! Bodies whose length is said twice, wrongly or not at all.

use tokio::io::AsyncWriteExt as _;

use crate::support::{World, message};
use crate::wire::{Wire, post, request};
use crate::{assert_bounded, assert_serves};

#[tokio::test]
async fn a_length_said_twice_is_refused_however_and_whenever_it_arrives() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = world.key.expose();
    let body = message("hello", false).to_string();
    let both = |end: &str| {
        let lines = [
            "POST /v1/messages HTTP/1.1",
            "host: x",
            &format!("x-api-key: {key}"),
            &format!("content-length: {}", body.len()),
            "Transfer-Encoding: chunked",
            "",
            &format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        ];
        lines.join(end).into_bytes()
    };
    let good = request(key, body.as_bytes());
    for (name, before, sent, piece) in [
        ("at once", &b""[..], both("\r\n"), usize::MAX),
        ("byte by byte", b"", both("\r\n"), 1),
        ("in pieces", b"", both("\r\n"), 37),
        ("with bare line feeds", b"", both("\n"), usize::MAX),
        ("with bare line feeds, byte by byte", b"", both("\n"), 1),
        (
            "behind empty lines",
            b"\r\n\r\n\n",
            both("\r\n"),
            usize::MAX,
        ),
        ("behind empty lines, byte by byte", b"\r\n", both("\r\n"), 1),
    ] {
        let mut wire = Wire::open(&proxy).await;
        for again in 0..3 {
            wire.send(before).await;
            if again < 2 {
                wire.send(&good).await;
                assert_eq!(wire.answer().await.unwrap().status, 200, "{name}");
            } else {
                wire.send_slowly(&sent, piece).await;
            }
        }
        let refused = wire.answer().await.unwrap();
        assert_eq!(
            (refused.status, refused.error().as_str()),
            (400, "invalid_request_error"),
            "{name}: {refused:?}"
        );
    }
    let asked = world.fakes.plan.requests();
    assert!(asked.len() == 14 && asked.iter().all(|asked| asked.body == body));
}

#[tokio::test]
async fn lengths_and_chunks_that_lie_are_refused_in_anthropics_words() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = world.key.expose();
    let body = message("hello", false).to_string();
    let chunked = |chunks: &str| {
        format!("{}transfer-encoding: chunked\r\n\r\n{chunks}", post(key)).into_bytes()
    };
    let declared = |length: &str, body: &str| {
        format!("{}content-length: {length}\r\n\r\n{body}", post(key)).into_bytes()
    };
    let coded = |coding: &str| {
        format!("{}transfer-encoding: {coding}\r\n\r\n0\r\n\r\n", post(key)).into_bytes()
    };
    let extension = "x".repeat(1024 * 1024);
    let trailers = (0..50_000).fold(String::new(), |all, n| all + &format!("t-{n}: x\r\n"));
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "a size that is no number",
            chunked("zz\r\nhello\r\n0\r\n\r\n"),
        ),
        ("a size with a sign", chunked("-5\r\nhello\r\n0\r\n\r\n")),
        (
            "a size beyond all",
            chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "the largest size",
            chunked("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
        ),
        ("no size", chunked("\r\nhello\r\n0\r\n\r\n")),
        (
            "a chunk that is longer than it says",
            chunked("2\r\nhello\r\n0\r\n\r\n"),
        ),
        (
            "a huge extension",
            chunked(&format!("5;{extension}\r\nhello\r\n0\r\n\r\n")),
        ),
        (
            "many extensions",
            chunked(&"1;xxxxxxxxxxxxxxxxxxx\r\n{\r\n".repeat(10_000)),
        ),
        (
            "many trailers",
            chunked(&format!("2\r\n{{}}\r\n0\r\n{trailers}\r\n")),
        ),
        (
            "a huge trailer",
            chunked(&format!("2\r\n{{}}\r\n0\r\nt: {extension}\r\n\r\n")),
        ),
        ("a negative length", declared("-1", &body)),
        ("a length with a sign", declared("+5", &body)),
        ("no number", declared("many", &body)),
        (
            "a length beyond all",
            declared("99999999999999999999999", &body),
        ),
        ("two lengths", declared("5\r\ncontent-length: 6", &body)),
        ("two lengths in one", declared("5, 6", &body)),
        ("a length that is too short", declared("5", &body)),
        ("an unknown coding", coded("lzma")),
        ("a coding behind chunked", coded("chunked, gzip")),
        ("half a name", coded("xchunked")),
    ];
    for (name, sent) in cases {
        let mut wire = Wire::open(&proxy).await;
        wire.send(sent).await;
        // Nothing more comes, lest what lacks is waited for.
        let _ = wire.socket.shutdown().await;
        let answer = wire.answer().await;
        let answer = answer.unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(
            matches!(answer.status, 400 | 413 | 431),
            "{name}: {answer:?}"
        );
        // What hyper refuses itself has no body.
        let shape = answer.body.is_empty() || answer.error() == "invalid_request_error";
        assert!(shape, "{name}: {answer:?}");
        assert_serves(&world, &proxy, name).await;
    }
    for sent in [declared("500", "{"), chunked("5\r\nhel")] {
        let mut wire = Wire::open(&proxy).await;
        wire.send(sent).await;
        wire.socket.shutdown().await.unwrap();
        let refused = wire.answer().await.map(|refused| refused.status);
        assert_eq!(refused, Some(400));
    }
    assert_bounded(&proxy, 0, "lengths");
    let asked = world.fakes.plan.requests();
    assert!(asked.iter().all(|asked| asked.body.contains("still there")));
}
