//! Sends a scripted body: events at their pace, faults where they belong, and every step noted in the journal.

use std::{io::Write, sync::Arc, time::Duration};

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::{Stream, stream};
use http_body::Frame;

use super::{
    events::{Event, Stage},
    gate::Gates,
    journal::{Outcome, Record},
    line::Line,
    script::{Action, Point, Script},
    usage::Usage,
};

/// One thing that happens while a body is sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Send {
        bytes: Bytes,
        usage: Option<Usage>,
    },
    Wait(Duration),
    Hold(String),
    /// The error that was just sent ends the body.
    ErrorEnd(String),
    Cut,
    Reset,
}

impl Step {
    fn send(bytes: Bytes) -> Self {
        Self::Send { bytes, usage: None }
    }
}

/// A body that was broken off on command.
#[derive(Debug, thiserror::Error)]
#[error("body broken off on command")]
pub(crate) struct BrokenOff;

/// An answer that could not be put into bytes.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrepareError {
    #[error("write an event-stream frame")]
    Frame(#[from] aws_smithy_eventstream::error::Error),
    #[error("compress the body")]
    Gzip(#[from] std::io::Error),
}

/// How events become bytes in one wire format.
pub(crate) trait Wire {
    /// Bytes of an event at its place in the stream.
    fn event(&self, index: usize, event: &Event) -> Result<Bytes, PrepareError>;
    /// Bytes of an error inside the stream.
    fn error(&self, error_type: &str, message: &str) -> Result<Bytes, PrepareError>;
    /// Bytes of a ping, where the format has one.
    fn ping(&self) -> Option<Bytes>;
}

/// Steps of a stream of events.
pub(crate) fn stream_steps(
    events: &[Event],
    script: &Script,
    wire: &impl Wire,
) -> Result<Vec<Step>, PrepareError> {
    let mut steps = Vec::with_capacity(events.len() + 4);
    let mut deltas = 0;
    let mut pinged = false;
    let mut content_begun = false;
    let mut ending = false;
    for (index, event) in events.iter().enumerate() {
        let bytes = wire.event(index, event)?;
        let mut points = Vec::new();
        if event.stage == Stage::MessageStart {
            points.push(Point::Start);
        }
        if matches!(event.stage, Stage::Delta | Stage::End) && !content_begun {
            content_begun = true;
            points.push(Point::Content);
        }
        if event.stage == Stage::End && !ending {
            ending = true;
            points.push(Point::End);
        }
        for point in points {
            if faults(&mut steps, script, point, &bytes, wire)? {
                return Ok(steps);
            }
        }
        if event.stage == Stage::Delta && script.chunk_delay_ms > 0 {
            steps.push(Step::Wait(Duration::from_millis(script.chunk_delay_ms)));
        }
        steps.push(Step::Send {
            bytes,
            usage: event.usage,
        });
        if event.stage == Stage::BlockStart && !pinged {
            pinged = true;
            steps.extend(wire.ping().map(Step::send));
        }
        if event.stage == Stage::Delta {
            deltas += 1;
            if script
                .ping_every
                .is_some_and(|every| deltas % every.max(1) == 0)
            {
                steps.extend(wire.ping().map(Step::send));
            }
            // What follows the last delta is a stop event at least.
            let next = events
                .get(index + 1)
                .map(|event| wire.event(index + 1, event))
                .transpose()?
                .unwrap_or_default();
            if faults(&mut steps, script, Point::Deltas(deltas), &next, wire)? {
                return Ok(steps);
            }
        }
    }
    Ok(steps)
}

/// Appends the faults of a point; true when the body ends with one of them.
fn faults(
    steps: &mut Vec<Step>,
    script: &Script,
    point: Point,
    next: &Bytes,
    wire: &impl Wire,
) -> Result<bool, PrepareError> {
    for fault in script.faults.iter().filter(|fault| fault.at == point) {
        match &fault.action {
            Action::Error {
                error_type,
                message,
            } => {
                steps.push(Step::send(wire.error(error_type, message)?));
                steps.push(Step::ErrorEnd(error_type.clone()));
                return Ok(true);
            }
            Action::Cut => {
                steps.push(Step::Cut);
                return Ok(true);
            }
            Action::CutInside => {
                steps.push(Step::send(next.slice(..next.len() / 2)));
                steps.push(Step::Cut);
                return Ok(true);
            }
            Action::Reset => {
                steps.push(Step::Reset);
                return Ok(true);
            }
            Action::Stall { ms } => steps.push(Step::Wait(Duration::from_millis(*ms))),
            Action::Hold { gate } => steps.push(Step::Hold(gate.clone())),
        }
    }
    Ok(false)
}

/// Steps of a body that does not stream: its faults come in its middle.
pub(crate) fn whole_steps(body: &Bytes, script: &Script, usage: Usage) -> Vec<Step> {
    let (first, second) = (body.slice(..body.len() / 2), body.slice(body.len() / 2..));
    let mut steps = vec![Step::send(first)];
    for fault in script
        .faults
        .iter()
        .filter(|fault| fault.at != Point::Headers)
    {
        match &fault.action {
            Action::Error { .. } => {}
            Action::Stall { ms } => steps.push(Step::Wait(Duration::from_millis(*ms))),
            Action::Hold { gate } => steps.push(Step::Hold(gate.clone())),
            Action::Cut | Action::CutInside => {
                steps.push(Step::Cut);
                return steps;
            }
            Action::Reset => {
                steps.push(Step::Reset);
                return steps;
            }
        }
    }
    steps.push(Step::Send {
        bytes: second,
        usage: Some(usage),
    });
    steps
}

/// Compresses what is sent, flushed after each step so that nothing is held back.
pub(crate) fn gzip(steps: Vec<Step>) -> Result<Vec<Step>, PrepareError> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    let mut out = Vec::with_capacity(steps.len() + 1);
    let mut broken = false;
    for step in steps {
        match step {
            Step::Send { bytes, usage } => {
                encoder.write_all(&bytes)?;
                encoder.flush()?;
                out.push(Step::Send {
                    bytes: std::mem::take(encoder.get_mut()).into(),
                    usage,
                });
            }
            other => {
                broken |= matches!(other, Step::Cut | Step::Reset);
                out.push(other);
            }
        }
    }
    if !broken {
        // The trailer goes before the step that ends a body with an error.
        let at = out
            .iter()
            .position(|step| matches!(step, Step::ErrorEnd(_)))
            .unwrap_or(out.len());
        out.insert(at, Step::send(encoder.finish()?.into()));
    }
    Ok(out)
}

