//! Reads usage beside the bytes of an answer.

use serde::Deserialize;
use spillway_core::domain::tokens::TokenUsage;

use super::event::{RawEvent, StreamEvent};
use super::usage::UsageFold;

/// Bytes of text per token where a count must be guessed.
const BYTES_PER_TOKEN: u64 = 4;
/// What a `content_block_delta` spends on anything but its text.
const DELTA_FRAME: usize =
    r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""#.len();
/// The most input tokens that are guessed: a body's images and documents are fewer tokens than bytes.
const MAX_GUESSED_INPUT: u64 = 200_000;

/// The input tokens that a request body of so many bytes is taken for where nobody counted them. Claude Code's requests of 76 KB
/// are about 19,000 tokens.
pub fn guessed_input(request_bytes: usize) -> u64 {
    as_u64(request_bytes)
        .div_ceil(BYTES_PER_TOKEN)
        .min(MAX_GUESSED_INPUT)
}

/// An `error` event of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFailure {
    /// `error.type`.
    pub kind: String,
    /// `error.message`.
    pub message: String,
    /// The event's data.
    pub data: Vec<u8>,
}

/// What an answer has said so far about usage and about itself. Of a stream's events only the few that carry usage are
/// parsed; for the many others it counts bytes.
#[derive(Debug, Default)]
pub struct UsageTap {
    usage: UsageFold,
    delta_bytes: u64,
    stage: Stage,
    content: bool,
    progress: bool,
    /// Whether what events say of usage is a guess for the client's sake.
    is_guess: bool,
    failure: Option<StreamFailure>,
}

/// How far an answer has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Before,
    /// After `message_start`.
    Begun,
    /// After its end.
    Complete,
}

#[derive(Deserialize)]
struct WithUsage {
    usage: Option<UsageFold>,
}

#[derive(Deserialize)]
struct MessageStart {
    message: WithUsage,
}

#[derive(Deserialize)]
struct BlockStart<'a> {
    #[serde(borrow)]
    content_block: Block<'a>,
}

#[derive(Deserialize)]
struct Block<'a> {
    #[serde(borrow, rename = "type")]
    kind: std::borrow::Cow<'a, str>,
}

#[derive(Deserialize)]
struct WithError {
    error: ErrorFields,
}

#[derive(Deserialize)]
struct ErrorFields {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    message: String,
}

impl UsageTap {
    /// Reads one event of a stream.
    pub fn on_event(&mut self, event: RawEvent<'_>) {
        let kind = StreamEvent::of(event.name());
        if kind == StreamEvent::Ping {
            return;
        }
        if let Some(data) = event.data() {
            self.on_data(kind, &data);
        }
    }

    /// Reads the data of one event of a stream.
    pub fn on_data(&mut self, kind: StreamEvent, data: &[u8]) {
        self.progress |= kind != StreamEvent::Ping;
        match kind {
            StreamEvent::ContentBlockDelta => self.on_text(text_length(data)),
            StreamEvent::ContentBlockStart => {
                self.content |= self.failure.is_none() && shows_content(data);
            }
            StreamEvent::MessageStart if self.is_guess => self.stage = Stage::Begun,
            StreamEvent::MessageStart => {
                self.stage = Stage::Begun;
                if let Ok(MessageStart {
                    message: WithUsage { usage: Some(usage) },
                }) = serde_json::from_slice(data)
                {
                    self.usage.merge(&usage);
                }
            }
            StreamEvent::MessageDelta if self.is_guess => {}
            StreamEvent::MessageDelta => self.on_usage_of(data),
            StreamEvent::MessageStop => self.on_end(),
            StreamEvent::Error => self.on_failure(failure(data)),
            StreamEvent::Ping | StreamEvent::Other => {}
        }
    }

    /// Notes so many bytes of content.
    pub fn on_text(&mut self, bytes: u64) {
        self.progress = true;
        self.content |= self.failure.is_none();
        self.delta_bytes += bytes;
    }

    /// Notes that the answer has come to its end.
    pub fn on_end(&mut self) {
        self.content |= self.failure.is_none();
        self.stage = Stage::Complete;
    }

    /// Notes that the upstream ended the stream with an error.
    pub fn on_failure(&mut self, failure: StreamFailure) {
        self.failure.get_or_insert(failure);
    }

    /// Reads a whole answer that was not streamed.
    pub fn on_message(&mut self, body: &[u8]) {
        self.on_usage_of(body);
        self.stage = Stage::Complete;
    }

    /// Takes usage that was reported beside the answer's own, for the counts that the answer leaves out.
    pub fn report(&mut self, usage: &UsageFold) {
        self.usage.fill_from(usage);
    }

