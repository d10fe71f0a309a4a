//! `spillway-operator check URL…`: do these URLs answer? For `helm test`, in an image that has no other program.

use std::time::Duration;

use axum::http::Uri;
use clap::Args;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// Bytes of an answer that are read for its status.
const STATUS_LINE: u64 = 64;

/// What `check` is told.
#[derive(Debug, Args)]
#[allow(
    rustdoc::bare_urls,
    clippy::doc_markdown,
    reason = "they are the help's text"
)]
pub struct CheckFlags {
    /// URLs such as http://default.spillway.svc/ that must answer with a status of 200 to 299
    #[arg(required = true, value_name = "URL")]
    urls: Vec<Uri>,
    /// Seconds until all of them must have answered so
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u64,
}

/// A URL did not answer as it should.
#[derive(Debug, thiserror::Error)]
#[error("{url} does not answer with success within {seconds} s")]
pub struct CheckError {
    /// The URL.
    url: Uri,
    /// How long it was tried.
    seconds: u64,
    /// How the last attempt ended.
    #[source]
    source: AttemptError,
}

/// How one attempt failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The URL cannot be asked.
    #[error("write the URL as http://host[:port]/path")]
    Url,
    /// No connection, or it broke.
    #[error("it cannot be reached")]
    Io(#[from] std::io::Error),
    /// It took too long.
    #[error("no answer in time")]
    TimedOut,
    /// What came was no success.
    #[error("it answered {0:?}")]
    Answer(String),
}

/// Asks every URL until it answers with success, and prints a line for each. `Err` names the first that never does.
pub async fn run(flags: CheckFlags) -> Result<(), CheckError> {
    let deadline = Instant::now() + Duration::from_secs(flags.timeout);
    for url in flags.urls {
        match until_success(&url, deadline).await {
            Ok(answer) => println!("{url}: {answer}"),
            Err(source) => {
                return Err(CheckError {
                    url,
                    seconds: flags.timeout,
                    source,
                });
            }
        }
    }
    Ok(())
}

async fn until_success(url: &Uri, deadline: Instant) -> Result<String, AttemptError> {
    loop {
        let failure = match timeout(ATTEMPT, status_line(url)).await {
            Ok(Ok(line))
                if line
                    .split(' ')
                    .nth(1)
                    .is_some_and(|code| code.len() == 3 && code.starts_with('2')) =>
            {
                return Ok(line);
            }
            Ok(Ok(line)) => AttemptError::Answer(line),
            Ok(Err(AttemptError::Url)) => return Err(AttemptError::Url),
            Ok(Err(error)) => error,
            Err(_) => AttemptError::TimedOut,
        };
        if timeout_at(deadline, sleep(PAUSE)).await.is_err() {
            return Err(failure);
        }
    }
}

/// The status line of the answer to a GET.
async fn status_line(url: &Uri) -> Result<String, AttemptError> {
    let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(AttemptError::Url);
    };
    let mut stream =
        TcpStream::connect((authority.host(), authority.port_u16().unwrap_or(80))).await?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: spillway-check\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut head = Vec::new();
    stream.take(STATUS_LINE).read_to_end(&mut head).await?;
    let head = String::from_utf8_lossy(&head);
    Ok(head
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end()
        .to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives these answers, one to a connection.
    async fn server(answers: &'static [&'static str]) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url.parse().unwrap()
    }

    fn soon(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[tokio::test]
    async fn a_server_that_becomes_ready_passes() {
        let url = server(&[
            "HTTP/1.1 503 Service Unavailable\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n",
        ])
        .await;
        assert_eq!(
            until_success(&url, soon(20)).await.unwrap(),
            "HTTP/1.1 200 OK"
        );
    }

    #[tokio::test]
    async fn one_that_never_does_fails_with_its_last_answer() {
        let url = server(&["HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"]).await;
        let error = until_success(&url, soon(0)).await.unwrap_err();
        assert!(
            matches!(&error, AttemptError::Answer(line) if line == "HTTP/1.1 404 Not Found"),
            "{error:?}"
        );
    }

    #[tokio::test]
    async fn what_is_no_http_url_is_not_tried_again() {
        let error = until_success(&"https://host/".parse().unwrap(), soon(600))
            .await
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "write the URL as http://host[:port]/path"
        );
    }
}
