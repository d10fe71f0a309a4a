//! The journal: what was received and what was answered, the numbers included.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderName};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::watch;

use super::{behaviour::Operation, received::Received, usage::Usage};

/// Which fake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The Anthropic Messages API.
    Plan,
    /// The Bedrock runtime.
    Bedrock,
}

/// How an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It has not ended yet.
    #[default]
    InProgress,
    /// Everything was handed to the connection.
    Complete,
    /// An error was sent inside the 200 stream, and nothing after it.
    ErrorSent,
    /// The body was broken off on command.
    Cut,
    /// The connection was reset or closed on command.
    Disconnected,
    /// The client left first.
    ClientLeft,
}

/// What was answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Answer {
    /// Status; none when no status line was sent.
    pub status: Option<u16>,
    /// `request-id` of the Plan, `x-amzn-requestid` of Bedrock.
    pub request_id: String,
    /// Whether the body was a stream of events.
    pub streamed: bool,
    /// The last numbers that left in an answer, as far as it got; none in an error, and none before they are sent.
    pub usage: Option<Usage>,
    /// Type of the error that was answered, in the status or inside the stream.
    pub error: Option<String>,
    /// Body bytes handed to the connection.
    pub body_bytes: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// One request and its answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Exchange {
    /// Counts up from 1 over both upstreams.
    pub id: u64,
    /// Who received it.
    pub upstream: Kind,
    /// What was asked.
    pub operation: Operation,
    /// When its body had been read.
    pub received_at: DateTime<Utc>,
    /// Method.
    pub method: String,
    /// Path as it was sent, percent-encoding included.
    pub path: String,
    /// Query without `?`.
    pub query: Option<String>,
    /// Names (lower case) and values in order; credentials are replaced by [`digest`] of their value.
    pub headers: Vec<(String, String)>,
    /// Names of the headers that an AWS signature covers; none where there is no such signature.
    pub signed_headers: Vec<String>,
    /// Model name or decoded Bedrock model id.
    pub model: Option<String>,
    /// The body as received; base64 where it is no UTF-8.
    pub body: String,
    /// Lower-case hex of SHA-256 over the body's bytes.
    pub body_sha256: String,
    /// What it got.
    pub answer: Answer,
}

impl Exchange {
    /// First value of a header, credentials as digests.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }
}

/// Stable short digest that stands for a credential in the journal: `sha256:` and 12 hex digits.
pub fn digest(value: &[u8]) -> String {
    let mut hex = sha256_hex(value);
    hex.truncate(12);
    format!("sha256:{hex}")
}

/// Lower-case hex of SHA-256.
pub fn sha256_hex(data: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Sha256::digest(data)
        .iter()
        .flat_map(|byte| {
            [
                DIGITS[usize::from(byte >> 4)],
                DIGITS[usize::from(byte & 15)],
            ]
        })
        .map(char::from)
        .collect()
}

fn is_credential(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "x-api-key"
            | "authorization"
            | "proxy-authorization"
            | "cookie"
            | "x-amz-security-token"
            | "x-origin-verify"
    )
}

fn shown_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|(name, value)| {
            let value = if is_credential(name) {
                digest(value.as_bytes())
            } else {
                String::from_utf8_lossy(value.as_bytes()).into_owned()
            };
            (name.as_str().to_owned(), value)
        })
        .collect()
}

fn signed_headers(authorization: &str) -> Vec<String> {
    let names = authorization
        .split_once("SignedHeaders=")
        .and_then(|(_, rest)| rest.split(',').next());
    names
        .map(|names| names.trim().split(';').map(str::to_owned).collect())
        .unwrap_or_default()
}

/// A request as the journal keeps it: digests are made when somebody reads it, not on the way of the request.
struct Entry {
    id: u64,
    kind: Kind,
    received_at: DateTime<Utc>,
    request: Arc<Received>,
    answer: Mutex<Answer>,
}

impl Entry {
    fn exchange(&self) -> Exchange {
        let request = &self.request;
        Exchange {
            id: self.id,
            upstream: self.kind,
            operation: request.operation,
            received_at: self.received_at,
            method: request.method.to_string(),
            path: request.path.clone(),
            query: request.query.clone(),
            headers: shown_headers(&request.headers),
            signed_headers: signed_headers(request.header("authorization").unwrap_or_default()),
            model: request.model.clone(),
            body: std::str::from_utf8(&request.body)
                .map_or_else(|_| BASE64_STANDARD.encode(&request.body), str::to_owned),
            body_sha256: sha256_hex(&request.body),
            answer: self.answer.lock().clone(),
        }
    }
}