struct Player {
    steps: std::vec::IntoIter<Step>,
    gates: Arc<Gates>,
    line: Arc<Line>,
    record: Record,
}

/// The body. What the connection takes is noted as sent.
pub(crate) fn play(
    steps: Vec<Step>,
    gates: Arc<Gates>,
    line: Arc<Line>,
    record: Record,
) -> impl Stream<Item = Result<Frame<Bytes>, BrokenOff>> + Send {
    let player = Player {
        steps: steps.into_iter(),
        gates,
        line,
        record,
    };
    stream::unfold(Some(player), |player| async move {
        let mut player = player?;
        loop {
            match player.steps.next() {
                Some(Step::Send { bytes, usage }) => {
                    player.record.sent(&bytes, usage);
                    return Some((Ok(Frame::data(bytes)), Some(player)));
                }
                Some(Step::Wait(time)) => tokio::time::sleep(time).await,
                Some(Step::Hold(gate)) => player.gates.pass(&gate).await,
                Some(Step::ErrorEnd(error)) => {
                    player.record.update(|answer| answer.error = Some(error));
                    player.record.end(Outcome::ErrorSent);
                    return None;
                }
                Some(Step::Cut) => {
                    // Gives the connection a turn to write out what it was given before.
                    tokio::task::yield_now().await;
                    player.record.end(Outcome::Cut);
                    return Some((Err(BrokenOff), None));
                }
                Some(Step::Reset) => {
                    tokio::task::yield_now().await;
                    player.record.end(Outcome::Disconnected);
                    player.line.reset();
                    std::future::pending::<()>().await;
                }
                None => {
                    player.record.end(Outcome::Complete);
                    return None;
                }
            }
        }
    })
}
