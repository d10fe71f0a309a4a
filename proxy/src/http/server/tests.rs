//! Connections over real sockets, and over a pipe where time is played.

use std::net::SocketAddr;
use std::sync::Weak;

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::*;

/// Refuses `/refused` before its body, and answers with how the length was said and with what else it was sent.
struct Echo;

impl Service for Echo {
    async fn answer(&self, request: Request<RequestBody>, length: Length) -> Response<RelayBody> {
        if request.uri() == "/refused" {
            // Its body arrives meanwhile, and nobody reads it.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let mut response = Response::new(RelayBody::whole("no".into()));
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            return response;
        }
        let sent = request.into_body().collect().await;
        let sent = sent
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let answer = format!("{length:?} {}", String::from_utf8_lossy(&sent));
        Response::new(RelayBody::whole(answer.into()))
    }
}

async fn start() -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    tokio::spawn(serve(
        listener,
        Arc::new(Echo),
        Ending::default(),
        Duration::from_secs(1),
    ));
    let socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn post(path: &str, headers: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}\r\n\r\n{body}")
}

fn declared(body: &str) -> String {
    post("/", &format!("content-length: {}", body.len()), body)
}

fn chunked(body: &str) -> String {
    let body = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    post("/", "transfer-encoding: chunked", &body)
}

/// What comes until `last`, or until the end.
async fn until(socket: &mut TcpStream, last: &str) -> String {
    let mut all = Vec::new();
    while !String::from_utf8_lossy(&all).contains(last) {
        if socket.read_buf(&mut all).await.unwrap() == 0 {
            break;
        }
    }
    String::from_utf8(all).unwrap()
}