#[derive(Default)]
struct Entries {
    last_id: u64,
    bytes: usize,
    dropped: u64,
    queue: VecDeque<Arc<Entry>>,
}

/// All exchanges of both upstreams, oldest first, bounded by the bytes of their bodies.
pub struct Journal {
    limit: usize,
    entries: Mutex<Entries>,
    changed: watch::Sender<()>,
}

/// What an entry is reckoned to take beside its body.
const ENTRY_BYTES: usize = 2048;

impl Journal {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            entries: Mutex::default(),
            changed: watch::Sender::new(()),
        }
    }

    /// Opens an entry; it ends when the returned record is closed or dropped.
    pub(crate) fn open(self: &Arc<Self>, kind: Kind, request: Arc<Received>) -> Record {
        let size = request.body.len() + ENTRY_BYTES;
        let mut entries = self.entries.lock();
        entries.last_id += 1;
        let entry = Arc::new(Entry {
            id: entries.last_id,
            kind,
            received_at: Utc::now(),
            request,
            answer: Mutex::default(),
        });
        entries.bytes += size;
        entries.queue.push_back(Arc::clone(&entry));
        while entries.bytes > self.limit
            && let Some(oldest) = entries.queue.pop_front()
        {
            entries.bytes -= oldest.request.body.len() + ENTRY_BYTES;
            entries.dropped += 1;
        }
        drop(entries);
        self.changed.send_replace(());
        Record {
            entry,
            journal: Arc::clone(self),
        }
    }

    /// Exchanges of one upstream, or of both.
    pub fn list(&self, kind: Option<Kind>) -> Vec<Exchange> {
        let entries: Vec<_> = self.entries.lock().queue.iter().cloned().collect();
        entries
            .iter()
            .filter(|entry| kind.is_none_or(|kind| kind == entry.kind))
            .map(|entry| entry.exchange())
            .collect()
    }

    /// Number of exchanges kept for one upstream, or for both.
    pub fn count(&self, kind: Option<Kind>) -> usize {
        self.entries
            .lock()
            .queue
            .iter()
            .filter(|entry| kind.is_none_or(|kind| kind == entry.kind))
            .count()
    }

    /// Exchanges that had to go because the journal was full.
    pub fn dropped(&self) -> u64 {
        self.entries.lock().dropped
    }

    /// Forgets everything; ids go on counting.
    pub fn clear(&self) {
        let mut entries = self.entries.lock();
        entries.queue.clear();
        entries.bytes = 0;
        entries.dropped = 0;
    }

    /// Waits until the exchanges satisfy the condition, and gives them; `Err` gives them as they are when `limit` is over.
    pub async fn wait(
        &self,
        kind: Option<Kind>,
        limit: Duration,
        mut condition: impl FnMut(&[Exchange]) -> bool,
    ) -> Result<Vec<Exchange>, Vec<Exchange>> {
        let mut changed = self.changed.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            let exchanges = self.list(kind);
            if condition(&exchanges) {
                return Ok(exchanges);
            }
            if !matches!(
                tokio::time::timeout_at(deadline, changed.changed()).await,
                Ok(Ok(()))
            ) {
                return Err(exchanges);
            }
        }
    }
}

/// The answer side of one entry, filled in while it is sent.
pub(crate) struct Record {
    entry: Arc<Entry>,
    journal: Arc<Journal>,
}

impl Record {
    /// Number of the entry: makes ids unique.
    pub(crate) fn id(&self) -> u64 {
        self.entry.id
    }

    /// Changes the answer.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Answer)) {
        change(&mut self.entry.answer.lock());
    }

    /// Bytes that leave, with the numbers they carry.
    pub(crate) fn sent(&self, bytes: &Bytes, usage: Option<Usage>) {
        self.update(|answer| {
            answer.body_bytes += bytes.len() as u64;
            answer.usage = usage.or(answer.usage);
        });
    }

    /// How it ended; only the first word counts.
    pub(crate) fn end(&self, outcome: Outcome) {
        self.update(|answer| {
            if answer.outcome == Outcome::InProgress {
                answer.outcome = outcome;
            }
        });
        self.journal.changed.send_replace(());
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.end(Outcome::ClientLeft);
    }
}
