//! The control API, on both ports under `/__control`: the library's calls for tests in other processes.
//!
//! | call | what |
//! | --- | --- |
//! | `GET /__control` | modes, rules left, number of requests, gates |
//! | `PUT /__control/{plan\|bedrock}/mode` | body [`Mode`]: `{"mode":"down"}`, `{"mode":"down","reply":{"fail":{"status":529}}}`, `{"mode":"refusing"}`, `{"mode":"up"}` |
//! | `GET`, `POST`, `DELETE /__control/{plan\|bedrock}/rules` | the queue; body of POST: one [`Rule`] or a list of them |
//! | `GET /__control/requests?upstream=plan&at_least=2&timeout_ms=5000` | the journal, once it has so many entries (408 with what there is when it takes longer) |
//! | `DELETE /__control/requests` | clears the journal |
//! | `GET /__control/gates` | states of all gates |
//! | `GET /__control/gates/{name}?held=1&timeout_ms=5000` | a gate's state, once so many answers wait at it (408 when it takes longer) |
//! | `POST /__control/gates/{name}/release`, `…/close` | lets everything pass, or nothing |
//! | `POST /__control/reset` | both up, no rules, empty journal, no gates |

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{
    behaviour::{Mode, Reply, Rule},
    handle::Upstream,
    journal::Kind,
    service::Shared,
};

/// Where the control API lives.
pub const PREFIX: &str = "/__control";

const DEFAULT_WAIT: Duration = Duration::from_secs(5);

type Answered = (StatusCode, Value);

