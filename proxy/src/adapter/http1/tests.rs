//! Against sockets: what is sent, what is made of what comes, and which connections are kept.

use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const TIMEOUT: Duration = Duration::from_secs(5);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A client for an upstream on this machine, and the upstream.
async fn pair() -> (HttpClient, TcpListener) {
    keeping(8, TIMEOUT).await
}

/// The same, keeping so many connections for so long.
async fn keeping(max_idle: usize, idle_timeout: Duration) -> (HttpClient, TcpListener) {
    let upstream = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let allowed = format!("http://{}", upstream.local_addr().unwrap());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let connector = GuardedConnector::new(Arc::new(allowed.parse().unwrap()), &tls, TIMEOUT);
    (HttpClient::new(connector, max_idle, idle_timeout), upstream)
}

fn request(upstream: &TcpListener, body: impl Into<Bytes>) -> Request<Bytes> {
    Request::post(format!(
        "http://{}/v1/messages?a=b",
        upstream.local_addr().unwrap()
    ))
    .header("x-api-key", "k")
    .body(body.into())
    .unwrap()
}

/// Reads one request, whose body ends with `!`.
async fn read_request(stream: &mut TcpStream) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"!") {
        let byte = stream.read_u8().await.unwrap();
        read.push(byte);
    }
    String::from_utf8(read).unwrap()
}

/// Answers each request over one connection with one of `answers`, and closes it then.
async fn answering(upstream: &TcpListener, answers: &[&str]) {
    let (mut stream, _) = upstream.accept().await.unwrap();
    for answer in answers {
        read_request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn text(answer: Response<AnswerBody>) -> Result<String, AnswerBroken> {
    let body = answer.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8(body.to_vec()).unwrap())
}

/// What comes of an answer, when the upstream closes after it.
async fn answered(answer: &'static str) -> Result<(StatusCode, String), String> {
    let (client, upstream) = pair().await;
    let asked = async {
        let answer = client
            .send(request(&upstream, "!"))
            .await
            .map_err(|error| crate::adapter::chain(&error))?;
        let status = answer.status();
        let text = text(answer).await.map_err(|error| error.to_string())?;
        Ok((status, text))
    };
    let (answer, ()) = tokio::join!(asked, async {
        let (mut stream, _) = upstream.accept().await.unwrap();
        read_request(&mut stream).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
    });
    answer
}

#[tokio::test]
async fn a_request_is_sent_with_its_length_and_without_what_is_about_another_connection() {
    let (client, upstream) = pair().await;
    let mut sent = request(&upstream, "{}!");
    for (name, value) in [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("content-length", "9"),
    ] {
        sent.headers_mut().insert(name, value.parse().unwrap());
    }
    let host = upstream.local_addr().unwrap();
    let (answer, read) = tokio::join!(client.send(sent), async {
        let (mut stream, _) = upstream.accept().await.unwrap();
        let read = read_request(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
        read
    });
    assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
    assert_eq!(
        read,
        format!(
            "POST /v1/messages?a=b HTTP/1.1\r\nhost: {host}\r\nx-api-key: k\r\ncontent-length: 3\r\n\r\n{{}}!"
        )
    );
}

#[tokio::test]
async fn a_connection_serves_one_request_after_the_other() {
    const CHUNKED: &str =
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    let (client, upstream) = pair().await;
    let asking = async {
        for expected in ["ok", "one", "ok", ""] {
            let answer = client.send(request(&upstream, "!")).await.unwrap();
            assert_eq!(text(answer).await.unwrap(), expected);
        }
    };
    tokio::join!(
        asking,
        answering(
            &upstream,
            &[OK, CHUNKED, OK, "HTTP/1.1 204 No Content\r\n\r\n"]
        )
    );
}

#[tokio::test]
async fn a_connection_that_may_be_out_of_step_is_not_used_again() {
    for first in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 500 Smuggled\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 99\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
        "HTTP/1.1 200 OK\r\nconnection: Close\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ] {
        let (client, upstream) = pair().await;
        let asking = async {
            let answer = client.send(request(&upstream, "!")).await.unwrap();
            // A length that is not the body's must not reach the client.
            let length = answer.headers().get("content-length").cloned();
            let is_chunked = answer.headers().contains_key("transfer-encoding");
            assert!(!is_chunked || length.is_none());
            let expected = if answer.status() == 200 { "ok" } else { "" };
            assert_eq!(text(answer).await.unwrap(), expected, "{first}");
            let answer = client.send(request(&upstream, "!")).await.unwrap();
            assert_eq!(text(answer).await.unwrap(), "second", "{first}");
        };
        tokio::join!(asking, async {
            let mut held = Vec::new();
            for answer in [first, "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond"] {
                let (mut stream, _) = upstream.accept().await.unwrap();
                read_request(&mut stream).await;
                stream.write_all(answer.as_bytes()).await.unwrap();
                held.push(stream);
            }
        });
    }
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_is_replaced() {
    let (client, upstream) = pair().await;
    for _ in 0..3 {
        let (answer, ()) = tokio::join!(
            client.send(request(&upstream, "!")),
            answering(&upstream, &[OK])
        );
        assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
        // The end of the connection is on its way.
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_than_are_to_be_and_none_for_longer() {
    for (max_idle, idle_timeout, kept) in [
        (1, TIMEOUT, 1),
        (2, TIMEOUT, 2),
        (2, Duration::from_millis(200), 0),
    ] {
        let (client, upstream) = keeping(max_idle, idle_timeout).await;
        let (one, two) = (request(&upstream, "!"), request(&upstream, "!"));
        let (one, two, streams) = tokio::join!(client.send(one), client.send(two), async {
            let mut streams = Vec::new();
            for _ in 0..2 {
                streams.push(upstream.accept().await.unwrap().0);
            }
            for stream in &mut streams {
                read_request(stream).await;
                stream.write_all(OK.as_bytes()).await.unwrap();
            }
            streams
        });
        for answer in [one, two] {
            assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
        }
        let (closed, mut closings) = tokio::sync::mpsc::unbounded_channel();
        for mut stream in streams {
            let closed = closed.clone();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0]).await;
                closed.send(()).ok();
            });
        }
        for _ in kept..2 {
            closings.recv().await.unwrap();
        }
        assert!(closings.try_recv().is_err(), "{kept} are kept");
        let origin = Origin::of(request(&upstream, "!").uri()).unwrap();
        assert_eq!(client.pool.has(&origin), kept > 0);
    }
}

