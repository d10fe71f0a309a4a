//! Names and ids that Converse does not take, made into such that it does, and back.

use std::borrow::Cow;
use std::collections::HashSet;

use indexmap::IndexMap;
use sha2::{Digest as _, Sha256};

/// What Converse takes as a name or id, in characters. The Messages API takes names of 128.
/// Source: `ToolName` and `ToolUseId` of the service model.
const MAX: usize = 64;
/// Hexadecimal digits that tell apart what was cut.
const DIGEST: usize = 16;

/// Which characters may stand in a name.
type Allowed = fn(u8) -> bool;

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-')
}

fn is_id(byte: u8) -> bool {
    is_name(byte) || matches!(byte, b'.' | b':')
}

/// The names of one request, each with what Converse gets to see. What fits stays as it is; anything else becomes its beginning
/// and a digest, which is the same in every turn, as prompt caching needs, and never another name of the request.
#[derive(Debug)]
pub(super) struct Names<'a> {
    allowed: Allowed,
    seen: IndexMap<Cow<'a, str>, Option<String>>,
    taken: HashSet<String>,
}

impl<'a> Names<'a> {
    /// Names of tools.
    pub(super) fn of_tools() -> Self {
        Self::new(is_name)
    }

    /// Ids of tool calls.
    pub(super) fn of_calls() -> Self {
        Self::new(is_id)
    }

    fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            seen: IndexMap::new(),
            taken: HashSet::new(),
        }
    }

    /// Whether a name can stay as it is, where no other took it.
    pub(super) fn fits(&self, name: &str) -> bool {
        (1..=MAX).contains(&name.len()) && name.bytes().all(self.allowed)
    }

    /// What Converse gets to see of a name.
    pub(super) fn wire(&mut self, name: Cow<'a, str>) -> &str {
        let at = if let Some(at) = self.seen.get_index_of(&name) {
            at
        } else {
            let wire = if self.fits(&name) && !self.taken.contains(name.as_ref()) {
                self.taken.insert(name.as_ref().to_owned());
                None
            } else {
                let wire = self.free(&name);
                self.taken.insert(wire.clone());
                Some(wire)
            };
            self.seen.insert_full(name, wire).0
        };
        self.seen
            .get_index(at)
            .map_or("", |(name, wire)| wire.as_deref().unwrap_or(name))
    }

    /// What Converse gets to see, in the order in which the names came up.
    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.seen
            .iter()
            .map(|(name, wire)| wire.as_deref().unwrap_or(name))
    }

    /// The names that were changed, by what they became.
    pub(super) fn into_changed(self) -> Changed {
        Changed(
            self.seen
                .into_iter()
                .filter_map(|(name, wire)| Some((wire?, name.into_owned())))
                .collect(),
        )
    }

    /// A stand-in for `name` that is not taken.
    fn free(&self, name: &str) -> String {
        let head: String = name
            .bytes()
            .take(MAX - DIGEST - 1)
            .map(|byte| {
                if (self.allowed)(byte) {
                    char::from(byte)
                } else {
                    '_'
                }
            })
            .collect();
        let mut attempt = 0_u64;
        loop {
            let digest = Sha256::new()
                .chain_update(attempt.to_be_bytes())
                .chain_update(name)
                .finalize();
            let candidate = digest
                .iter()
                .take(DIGEST / 2)
                .fold(format!("{head}_"), |text, byte| format!("{text}{byte:02x}"));
            if !self.taken.contains(&candidate) {
                return candidate;
            }
            attempt += 1;
        }
    }
}

/// The way back: names of a request that Converse knows by others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changed(Vec<(String, String)>);

impl Changed {
    /// The client's name for what Converse calls `wire`.
    pub(super) fn original<'a>(&'a self, wire: &'a str) -> &'a str {
        self.0
            .iter()
            .find(|(changed, _)| changed == wire)
            .map_or(wire, |(_, name)| name)
    }
}

/// An id of an answer as the Plan takes it in a replay (`^[a-zA-Z0-9_-]+$`): some models make ids with dots and colons.
pub(super) fn replayable_id(id: &str) -> Cow<'_, str> {
    if !id.is_empty() && id.bytes().all(is_name) {
        return Cow::Borrowed(id);
    }
    let mut ids = Names::new(is_name);
    Cow::Owned(ids.wire(Cow::Borrowed(id)).to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_comes_back() {
        let long = "mcp__server__".to_owned() + &"x".repeat(60);
        let mut names = Names::of_tools();
        let wires: Vec<String> = ["get_weather", long.as_str(), "dots.and spaces", "größe", ""]
            .map(|name| names.wire(Cow::Borrowed(name)).to_owned())
            .into();
        assert_eq!(wires[0], "get_weather");
        assert!(wires[1].starts_with("mcp__server__xxx"), "{}", wires[1]);
        assert!(wires[2].starts_with("dots_and_spaces_"), "{}", wires[2]);
        assert!(
            wires
                .iter()
                .all(|wire| wire.len() <= 64 && names.fits(wire))
        );
        let back = names.into_changed();
        assert_eq!(back.original(&wires[1]), long);
        assert_eq!(back.original(&wires[2]), "dots.and spaces");
        assert_eq!(back.original(&wires[4]), "");
        assert_eq!(back.original("get_weather"), "get_weather");
        assert_eq!(back.original("invented"), "invented");
    }

    #[test]
    fn a_name_becomes_the_same_in_every_request() {
        let long = "n".repeat(80);
        let mut first = Names::of_tools();
        let mut second = Names::of_tools();
        second.wire(Cow::Borrowed("another"));
        assert_eq!(
            first.wire(Cow::Borrowed(&long)).to_owned(),
            second.wire(Cow::Borrowed(&long))
        );
    }

    #[test]
    fn a_name_that_looks_like_a_stand_in_is_told_apart() {
        let long = "n".repeat(80);
        let stand_in = Names::of_tools().wire(Cow::Borrowed(&long)).to_owned();
        for order in [[&long, &stand_in], [&stand_in, &long]] {
            let mut names = Names::of_tools();
            let wires = order.map(|name| names.wire(Cow::Borrowed(name)).to_owned());
            assert_ne!(wires[0], wires[1]);
            let back = names.into_changed();
            assert_eq!([0, 1].map(|at| back.original(&wires[at])), order);
        }
    }

    #[test]
    fn ids_of_answers_are_made_such_as_the_plan_takes() {
        assert_eq!(replayable_id("tooluse_Ab-1"), "tooluse_Ab-1");
        let id = replayable_id("functions.look:0").into_owned();
        assert!(id.starts_with("functions_look_0_"), "{id}");
        assert_ne!(id, replayable_id("functions.look.0"));
        assert!(!replayable_id("").is_empty());
    }

    proptest! {
        #[test]
        fn the_way_back_is_exact(given in proptest::collection::vec("\\PC{0,90}|[a-b]{1,2}", 1..20)) {
            let mut names = Names::of_tools();
            let wires: Vec<String> = given.iter().map(|name| names.wire(Cow::Borrowed(name)).to_owned()).collect();
            for wire in &wires {
                prop_assert!(names.fits(wire));
            }
            let back = names.into_changed();
            for (name, wire) in given.iter().zip(&wires) {
                prop_assert_eq!(back.original(wire), name);
            }
        }
    }
}
