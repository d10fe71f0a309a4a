//! HTTP/2 without TLS, frame by frame: RFC 9113 for frames, RFC 7541 for their headers.

use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::support::{Proxy, World, within};
use crate::wire::Wire;
use crate::{assert_bounded, assert_serves};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// A header that is neither indexed nor compressed.
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0];
    for text in [name, value] {
        out.push(u8::try_from(text.len()).unwrap());
        out.extend_from_slice(text.as_bytes());
    }
    out
}

fn post(key: &str) -> Vec<u8> {
    [
        header(":method", "POST"),
        header(":scheme", "http"),
        header(":path", "/v1/messages"),
        header(":authority", "x"),
        header("x-api-key", key),
    ]
    .concat()
}

/// What a connection ends up with.
#[derive(Debug, Default)]
struct Seen {
    /// The error code of the proxy's farewell.
    goaway: Option<u32>,
    /// Streams that it reset.
    resets: usize,
    /// Streams that it answered.
    answers: usize,
    hung_up: bool,
}

async fn connect(proxy: &Proxy) -> Wire {
    let mut wire = Wire::open(proxy).await;
    wire.send([PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
        .await;
    wire
}

/// Reads frames until `enough`, or until the proxy hangs up.
async fn read(wire: &mut Wire, enough: impl Fn(&Seen) -> bool) -> Seen {
    let mut seen = Seen::default();
    while !enough(&seen) {
        let mut head = [0; 9];
        let arrived = timeout(within(), wire.socket.read_exact(&mut head)).await;
        if arrived.expect("the proxy says nothing").is_err() {
            seen.hung_up = true;
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if wire.socket.read_exact(&mut payload).await.is_err() {
            seen.hung_up = true;
            break;
        }
        match head[3] {
            HEADERS => seen.answers += 1,
            RST_STREAM => seen.resets += 1,
            GOAWAY => seen.goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap())),
            _ => {}
        }
    }
    seen
}

#[tokio::test]
async fn a_flood_of_frames_ends_in_a_farewell_and_not_in_memory() {
    let world = World::create().await;
    let proxy = world.start().await;
    let head = post(world.key.expose());
    let streams = || (0_u32..).map(|n| 2 * n + 1);
    let reset: Vec<u8> = streams()
        .take(2_000)
        .flat_map(|id| {
            let opened = frame(HEADERS, END_HEADERS, id, &head);
            [opened, frame(RST_STREAM, 0, id, &[0, 0, 0, 8])].concat()
        })
        .collect();
    let half_head = frame(HEADERS, 0, 1, &head);
    let more = frame(CONTINUATION, 0, 1, &header("x-more", &"y".repeat(120)));
    let huge: Vec<u8> = (0..2_000)
        .flat_map(|n| header(&format!("x-{n}"), &"y".repeat(120)))
        .collect();
    let huge: Vec<u8> =
        std::iter::once(frame(HEADERS, 0, 1, &[&head[..], &huge[..8_000]].concat()))
            .chain(
                huge[8_000..]
                    .chunks(16_000)
                    .map(|part| frame(CONTINUATION, 0, 1, part)),
            )
            .collect::<Vec<_>>()
            .concat();
    for (name, sent) in [
        ("streams that are opened and reset", reset),
        (
            "a head that never ends",
            [half_head, more.repeat(20_000)].concat(),
        ),
        ("a huge head", huge),
        (
            "empty continuations",
            [
                frame(HEADERS, 0, 1, &head),
                frame(CONTINUATION, 0, 1, &[]).repeat(50_000),
            ]
            .concat(),
        ),
        (
            "a frame that is too large",
            frame(DATA, 0, 1, &vec![0; 100_000]),
        ),
        ("data without a stream", frame(DATA, 0, 7, b"x")),
        (
            "bad header compression",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        ),
        (
            "settings of a wrong size",
            frame(SETTINGS, 0, 0, &[1, 2, 3]),
        ),
    ] {
        let mut wire = connect(&proxy).await;
        wire.send(sent).await;
        let seen = read(&mut wire, |seen| seen.goaway.is_some()).await;
        println!("{name}: {seen:?}");
        assert!(
            seen.hung_up || seen.goaway.is_some_and(|code| code != 0),
            "{name}: {seen:?}"
        );
        assert_serves(&world, &proxy, name).await;
    }
    // None of them is answered at once where nobody reads the answers.
    let mut wire = connect(&proxy).await;
    wire.send(frame(PING, 0, 0, &[0; 8]).repeat(100_000)).await;
    assert_serves(&world, &proxy, "pings").await;
    assert_bounded(&proxy, 32, "HTTP/2 floods");
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused_and_the_others_wait_for_their_bodies() {
    const OPENED: u32 = 400;
    const LIMIT: usize = 256;
    let world = World::create().await;
    let proxy = world.start().await;
    let head = post(world.key.expose());
    let mut wire = connect(&proxy).await;
    for n in 0..OPENED {
        wire.send(frame(HEADERS, END_HEADERS, 2 * n + 1, &head))
            .await;
    }
    let beyond = usize::try_from(OPENED).unwrap() - LIMIT;
    let seen = read(&mut wire, |seen| seen.resets >= beyond).await;
    assert_eq!(
        (seen.resets, seen.answers, seen.hung_up),
        (beyond, 0, false),
        "{seen:?}"
    );
    assert_serves(&world, &proxy, "many streams").await;
    // One that is let in is answered still.
    wire.send(frame(DATA, END_STREAM, 1, b"{}")).await;
    let seen = read(&mut wire, |seen| seen.answers > 0).await;
    assert_eq!(seen.answers, 1, "{seen:?}");
    assert_bounded(&proxy, 32, "streams");
}
