//! Values of a body copied as they stand, but for what Bedrock refuses in them.

use memchr::memmem;
use serde_json::value::RawValue;

use crate::adapter::bedrock::models::{Caching, ModelTraits};
use crate::adapter::bedrock::{TranslateError, may_change_tools, refuse_tool_changes};
use crate::adapter::json::{self, Kind};

/// Members of a tool that Bedrock refuses: one is its beta's there, the other is for tools that Bedrock does not have.
const TOOL_MEMBERS: &[&str] = &["allowed_callers", "eager_input_streaming"];

/// Members of a message that Bedrock takes. The others go with betas that it does not have, such as the `output_config` of
/// `per-turn-control-2026-07-01`.
const TURN_MEMBERS: &[&str] = &["role", "content"];

/// What is wrong with cache markers as the Plan takes them.
struct Markers {
    /// Members of a marker that go: `scope`, whose beta (`prompt-caching-scope-2026-01-05`) Bedrock does not take, and `ttl` where
    /// the model does not know it.
    members: &'static [&'static str],
    /// Whether the markers go altogether.
    all: bool,
}

impl Markers {
    fn of(model: ModelTraits) -> Self {
        Self {
            members: if model.caching < Caching::OneHour {
                &["scope", "ttl"]
            } else {
                &["scope"]
            },
            all: model.caching == Caching::No,
        }
    }

    /// Whether there may be anything to change in a text.
    fn are_in(&self, text: &str) -> bool {
        let has = |word: &str| memmem::find(text.as_bytes(), word.as_bytes()).is_some();
        has("\"scope\"")
            || self.members.contains(&"ttl") && has("\"ttl\"")
            || self.all && has(MARKER)
    }
}

const MARKER: &str = "\"cache_control\"";

/// Where in a body a value stands, as far as it is looked into. Nothing else is: what a client nests may be as deep as its body is
/// long.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// A cache marker.
    Marker,
    /// A message, or the list of them.
    Turn,
    /// What may carry a marker, or a list of it: a block. Below it are so many levels more of the like.
    Holder(u8),
    /// A tool, or the list of them.
    Tool,
    /// Nothing that anything could be in.
    Other,
}

/// From a message's blocks down: a tool result's blocks, the source of a document or search result in it, the blocks of that.
const LEVELS_OF_BLOCK: u8 = 3;

impl Place {
    /// The place of the top-level field `name`.
    pub(super) fn of_field(name: &str) -> Self {
        match name {
            "system" => Self::Holder(0),
            "tools" => Self::Tool,
            "messages" => Self::Turn,
            _ => Self::Other,
        }
    }

    /// The place of the member `name`.
    fn below(self, name: &str) -> Self {
        match (self, name) {
            (Self::Turn, "content") => Self::Holder(LEVELS_OF_BLOCK),
            (Self::Holder(_) | Self::Tool, "cache_control") => Self::Marker,
            (Self::Holder(levels), "content" | "source") => {
                levels.checked_sub(1).map_or(Self::Other, Self::Holder)
            }
            _ => Self::Other,
        }
    }
}

/// Writes a body for a model.
pub(super) struct Writer {
    pub(super) out: Vec<u8>,
    markers: Markers,
}

impl Writer {
    /// A writer with room for so many bytes.
    pub(super) fn new(room: usize, model: ModelTraits) -> Self {
        Self {
            out: Vec::with_capacity(room),
            markers: Markers::of(model),
        }
    }

    pub(super) fn put(&mut self, json: &str) {
        self.out.extend_from_slice(json.as_bytes());
    }

    /// Appends a value as it stands but for what Bedrock refuses. Only values that hold the words are looked into.
    pub(super) fn value(&mut self, place: Place, value: &RawValue) -> Result<(), TranslateError> {
        let text = value.get();
        let is_suspect = match place {
            Place::Other => false,
            Place::Tool => {
                self.markers.are_in(text)
                    || TOOL_MEMBERS
                        .iter()
                        .any(|name| memmem::find(text.as_bytes(), name.as_bytes()).is_some())
            }
            Place::Turn => {
                self.markers.are_in(text) || may_change_tools(text) || has_more_than_turns(value)
            }
            Place::Marker | Place::Holder(_) => self.markers.are_in(text),
        };
        match (text.as_bytes().first(), place) {
            (Some(b'{'), _) if is_suspect => self.object(place, text),
            (Some(b'['), Place::Turn | Place::Holder(_) | Place::Tool) if is_suspect => {
                self.put("[");
                json::each(text, |at, item| {
                    if at > 0 {
                        self.put(",");
                    }
                    // Lists do not hold lists.
                    if item.get().starts_with('{') {
                        self.value(place, item)
                    } else {
                        self.put(item.get());
                        Ok(())
                    }
                })?;
                self.put("]");
                Ok(())
            }
            _ => {
                self.put(text);
                Ok(())
            }
        }
    }

    fn object(&mut self, place: Place, text: &str) -> Result<(), TranslateError> {
        if matches!(place, Place::Turn) {
            let [role, content] = json::pick(text, ["role", "content"])?;
            let is_system = role.is_some_and(|role| role.get() == r#""system""#);
            content
                .filter(|_| is_system)
                .map_or(Ok(()), refuse_tool_changes)?;
        }
        self.put("{");
        let start = self.out.len();
        json::members(text, |name, value| {
            let is_dropped = match place {
                Place::Marker => self.markers.members.contains(&name),
                Place::Tool if TOOL_MEMBERS.contains(&name) => true,
                Place::Turn => !TURN_MEMBERS.contains(&name),
                Place::Tool | Place::Holder(_) => self.markers.all && name == "cache_control",
                Place::Other => false,
            };
            if is_dropped {
                return Ok(());
            }
            if self.out.len() > start {
                self.put(",");
            }
            json::write_text(&mut self.out, name);
            self.put(":");
            self.value(place.below(name), value)
        })?;
        self.put("}");
        Ok(())
    }
}

/// Whether a message, or one of a list of them, has members that Bedrock refuses.
fn has_more_than_turns(value: &RawValue) -> bool {
    let mut more = false;
    let mut look = |message: &RawValue| {
        json::members(message.get(), |name, _| {
            more |= !TURN_MEMBERS.contains(&name);
            Ok::<_, serde_json::Error>(())
        })
    };
    // What is malformed stays as it is: Bedrock says so.
    let _ = match json::kind_of(value) {
        Kind::List => json::each(value.get(), |_, message| match json::kind_of(message) {
            Kind::Object => look(message),
            _ => Ok(()),
        }),
        Kind::Object => look(value),
        _ => Ok(()),
    };
    more
}