    /// Says whether the usage in the events that follow is a guess, which is not counted.
    pub fn pass_over_usage(&mut self, is_guess: bool) {
        self.is_guess = is_guess;
    }

    /// Counts text that was received and is not in any event.
    pub fn hidden(&mut self, bytes: usize) {
        self.delta_bytes += as_u64(bytes);
        self.progress |= bytes > 0;
    }

    /// Whether content has been seen, and before any error: from here on a client may have shown something.
    pub fn has_content(&self) -> bool {
        self.content
    }

    /// Whether a stream of the Messages API has begun, which ends in `message_stop`.
    pub fn has_started(&self) -> bool {
        self.stage != Stage::Before
    }

    /// Whether the answer has come to its end.
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Complete
    }

    /// The first `error` event.
    pub fn failure(&self) -> Option<&StreamFailure> {
        self.failure.as_ref()
    }

    /// Whether anything but pings and comments has been seen since the last time this was asked.
    pub fn take_progress(&mut self) -> bool {
        std::mem::take(&mut self.progress)
    }

    /// What the upstream reported, guessing nothing.
    pub fn reported(&self) -> TokenUsage {
        self.usage.tokens()
    }

    /// What was used, and whether a part is a guess: of an answer that was cut off, or never said, the output is counted by
    /// the text received, and the input by the size of the request body.
    pub fn tokens(&self, request_bytes: usize) -> (TokenUsage, bool) {
        let mut tokens = self.reported();
        let mut estimated = false;
        if self.usage.input.is_none() {
            tokens.input = guessed_input(request_bytes);
            estimated = true;
        }
        if !self.is_complete() || self.usage.output.is_none() {
            tokens.output = tokens
                .output
                .max(self.delta_bytes.div_ceil(BYTES_PER_TOKEN));
            estimated = true;
        }
        (tokens, estimated)
    }

    fn on_usage_of(&mut self, json: &[u8]) {
        if let Ok(WithUsage { usage: Some(usage) }) = serde_json::from_slice(json) {
            self.usage.merge(&usage);
        }
    }
}

/// Whether a `content_block_start` already is content: any but a text or thinking block, which begin empty.
fn shows_content(data: &[u8]) -> bool {
    serde_json::from_slice::<BlockStart<'_>>(data).map_or(true, |start| {
        !matches!(start.content_block.kind.as_ref(), "text" | "thinking")
    })
}

/// About how much text a delta carries: its length without frame and padding.
fn text_length(data: &[u8]) -> u64 {
    let end = data
        .iter()
        .rposition(|byte| !matches!(byte, b' ' | b'}' | b'"'))
        .map_or(0, |last| last + 1);
    as_u64(end.saturating_sub(DELTA_FRAME))
}

