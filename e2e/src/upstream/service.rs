//! Takes one request and answers it, as one of the two upstreams or as the control API.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;

use super::{
    answer::{Content, Prepared},
    bedrock,
    behaviour::{Failure, Mode, Reply},
    config::Config,
    control,
    gate::Gates,
    handle::Upstream,
    journal::{Journal, Kind, Outcome, Record},
    line::Line,
    plan, plan_rules,
    playback::{self, BrokenOff, PrepareError},
    received::Received,
    script::{Action, Point, Script},
};

pub(crate) type Body = UnsyncBoxBody<Bytes, BrokenOff>;

/// What both upstreams share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) plan: Arc<Upstream>,
    pub(crate) bedrock: Arc<Upstream>,
    pub(crate) gates: Arc<Gates>,
    pub(crate) journal: Arc<Journal>,
    /// Part of every id, so that two runs never give out the same.
    pub(crate) instance: u32,
}

impl Shared {
    pub(crate) fn upstream(&self, kind: Kind) -> &Arc<Upstream> {
        match kind {
            Kind::Plan => &self.plan,
            Kind::Bedrock => &self.bedrock,
        }
    }
}

/// No client sends more, whatever the upstreams' own limits.
const MAX_BODY: usize = 256 * 1024 * 1024;

/// Answers a request that came over `line` to the port of `kind`.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    kind: Kind,
    line: Arc<Line>,
    request: Request<Incoming>,
) -> Result<Response<Body>, BrokenOff> {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_BODY).collect().await else {
        return Err(BrokenOff);
    };
    let body = body.to_bytes();
    if parts.uri.path().starts_with(control::PREFIX) {
        return Ok(control::answer(&shared, &parts, &body)
            .await
            .map(|body| Full::new(body).map_err(never).boxed_unsync()));
    }
    let route = match kind {
        Kind::Plan => plan::route,
        Kind::Bedrock => bedrock::route,
    };
    let request = Arc::new(Received::new(parts, &body, route));
    let record = shared.journal.open(kind, Arc::clone(&request));
    let answering = Answering {
        shared,
        kind,
        line,
        request,
        record,
    };
    Ok(answering.answer().await)
}

fn never(never: std::convert::Infallible) -> BrokenOff {
    match never {}
}

struct Answering {
    shared: Arc<Shared>,
    kind: Kind,
    line: Arc<Line>,
    request: Arc<Received>,
    record: Record,
}

impl Answering {
    async fn answer(self) -> Response<Body> {
        let number = self.record.id();
        let instance = self.shared.instance;
        let request_id = match self.kind {
            Kind::Plan => format!("req_011C{instance:08x}{number:012}"),
            Kind::Bedrock => format!("{instance:08x}-0000-4000-8000-{number:012}"),
        };
        self.record
            .update(|answer| answer.request_id.clone_from(&request_id));
        match self.reply() {
            Reply::Fail(failure) => self.fail(&failure, &request_id),
            Reply::Reset => self.disconnect(Line::reset).await,
            Reply::Close => self.disconnect(Line::close).await,
            Reply::Hang => std::future::pending().await,
            Reply::Message(script) => self.message(&script, &request_id, number).await,
            Reply::Agent(agent) => {
                let unique = format!("{instance:08x}{number:012}");
                match agent.script(&self.request, &unique) {
                    Ok(script) => self.message(&script, &request_id, number).await,
                    Err(error) => self.unable(&error, &request_id),
                }
            }
        }
    }

    async fn message(self, script: &Script, request_id: &str, number: u64) -> Response<Body> {
        self.before_headers(script).await;
        let number = (u64::from(self.shared.instance) << 24) + number;
        match self.prepare(script, request_id, number) {
            Ok(prepared) => self.send(prepared),
            Err(error) => self.unable(&error, request_id),
        }
    }

    /// Whoever scripted this made a mistake.
    fn unable(self, error: &(dyn std::error::Error + 'static), request_id: &str) -> Response<Body> {
        tracing::error!(error, "answer not made");
        self.fail(&Failure::status(500).message(error.to_string()), request_id)
    }

    /// Mode first, then credentials and form, then the queue: a request that is refused uses up no rule.
    fn reply(&self) -> Reply {
        let upstream = self.shared.upstream(self.kind);
        let config = &self.shared.config;
        match upstream.mode() {
            Mode::Down { reply } => return reply,
            Mode::Refusing => return Reply::Reset,
            Mode::Up => {}
        }
        let refusal = match self.kind {
            Kind::Plan => plan_rules::refusal(&self.request, config),
            Kind::Bedrock => bedrock::refusal(&self.request, config),
        };
        refusal
            .map(Reply::from)
            .or_else(|| upstream.take_rule(&self.request))
            .unwrap_or_else(|| Script::default().into())
    }

    fn prepare(
        &self,
        script: &Script,
        request_id: &str,
        number: u64,
    ) -> Result<Prepared, PrepareError> {
        match self.kind {
            Kind::Plan => plan::answer(&self.request, script, request_id, number),
            Kind::Bedrock => bedrock::answer(&self.request, script, request_id, number),
        }
    }

    async fn before_headers(&self, script: &Script) {
        for fault in script
            .faults
            .iter()
            .filter(|fault| fault.at == Point::Headers)
        {
            match &fault.action {
                Action::Stall { ms } => tokio::time::sleep(Duration::from_millis(*ms)).await,
                Action::Hold { gate } => self.shared.gates.pass(gate).await,
                Action::Reset => self.disconnect(Line::reset).await,
                Action::Cut | Action::CutInside => self.disconnect(Line::close).await,
                // An error before the status line is a failure of its own kind.
                Action::Error { .. } => {}
            }
        }
    }

    /// Ends the connection; whoever waits for an answer is dropped with it.
    async fn disconnect<T>(&self, how: impl FnOnce(&Line)) -> T {
        self.record.end(Outcome::Disconnected);
        how(&self.line);
        std::future::pending().await
    }

    fn fail(self, failure: &Failure, request_id: &str) -> Response<Body> {
        let (prepared, error) = match self.kind {
            Kind::Plan => (
                plan::failure(failure, request_id),
                plan::error_type(failure),
            ),
            Kind::Bedrock => (
                bedrock::failure(failure, request_id),
                bedrock::error_type(failure),
            ),
        };
        self.record
            .update(|answer| answer.error = Some(error.to_owned()));
        self.send(prepared)
    }

    fn send(self, prepared: Prepared) -> Response<Body> {
        let record = self.record;
        prepared.note(
            &record,
            self.request.wants_stream() && prepared.status == StatusCode::OK,
        );
        let body = match prepared.content {
            Content::Whole(bytes) => {
                record.sent(&bytes, prepared.usage);
                record.end(Outcome::Complete);
                Full::new(bytes).map_err(never).boxed_unsync()
            }
            Content::Played(steps) => {
                let gates = Arc::clone(&self.shared.gates);
                StreamBody::new(playback::play(steps, gates, self.line, record).boxed())
                    .boxed_unsync()
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = prepared.status;
        *response.headers_mut() = prepared.headers;
        response
    }
}