#[tokio::test]
async fn a_warm_connection_serves_the_first_request() {
    let (client, upstream) = pair().await;
    let uri = request(&upstream, "!").uri().clone();
    client.warm(&uri).await.unwrap();
    let (mut stream, _) = upstream.accept().await.unwrap();
    client.warm(&uri).await.unwrap();
    let (answer, ()) = tokio::join!(client.send(request(&upstream, "!")), async {
        read_request(&mut stream).await;
        stream.write_all(OK.as_bytes()).await.unwrap();
    });
    assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
}

#[tokio::test]
async fn a_dropped_answer_closes_its_connection() {
    let (client, upstream) = pair().await;
    let (answer, mut stream) = tokio::join!(client.send(request(&upstream, "!")), async {
        let (mut stream, _) = upstream.accept().await.unwrap();
        read_request(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok")
            .await
            .unwrap();
        stream
    });
    drop(answer.unwrap());
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn an_answer_that_comes_before_the_request_is_sent_is_taken() {
    let (client, upstream) = pair().await;
    let large = vec![b'x'; 64 * 1024 * 1024];
    let (answer, _stream) = tokio::join!(client.send(request(&upstream, large)), async {
        let (mut stream, _) = upstream.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno")
            .await
            .unwrap();
        stream
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(text(answer).await.unwrap(), "no");
    assert!(
        !client
            .pool
            .has(&Origin::of(request(&upstream, "!").uri()).unwrap())
    );
}

#[tokio::test]
async fn an_answer_may_begin_while_the_request_is_still_read() {
    let (client, upstream) = pair().await;
    let length = 16 * 1024 * 1024;
    let mut large = vec![b'x'; length];
    large.push(b'!');
    let asking = async {
        let answer = client.send(request(&upstream, large)).await.unwrap();
        text(answer).await.unwrap()
    };
    let (body, read) = tokio::join!(asking, async {
        let (mut stream, _) = upstream.accept().await.unwrap();
        stream.read_u8().await.unwrap();
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n")
            .await
            .unwrap();
        let (mut read, mut buffer) = (0, vec![0; 1024 * 1024]);
        loop {
            let some = stream.read(&mut buffer).await.unwrap();
            read += some;
            if buffer[..some].ends_with(b"!") {
                break;
            }
        }
        stream.write_all(b"done").await.unwrap();
        read
    });
    assert_eq!(body, "done");
    assert!(read > length);
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    for interim in [
        "HTTP/1.1 100 Continue\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n",
    ] {
        let (client, upstream) = pair().await;
        let (answer, ()) = tokio::join!(client.send(request(&upstream, "!")), async {
            let (mut stream, _) = upstream.accept().await.unwrap();
            read_request(&mut stream).await;
            for part in [interim, interim, OK] {
                stream.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        assert_eq!(text(answer.unwrap()).await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_connection() {
    let whole = answered("HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
    assert_eq!(whole, (StatusCode::OK, "all of it".to_owned()));
}

#[tokio::test]
async fn what_is_cut_off_or_malformed_is_an_error() {
    for (answer, expected) in [
        ("", "closed before an answer"),
        ("HTTP/1.1 200 OK\r\ncontent-len", "closed before an answer"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
            "closed before the end",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            "closed before the end",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nok\r\n",
            "malformed",
        ),
        ("SSH-2.0-OpenSSH\r\n\r\n", "not HTTP/1.1"),
        (
            "HTTP/1.1 101 Switching Protocols\r\n\r\n",
            "switches protocols",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nok",
            "not one number",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
            "not one number",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nok",
            "not one number",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "not `chunked`",
        ),
        (
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "not `chunked`",
        ),
    ] {
        let error = answered(answer).await.unwrap_err();
        assert!(error.contains(expected), "{answer:?}: {error}");
    }
}

mod heads {
    use bytes::BytesMut;
    use proptest::prelude::*;

    use super::*;
    use crate::adapter::http1::head::read_head;

    fn read(sent: &[u8], size: usize, method: &Method) -> Option<(String, BytesMut)> {
        let (mut input, mut searched) = (BytesMut::new(), 0);
        let mut pieces = sent.chunks(size);
        loop {
            if let Some(head) = read_head(&mut input, &mut searched, method).unwrap() {
                for piece in pieces {
                    input.extend_from_slice(piece);
                }
                return Some((format!("{head:?}"), input));
            }
            input.extend_from_slice(pieces.next()?);
        }
    }

    proptest! {
        #[test]
        fn a_head_is_the_same_however_it_arrives(size in 1usize..100, is_lf in any::<bool>()) {
            let mut sent = String::from("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\na: b\r\ncontent-length: 3\r\n\r\nabc");
            if is_lf {
                sent = sent.replace("\r\n", "\n");
            }
            let whole = read(sent.as_bytes(), sent.len(), &Method::POST).unwrap();
            prop_assert_eq!(&whole.1[..], b"abc");
            prop_assert!(whole.0.contains("Length(3)"));
            prop_assert_eq!(read(sent.as_bytes(), size, &Method::POST).unwrap(), whole);
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let sent = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n";
        assert!(
            read(sent, 9, &Method::HEAD)
                .unwrap()
                .0
                .contains("Length(0)")
        );
    }

    #[test]
    fn a_head_without_end_is_refused() {
        let mut input = BytesMut::from("HTTP/1.1 200 OK\r\n");
        let mut searched = 0;
        let refused = loop {
            match read_head(&mut input, &mut searched, &Method::POST) {
                Ok(None) => input.extend_from_slice(b"a: b\r\n"),
                Ok(Some(_)) => panic!("it has no end"),
                Err(error) => break error,
            }
        };
        assert!(matches!(refused, HeadError::TooLong), "{refused}");
    }
}