#[tokio::test]
async fn what_a_body_says_is_never_taken_for_a_head() {
    let evil = "x\r\ncontent-length: 1\r\ntransfer-encoding: x\r\n\r\n";
    let headers = format!("content-length: {}", evil.len());
    for path in ["/", "/refused"] {
        let mut socket = start().await;
        let head = post(path, &headers, "");
        socket.write_all(head.as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
        socket.write_all(evil.as_bytes()).await.unwrap();
        if path == "/refused" {
            let answer = until(&mut socket, "nothing").await;
            assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
            assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
        } else {
            until(&mut socket, evil).await;
            for sent in [declared("next"), chunked("next")] {
                socket.write_all(sent.as_bytes()).await.unwrap();
                until(&mut socket, "Clear next").await;
            }
        }
    }
}

#[tokio::test]
async fn requests_that_are_sent_ahead_are_answered_unless_their_length_may_be_said_twice() {
    let mut socket = start().await;
    let ahead = [declared("1"), declared("2"), declared("3")].concat();
    socket.write_all(ahead.as_bytes()).await.unwrap();
    assert!(until(&mut socket, "Clear 3").await.contains("Clear 2"));
    for (first, cut) in [(declared("1"), 30), (chunked("1"), 30), (chunked("1"), 0)] {
        let mut socket = start().await;
        let both = post(
            "/",
            "content-length: 5\r\ntransfer-encoding: chunked",
            "0\r\n\r\n",
        );
        let (some, rest) = both.split_at(if cut == 0 { both.len() } else { cut });
        socket.write_all((first + some).as_bytes()).await.unwrap();
        until(&mut socket, "Clear 1").await;
        socket.write_all(rest.as_bytes()).await.unwrap();
        assert!(until(&mut socket, "Unseen").await.contains("Unseen"));
    }
}

#[tokio::test]
async fn who_still_sends_gets_to_see_why_nobody_reads_it() {
    for headers in ["content-length: 100000", "transfer-encoding: chunked"] {
        let mut socket = start().await;
        let head = post("/refused", headers, "");
        socket.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(30)).await;
            // An error here is what clients report in place of the answer.
            socket.write_all(&[b'0'; 5000]).await.unwrap();
        }
        let answer = until(&mut socket, "nothing").await;
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_never_stops_sending_is_left_after_a_while() {
    let (mut client, _graceful) = connected(Echo);
    let head = post("/refused", "content-length: 100000000", "");
    client.write_all(head.as_bytes()).await.unwrap();
    let began = Instant::now();
    while client.write_all(b"x").await.is_ok() {
        assert!(began.elapsed() < Duration::from_mins(1));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(began.elapsed() >= Duration::from_secs(10));
}

/// A connection over a pipe.
fn connected<S: Service>(service: S) -> (DuplexStream, GracefulShutdown) {
    let (client, server) = duplex(64 * 1024);
    let graceful = GracefulShutdown::new();
    let connection = Connection {
        builder: Arc::new(builder()),
        service: Arc::new(service),
        watcher: graceful.watcher(),
        cut: CancellationToken::new(),
    };
    tokio::spawn(connection.run(server));
    (client, graceful)
}

/// Answers everything with the same.
struct Large(Bytes);

impl Service for Large {
    async fn answer(&self, _: Request<RequestBody>, _: Length) -> Response<RelayBody> {
        Response::new(RelayBody::whole(self.0.clone()))
    }
}

/// Bytes that tell when nobody holds them any more.
struct Held(
    Vec<u8>,
    #[expect(dead_code, reason = "it is counted")] Arc<()>,
);

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Answers the first request with 1 MB, and keeps nothing of it.
struct Once(parking_lot::Mutex<Option<Bytes>>);

impl Service for Once {
    async fn answer(&self, _: Request<RequestBody>, _: Length) -> Response<RelayBody> {
        Response::new(RelayBody::whole(self.0.lock().take().unwrap_or_default()))
    }
}

fn held() -> (Once, Weak<()>) {
    let alive = Arc::new(());
    let weak = Arc::downgrade(&alive);
    let bytes = Bytes::from_owner(Held(vec![b'x'; 1024 * 1024], alive));
    (Once(parking_lot::Mutex::new(Some(bytes))), weak)
}

/// A frame of HTTP/2. Source: RFC 9113, section 4.1.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    let head = [0, 0, length, kind, flags, 0, 0, 0, stream];
    [&head, payload].concat()
}

/// Answers pings and settings for so long, and nothing else.
async fn stay(client: &mut DuplexStream, time: Duration) {
    let until = Instant::now() + time;
    let mut head = [0; 9];
    while let Ok(read) = tokio::time::timeout_at(until, client.read_exact(&mut head)).await {
        read.expect("the connection stays");
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        client.read_exact(&mut payload).await.unwrap();
        if matches!(head[3], 4 | 6) && head[4] == 0 {
            let answer = if head[3] == 6 { &payload[..] } else { &[] };
            let ack = frame(head[3], 1, 0, answer);
            client.write_all(&ack).await.unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_http2_client_that_never_opens_its_window_is_given_up() {
    let (service, alive) = held();
    let (mut client, _graceful) = connected(service);
    // SETTINGS_INITIAL_WINDOW_SIZE 0; then `:method GET`, `:path /`, `:scheme http` of the static table.
    let opened = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(4, 0, 0, &[0, 4, 0, 0, 0, 0]),
        frame(1, 5, 1, &[0x82, 0x84, 0x86]),
    ];
    client.write_all(&opened.concat()).await.unwrap();
    stay(&mut client, PATIENCE.sending * 9 / 10).await;
    assert!(alive.upgrade().is_some());
    stay(&mut client, PATIENCE.sending / 5).await;
    assert!(alive.upgrade().is_none(), "the answer is kept for ever");
}

#[tokio::test(start_paused = true)]
async fn an_http1_client_that_takes_nothing_is_given_up_too() {
    let (service, alive) = held();
    let (mut client, _graceful) = connected(service);
    client
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    tokio::time::sleep(PATIENCE.sending + Duration::from_secs(1)).await;
    assert!(alive.upgrade().is_none());
}

#[tokio::test]
async fn a_large_answer_arrives_whole_over_http2() {
    let answer = Bytes::from(vec![b'x'; 1024 * 1024 + 1]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = Arc::new(Large(answer.clone()));
    tokio::spawn(serve(
        listener,
        service,
        Ending::default(),
        Duration::from_secs(1),
    ));
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let client = reqwest::Client::builder()
        .no_proxy()
        .http2_prior_knowledge()
        .build()
        .unwrap();
    let response = client.get(url).send().await.unwrap();
    assert_eq!(response.content_length(), Some(1024 * 1024 + 1));
    assert_eq!(response.bytes().await.unwrap(), answer);
}
