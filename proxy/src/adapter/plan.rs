//! The Anthropic API: requests and answers pass byte for byte.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::Stream;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body as _;
use secrecy::ExposeSecret as _;
use spillway_core::domain::usage::Provider;
use url::Url;

use super::headers::{for_plan, strip_answer};
use super::http_client::HttpClients;
use super::http1::{AnswerBody, HttpClient};
use super::{Adapter, AdapterError, BrokenReply, Chunk, Reply};
use crate::call::{Call, PlanCredential};

/// Sends calls to the Anthropic API.
#[derive(Clone)]
pub struct PlanAdapter {
    client: HttpClient,
}

impl PlanAdapter {
    /// An adapter over the shared clients.
    pub fn new(clients: &HttpClients) -> Self {
        Self {
            client: clients.http.clone(),
        }
    }
}

/// A request as the client made it.
#[derive(Debug)]
pub struct PlanRequest<'a> {
    /// The method.
    pub method: Method,
    /// The path below the API's base URL.
    pub path: &'a str,
    /// The query without its `?`.
    pub query: Option<&'a str>,
    /// The headers as they were received.
    pub headers: &'a HeaderMap,
    /// The decoded body.
    pub body: Bytes,
}

impl PlanAdapter {
    /// Sends a request with this credential. Errors that the Plan gave are replies.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn send(
        &self,
        request: PlanRequest<'_>,
        credential: &PlanCredential,
    ) -> Result<Reply, AdapterError> {
        let mut sent = Request::new(request.body);
        *sent.method_mut() = request.method;
        *sent.uri_mut() = uri(&credential.api_url, request.path, request.query)?;
        *sent.headers_mut() = for_plan(request.headers);
        sent.headers_mut().insert("x-api-key", api_key(credential)?);
        let response = self.client.send(sent).await.map_err(|error| {
            if error.is_connect() {
                AdapterError::Connect(error.into())
            } else {
                AdapterError::NoAnswer(error.into())
            }
        })?;
        Ok(reply(response))
    }
}

impl Adapter for PlanAdapter {
    type Target = Arc<PlanCredential>;

    fn provider(&self) -> Provider {
        Provider::Plan
    }

    async fn messages(
        &self,
        call: &Call,
        credential: &Arc<PlanCredential>,
    ) -> Result<Reply, AdapterError> {
        let request = PlanRequest {
            method: Method::POST,
            path: "/v1/messages",
            query: call.query.as_deref(),
            headers: &call.headers,
            body: call.body.clone(),
        };
        self.send(request, credential).await
    }
}

fn reply(response: Response<AnswerBody>) -> Reply {
    let (mut head, body) = response.into_parts();
    strip_answer(&mut head.headers);
    let request_id = head
        .headers
        .get("request-id")
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    Reply {
        status: head.status,
        headers: head.headers,
        request_id,
        body: Box::pin(PlanBody(body)),
    }
}

fn api_key(credential: &PlanCredential) -> Result<HeaderValue, AdapterError> {
    let mut key = HeaderValue::from_str(credential.key.expose_secret())
        .map_err(|error| AdapterError::Build(error.into()))?;
    key.set_sensitive(true);
    Ok(key)
}

/// The URI of `path` below `base`, with the query as the client sent it.
fn uri(base: &Url, path: &str, query: Option<&str>) -> Result<Uri, AdapterError> {
    let prefix = base.path().trim_end_matches('/');
    let mut target =
        String::with_capacity(prefix.len() + path.len() + query.map_or(0, |query| query.len() + 1));
    target.push_str(prefix);
    target.push_str(path);
    if let Some(query) = query {
        target.push('?');
        target.push_str(query);
    }
    let build = |error: http::Error| AdapterError::Build(error.into());
    Uri::builder()
        .scheme(base.scheme())
        .authority(base.authority())
        .path_and_query(
            PathAndQuery::from_maybe_shared(Bytes::from(target))
                .map_err(|error| build(error.into()))?,
        )
        .build()
        .map_err(build)
}

/// The answer's bytes as they come.
struct PlanBody(AnswerBody);

impl Stream for PlanBody {
    type Item = Result<Chunk, BrokenReply>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.0).poll_frame(cx)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => {
                    return Poll::Ready(Some(Err(BrokenReply::Connection(error.into()))));
                }
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes.into())));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_is_forwarded_as_it_is_below_the_base() {
        for (base, query, expected) in [
            (
                "https://api.anthropic.com",
                None,
                "https://api.anthropic.com/v1/messages",
            ),
            (
                "https://api.anthropic.com/",
                Some("beta=true"),
                "https://api.anthropic.com/v1/messages?beta=true",
            ),
            (
                "http://127.0.0.1:9000/plan/",
                Some("a=%2F&a=b+c"),
                "http://127.0.0.1:9000/plan/v1/messages?a=%2F&a=b+c",
            ),
            ("https://h:8443", Some(""), "https://h:8443/v1/messages?"),
        ] {
            let uri = uri(&Url::parse(base).unwrap(), "/v1/messages", query).unwrap();
            assert_eq!(uri.to_string(), expected);
        }
    }

    #[test]
    fn the_key_does_not_show_in_debug_output() {
        let credential = PlanCredential {
            id: uuid::Uuid::nil(),
            api_url: Url::parse("https://h").unwrap(),
            key: "sk-ant-1".to_owned().into(),
        };
        assert!(!format!("{:?}", api_key(&credential).unwrap()).contains("sk-ant"));
    }
}
