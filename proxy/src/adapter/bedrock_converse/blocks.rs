//! The block of a stream that is open.

/// The most text that is kept back, and the longest signature.
pub(super) const MAX_KEPT: usize = 4 * 1024 * 1024;

/// What a block is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text.
    Text,
    /// Reasoning.
    Thinking,
    /// Reasoning that only the model can read.
    Redacted,
    /// A tool call.
    ToolUse,
    /// Nothing that has a form.
    Hidden,
}

/// A block of the stream.
#[derive(Debug)]
pub(super) struct Block {
    /// Its number in Converse's stream.
    pub(super) wire: Option<u64>,
    /// What it is.
    pub(super) kind: Kind,
    /// Its number for the client, once that has seen it.
    pub(super) shown_as: Option<u64>,
    /// The signature so far.
    pub(super) signature: String,
    kept: String,
    /// Citations, as JSON, that came before the text that they are for, and their length.
    citations: Vec<String>,
    cited: usize,
}

impl Block {
    pub(super) fn new(wire: Option<u64>, kind: Kind) -> Self {
        Self {
            wire,
            kind,
            shown_as: None,
            signature: String::new(),
            kept: String::new(),
            citations: Vec::new(),
            cited: 0,
        }
    }

    pub(super) fn is_shown(&self) -> bool {
        self.shown_as.is_some()
    }

    /// Keeps text back; `false` when it is too much.
    pub(super) fn keep(&mut self, text: &str) -> bool {
        if self.kept.len() + text.len() > MAX_KEPT {
            self.kept = String::new();
            return false;
        }
        self.kept.push_str(text);
        true
    }

    pub(super) fn take_kept(&mut self) -> String {
        std::mem::take(&mut self.kept)
    }

    /// Keeps a citation back, unless they are too many.
    pub(super) fn keep_citation(&mut self, citation: String) {
        self.cited = self.cited.saturating_add(citation.len());
        if self.cited <= MAX_KEPT {
            self.citations.push(citation);
        }
    }

    pub(super) fn take_citations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.citations)
    }
}
