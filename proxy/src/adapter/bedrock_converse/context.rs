//! What an answer says that Converse does not: it comes from the request.

use super::citations::Titles;
use super::names::Changed;
use super::usage::Usage;
use crate::adapter::json;

/// What is needed of a request to give its answer the Messages API's form.
#[derive(Debug, Clone, Default)]
pub(super) struct Context {
    /// The message's id.
    pub(super) id: String,
    /// The model that the client named.
    pub(super) model: String,
    /// Names of tools that Converse knows by others.
    pub(super) tools: Changed,
    /// Titles of documents that Converse knows by other names.
    pub(super) titles: Titles,
    /// The one sequence that can have stopped the answer.
    pub(super) only_stop_sequence: Option<String>,
    /// Whether reasoning is Claude's, which comes with a signature. Without one it is not shown: a client would send it back,
    /// and Claude, on the Plan or here, refuses it.
    pub(super) is_claude: bool,
    /// About how many tokens the request is.
    pub(super) input_guess: u64,
}

impl Context {
    /// Appends the members of a message up to its content.
    pub(super) fn write_head(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"id\":");
        json::write_text(out, &self.id);
        out.extend_from_slice(b",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
        json::write_text(out, &self.model);
    }

    /// Usage for a message whose counts are not known.
    pub(super) fn guess(&self) -> Usage {
        Usage::guess(self.input_guess, 1)
    }
}