fn failure(data: &[u8]) -> StreamFailure {
    let (kind, message) = serde_json::from_slice::<WithError>(data).map_or_else(
        |_| (String::new(), String::new()),
        |WithError { error }| (error.kind, error.message),
    );
    StreamFailure {
        kind,
        message,
        data: data.to_vec(),
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(events: &[(&str, &str)]) -> UsageTap {
        let mut tap = UsageTap::default();
        for (name, data) in events {
            tap.on_event(RawEvent::new(
                format!("event: {name}\ndata: {data}\n\n").as_bytes(),
            ));
        }
        tap
    }

    const START: (&str, &str) = (
        "message_start",
        r#"{"type":"message_start","message":{"usage":{"input_tokens":12,"output_tokens":1}}}"#,
    );
    const TEXT: (&str, &str) = (
        "content_block_start",
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    );
    const DELTA: (&str, &str) = (
        "content_block_delta",
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"abcdefgh"}      }"#,
    );
    const END: (&str, &str) = (
        "message_delta",
        r#"{"type":"message_delta","delta":{},"usage":{"output_tokens":40}}"#,
    );
    const STOP: (&str, &str) = ("message_stop", r#"{"type":"message_stop"}"#);
    const ERROR: (&str, &str) = (
        "error",
        r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
    );

    #[test]
    fn what_is_reported_beside_the_answer_only_fills_gaps() {
        let fold = |json: &str| serde_json::from_str::<UsageFold>(json).unwrap();
        let mut tap = UsageTap::default();
        tap.on_message(br#"{"usage":{"input_tokens":13,"output_tokens":8}}"#);
        tap.report(&fold(
            r#"{"input_tokens":5,"output_tokens":4,"cache_read_input_tokens":2}"#,
        ));
        let tokens = tap.reported();
        assert_eq!((tokens.input, tokens.output, tokens.cache_read), (13, 8, 2));
    }

    #[test]
    fn a_whole_stream_is_counted_exactly() {
        let tap = tap(&[START, TEXT, DELTA, END, STOP]);
        assert!(tap.is_complete());
        assert_eq!(
            tap.tokens(4000),
            (
                TokenUsage {
                    input: 12,
                    output: 40,
                    ..TokenUsage::default()
                },
                false
            )
        );
    }

    #[test]
    fn a_cut_stream_is_counted_by_what_was_received() {
        assert_eq!(
            tap(&[START, TEXT, DELTA, DELTA]).tokens(4000),
            (
                TokenUsage {
                    input: 12,
                    output: 4,
                    ..TokenUsage::default()
                },
                true
            )
        );
        assert_eq!(
            tap(&[]).tokens(4000),
            (
                TokenUsage {
                    input: 1000,
                    ..TokenUsage::default()
                },
                true
            )
        );
    }

    #[test]
    fn a_guess_in_an_event_is_not_counted_and_what_it_leaves_open_is_estimated() {
        let mut tap = UsageTap::default();
        let event = |(name, data): (&str, &str)| format!("event: {name}\ndata: {data}\n\n");
        tap.pass_over_usage(true);
        for guessed in [START, END] {
            tap.on_event(RawEvent::new(event(guessed).as_bytes()));
        }
        assert!(tap.reported().is_zero());
        tap.pass_over_usage(false);
        tap.on_event(RawEvent::new(event(STOP).as_bytes()));
        let (tokens, estimated) = tap.tokens(4000);
        assert_eq!((tokens.input, estimated), (1000, true));
        tap.on_event(RawEvent::new(event(START).as_bytes()));
        assert_eq!(tap.reported().input, 12);
    }

    #[test]
    fn text_that_no_event_shows_is_output_and_progress() {
        let mut tap = UsageTap::default();
        tap.hidden(0);
        assert!(!tap.take_progress());
        tap.hidden(41);
        assert!(tap.take_progress());
        assert!(!tap.has_content());
        assert_eq!(tap.tokens(0).0.output, 11);
    }

    #[test]
    fn content_begins_where_a_client_shows_something() {
        for (events, content) in [
            (&[START][..], false),
            (&[START, TEXT, ("ping", "{}")], false),
            (
                &[
                    START,
                    (
                        "content_block_start",
                        r#"{"content_block":{"type":"thinking","thinking":""}}"#,
                    ),
                ],
                false,
            ),
            (
                &[
                    START,
                    (
                        "content_block_start",
                        r#"{"content_block":{"type":"tool_use","id":"a"}}"#,
                    ),
                ],
                true,
            ),
            (
                &[
                    START,
                    (
                        "content_block_start",
                        r#"{"content_block":{"type":"redacted_thinking","data":"a"}}"#,
                    ),
                ],
                true,
            ),
            (&[START, ("content_block_start", "not json")], true),
            (&[START, TEXT, DELTA], true),
            (&[START, END], false),
            (&[START, END, STOP], true),
            (&[START, ERROR], false),
            (&[START, ERROR, DELTA, STOP], false),
            (&[START, TEXT, DELTA, ERROR], true),
        ] {
            assert_eq!(tap(events).has_content(), content, "{events:?}");
        }
    }

    #[test]
    fn the_first_error_is_kept_with_its_words() {
        let tap = tap(&[START, ERROR, ("error", "nonsense")]);
        let failure = tap.failure().unwrap();
        assert_eq!(
            (failure.kind.as_str(), failure.message.as_str()),
            ("overloaded_error", "Overloaded")
        );
        assert_eq!(failure.data, ERROR.1.as_bytes());
    }

    #[test]
    fn pings_and_comments_are_no_progress() {
        let mut tap = UsageTap::default();
        tap.on_event(RawEvent::new(b": hello\n\n"));
        tap.on_event(RawEvent::new(b"event: ping\ndata: {}\n\n"));
        assert!(!tap.take_progress());
        tap.on_event(RawEvent::new(b"event: new_thing\ndata: {}\n\n"));
        assert!(tap.take_progress());
        assert!(!tap.take_progress());
    }

    #[test]
    fn a_whole_message_is_counted() {
        let mut tap = UsageTap::default();
        tap.on_message(
            br#"{"id":"msg","content":[{"usage":1}],"usage":{"input_tokens":3,"output_tokens":5}}"#,
        );
        assert_eq!(
            tap.tokens(99),
            (
                TokenUsage {
                    input: 3,
                    output: 5,
                    ..TokenUsage::default()
                },
                false
            )
        );
    }
}
