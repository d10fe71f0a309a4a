//! Heads of any length and content.

use crate::support::{World, message};
use crate::wire::{Wire, post, request};
use crate::{assert_bounded, assert_serves};

#[tokio::test]
async fn heads_that_are_too_large_or_no_heads_are_answered() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = world.key.expose();
    let many = |count: usize| {
        (0..count).fold(post(key), |head, n| head + &format!("x-{n}: y\r\n")) + "\r\n"
    };
    let long = "a".repeat(200 * 1024);
    let cases: Vec<(&str, Vec<u8>, &[u16])> = vec![
        ("200 headers", many(200).into(), &[431]),
        ("20,000 headers", many(20_000).into(), &[431]),
        (
            "one huge header",
            format!("{}x: {long}\r\n\r\n", post(key)).into(),
            &[431],
        ),
        (
            "a header name that never ends",
            format!("{}{long}", post(key)).into(),
            &[431],
        ),
        (
            "a huge request line",
            format!("GET /{long} HTTP/1.1\r\n\r\n").into(),
            &[414, 431],
        ),
        (
            "a request line that never ends",
            long.clone().into(),
            &[431],
        ),
        (
            "a huge query",
            format!("GET /?{} HTTP/1.1\r\n\r\n", &long[..65_535]).into(),
            &[414, 431],
        ),
        (
            "no HTTP at all",
            vec![0, 1, 2, 3, 255, 10, 13, 10, 13, 10],
            &[400],
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".into(),
            &[400],
        ),
        (
            "another version",
            b"GET / HTTP/7.3\r\nhost: x\r\n\r\n".into(),
            &[400, 505],
        ),
        (
            "a space in a name",
            b"GET / HTTP/1.1\r\nho st: x\r\n\r\n".into(),
            &[400],
        ),
        (
            "a space behind a name",
            b"GET / HTTP/1.1\r\nhost : x\r\n\r\n".into(),
            &[400],
        ),
        (
            "a folded header",
            b"GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n".into(),
            &[400],
        ),
        ("no colon", b"GET / HTTP/1.1\r\nhost\r\n\r\n".into(), &[400]),
        (
            "NUL in a value",
            b"GET / HTTP/1.1\r\nhost: \0\r\n\r\n".into(),
            &[400],
        ),
        (
            "CR in a value",
            b"GET / HTTP/1.1\r\nhost: a\rb\r\n\r\n".into(),
            &[400],
        ),
        (
            "bad UTF-8 in a path",
            b"GET /ak/\xff\xfe/v1/models HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            &[400, 401],
        ),
        (
            "bad UTF-8 in a key",
            b"GET /v1/models HTTP/1.1\r\nhost: x\r\nx-api-key: \xff\xfe\r\n\r\n".into(),
            &[401],
        ),
    ];
    for (name, sent, statuses) in cases {
        let mut wire = Wire::open(&proxy).await;
        wire.send(sent).await;
        let answer = wire.answer().await;
        let answer = answer.unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(statuses.contains(&answer.status), "{name}: {answer:?}");
        assert_serves(&world, &proxy, name).await;
    }
    assert_bounded(&proxy, 0, "heads");
}

#[tokio::test]
async fn headers_of_any_bytes_are_passed_or_passed_over() {
    let world = World::create().await;
    let proxy = world.start().await;
    let body = message("hello", false).to_string();
    let mut sent = post(world.key.expose()).into_bytes();
    for header in [
        &b"x-claude-code-session-id: \xff\xfe\r\n"[..],
        b"x-claude-code-agent-id: a b\r\n",
        b"anthropic-beta: \xc3\x28\r\n",
        b"x-forwarded-for: \xff, 1.2.3.4\r\n",
        b"cookie: \xff\r\n",
        b"connection: keep-alive, x-hop, \xff\r\n",
    ] {
        sent.extend_from_slice(header);
    }
    sent.extend_from_slice(format!("content-length: {}\r\n\r\n{body}", body.len()).as_bytes());
    let mut wire = Wire::open(&proxy).await;
    wire.send(sent).await;
    assert_eq!(wire.answer().await.unwrap().status, 200);
    assert_eq!(world.rows(1).await[0].status, "ok");
}

#[tokio::test]
async fn what_follows_a_request_is_another_or_the_end_of_the_connection() {
    let world = World::create().await;
    let proxy = world.start().await;
    let good = request(
        world.key.expose(),
        message("hello", false).to_string().as_bytes(),
    );
    for garbage in [
        &b"garbage\r\n\r\n"[..],
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  /  HTTP/1.1\r\n\r\n",
    ] {
        let mut wire = Wire::open(&proxy).await;
        wire.send([&good[..], &good, garbage].concat()).await;
        for _ in 0..2 {
            assert_eq!(wire.answer().await.unwrap().status, 200);
        }
        let last = wire.answer().await.map(|answer| answer.status);
        assert!(matches!(last, None | Some(400)), "{last:?}");
        assert!(wire.is_hung_up().await);
    }
    let rows = world.rows(8).await;
    assert!(
        rows.len() == 8 && rows.iter().all(|row| row.status == "ok"),
        "{rows:?}"
    );
}