pub(crate) async fn answer(shared: &Shared, parts: &Parts, body: &[u8]) -> Response<Bytes> {
    let path = parts
        .uri
        .path()
        .strip_prefix(PREFIX)
        .unwrap_or_default()
        .trim_matches('/');
    let segments: Vec<&str> = path
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let query = Query::parse(parts.uri.query().unwrap_or_default());
    let (status, json) = match dispatch(shared, &parts.method, &segments, &query, body).await {
        Ok(answered) => answered,
        Err((status, message)) => (status, json!({"error": message})),
    };
    let mut response = Response::new(Bytes::from(json.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

async fn dispatch(
    shared: &Shared,
    method: &Method,
    segments: &[&str],
    query: &Query<'_>,
    body: &[u8],
) -> Result<Answered, (StatusCode, String)> {
    match (method.as_str(), segments) {
        ("GET", []) => Ok(ok(overview(shared))),
        ("POST", ["reset"]) => {
            for upstream in [&shared.plan, &shared.bedrock] {
                upstream.clear_rules();
                upstream.up().await;
            }
            shared.gates.clear();
            shared.journal.clear();
            Ok(ok(overview(shared)))
        }
        ("GET", ["requests"]) => requests(shared, query).await,
        ("DELETE", ["requests"]) => {
            shared.journal.clear();
            Ok(ok(json!({})))
        }
        ("GET", ["gates"]) => Ok(ok(json!(shared.gates.list()))),
        ("GET", ["gates", name]) => {
            let reached = shared
                .gates
                .wait_held(name, query.number("held")?.unwrap_or(0), query.timeout()?)
                .await;
            let state = shared.gates.list().remove(*name).unwrap_or_default();
            Ok((
                if reached {
                    StatusCode::OK
                } else {
                    StatusCode::REQUEST_TIMEOUT
                },
                json!(state),
            ))
        }
        ("POST", ["gates", name, "release"]) => {
            shared.gates.release(name);
            Ok(ok(json!({})))
        }
        ("POST", ["gates", name, "close"]) => {
            shared.gates.close(name);
            Ok(ok(json!({})))
        }
        (_, [name, rest @ ..]) => {
            let upstream = shared.upstream(kind(name)?);
            of_upstream(upstream, method, rest, body).await
        }
        _ => Err(not_found()),
    }
}

async fn of_upstream(
    upstream: &Upstream,
    method: &Method,
    segments: &[&str],
    body: &[u8],
) -> Result<Answered, (StatusCode, String)> {
    match (method.as_str(), segments) {
        ("GET", ["mode"]) => Ok(ok(json!(upstream.mode()))),
        ("PUT" | "POST", ["mode"]) => {
            let mode: Mode = parse(body)?;
            if let Mode::Down { reply } = &mode {
                check(reply)?;
            }
            upstream.set_mode(mode).await;
            Ok(ok(json!(upstream.mode())))
        }
        ("GET", ["rules"]) => Ok(ok(json!(upstream.rules()))),
        ("POST", ["rules"]) => {
            let rules = match body.first() {
                Some(b'[') => parse(body)?,
                _ => vec![parse::<Rule>(body)?],
            };
            rules.iter().try_for_each(|rule| check(&rule.reply))?;
            for rule in rules {
                upstream.push(rule);
            }
            Ok(ok(json!(upstream.rules())))
        }
        ("DELETE", ["rules"]) => {
            upstream.clear_rules();
            Ok(ok(json!([])))
        }
        _ => Err(not_found()),
    }
}

fn overview(shared: &Shared) -> Value {
    let of = |upstream: &Upstream| {
        json!({
            "mode": upstream.mode(),
            "rules": upstream.rules().len(),
            "requests": upstream.request_count(),
        })
    };
    json!({
        "plan": of(&shared.plan),
        "bedrock": of(&shared.bedrock),
        "dropped_requests": shared.journal.dropped(),
        "gates": shared.gates.list(),
    })
}

async fn requests(shared: &Shared, query: &Query<'_>) -> Result<Answered, (StatusCode, String)> {
    let kind = query.text("upstream").map(kind).transpose()?;
    let at_least = query.number("at_least")?.unwrap_or(0);
    let waited = shared
        .journal
        .wait(kind, query.timeout()?, |exchanges| {
            exchanges.len() >= at_least
        })
        .await;
    Ok(match waited {
        Ok(exchanges) => ok(json!(exchanges)),
        Err(exchanges) => (StatusCode::REQUEST_TIMEOUT, json!(exchanges)),
    })
}

/// Refuses what could not be sent, so that a test does not wonder where its header went.
fn check(reply: &Reply) -> Result<(), (StatusCode, String)> {
    let headers = match reply {
        Reply::Fail(failure) => {
            if !(200..1000).contains(&failure.status) {
                return Err(bad_request(format!(
                    "fail.status {} is no final HTTP status",
                    failure.status
                )));
            }
            &failure.headers
        }
        Reply::Message(script) => &script.headers,
        Reply::Agent(agent) => &agent.script.headers,
        Reply::Reset | Reply::Close | Reply::Hang => return Ok(()),
    };
    for (name, value) in headers {
        if name.parse::<HeaderName>().is_err() || HeaderValue::from_str(value).is_err() {
            return Err(bad_request(format!(
                "headers: {name:?} is no header that HTTP can carry"
            )));
        }
    }
    Ok(())
}

struct Query<'a>(HashMap<&'a str, &'a str>);

impl<'a> Query<'a> {
    fn parse(query: &'a str) -> Self {
        Self(
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .collect(),
        )
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, (StatusCode, String)> {
        self.text(name)
            .map(|text| {
                text.parse()
                    .map_err(|_| bad_request(format!("{name}: {text:?} is no number")))
            })
            .transpose()
    }

    fn timeout(&self) -> Result<Duration, (StatusCode, String)> {
        Ok(self
            .number("timeout_ms")?
            .map_or(DEFAULT_WAIT, Duration::from_millis))
    }
}

fn ok(json: Value) -> Answered {
    (StatusCode::OK, json)
}

fn kind(name: &str) -> Result<Kind, (StatusCode, String)> {
    match name {
        "plan" => Ok(Kind::Plan),
        "bedrock" => Ok(Kind::Bedrock),
        _ => Err(not_found()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body).map_err(|error| bad_request(format!("body: {error}")))
}

fn bad_request(message: String) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, message)
}

fn not_found() -> (StatusCode, String) {
    (
        StatusCode::NOT_FOUND,
        format!("no such control call; see GET {PREFIX}"),
    )
}
