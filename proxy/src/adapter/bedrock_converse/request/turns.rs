//! `messages`: turns that alternate.

use serde_json::value::RawValue;

use super::Writer;
use super::blocks::Place;
use super::cache::{List, Section, Ttl};
use super::system::text_block;
use crate::adapter::bedrock::{TranslateError, refuse_tool_changes};
use crate::adapter::json::{self, Kind};

/// Whose turn it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    User,
    Assistant,
}

/// The turns that are being written: neighbours of one role are one turn, and one without content is none.
pub(super) struct Turns<'a> {
    open: Option<(Role, List)>,
    count: usize,
    /// System turns that are yet to be written.
    waiting: Vec<(&'a str, Option<Ttl>)>,
}

impl<'a> Writer<'a> {
    /// Appends the turns; `auto` is the marker that the body puts on its end.
    pub(super) fn messages(
        &mut self,
        messages: Option<&'a RawValue>,
        auto: Option<Ttl>,
    ) -> Result<(), TranslateError> {
        let messages =
            messages.ok_or_else(|| TranslateError::invalid("messages", "Field required"))?;
        if json::kind_of(messages) != Kind::List {
            return Err(TranslateError::invalid(
                "messages",
                "Input should be a valid list",
            ));
        }
        let mut turns = Turns {
            open: None,
            count: 0,
            waiting: Vec::new(),
        };
        json::each(messages.get(), |at, message| {
            self.message(&mut turns, at, message)
        })?;
        self.write_waiting(&mut turns);
        if let Some((_, list)) = &mut turns.open {
            list.mark(&mut self.points, &mut self.out, auto);
        }
        self.close(&mut turns);
        if turns.count == 0 {
            return Err(TranslateError::invalid(
                "messages",
                "at least one message is required",
            ));
        }
        Ok(())
    }

    fn message(
        &mut self,
        turns: &mut Turns<'a>,
        at: usize,
        message: &'a RawValue,
    ) -> Result<(), TranslateError> {
        let invalid = |field: &str, what: &str| {
            Err(TranslateError::invalid(
                format_args!("messages.{at}{field}"),
                what,
            ))
        };
        let Ok([role, content]) = json::pick(message.get(), ["role", "content"]) else {
            return invalid("", "Input should be a valid dictionary");
        };
        let Some(content) = content else {
            return invalid(".content", "Field required");
        };
        let role = match role.and_then(json::text).as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            Some("system") => return system_turn(turns, at, content),
            _ => return invalid(".role", "Input should be 'user' or 'assistant'"),
        };
        match json::kind_of(content) {
            Kind::Text if json::is_blank(content) => Ok(()),
            Kind::Text => {
                self.begin(turns, role, false);
                self.text_block(content.get());
                self.end(turns, None);
                Ok(())
            }
            Kind::List => json::each(content.get(), |block_at, block| {
                let place = Place {
                    message: at,
                    block: block_at,
                    inner: None,
                };
                self.block(turns, role, place, block)
            }),
            _ => invalid(".content", "Input should be a valid string or list"),
        }
    }

    /// Begins an item of this role's turn.
    pub(super) fn begin(&mut self, turns: &mut Turns<'a>, role: Role, is_tool_result: bool) {
        // Results come directly behind the calls they answer.
        if !(role == Role::User && is_tool_result) {
            self.write_waiting(turns);
        }
        self.turn(turns, role);
        if let Some((_, list)) = &mut turns.open {
            list.begin(&mut self.out);
        }
    }

    /// Ends the item, which may ask for a cache point.
    pub(super) fn end(&mut self, turns: &mut Turns<'a>, ttl: Option<Ttl>) {
        if let Some((_, list)) = &mut turns.open {
            list.end(&mut self.points, &mut self.out, ttl);
        }
    }

    /// Ends an item that no cache point may follow.
    pub(super) fn end_barrier(turns: &mut Turns<'a>, ttl: Option<Ttl>) {
        if let Some((_, list)) = &mut turns.open {
            list.end_barrier(ttl);
        }
    }

    /// Puts the cache point of a block that has no form behind what is before it.
    pub(super) fn mark(&mut self, turns: &mut Turns<'a>, ttl: Option<Ttl>) {
        if let Some((_, list)) = &mut turns.open {
            list.mark(&mut self.points, &mut self.out, ttl);
        }
    }

    /// Opens a turn of this role, unless one is open.
    fn turn(&mut self, turns: &mut Turns<'a>, role: Role) {
        if turns.open.as_ref().is_some_and(|(open, _)| *open == role) {
            return;
        }
        self.close(turns);
        if turns.count == 0 && role == Role::Assistant && !self.model.is_anthropic() {
            // Claude takes a conversation that begins with its own turn, others do not.
            self.put(r#"{"role":"user","content":[{"text":"Continue."}]},"#);
            turns.count += 1;
        } else if turns.count > 0 {
            self.out.push(b',');
        }
        self.put(match role {
            Role::User => "{\"role\":\"user\",\"content\":[",
            Role::Assistant => "{\"role\":\"assistant\",\"content\":[",
        });
        turns.count += 1;
        turns.open = Some((role, List::new(Section::Messages)));
    }

    fn close(&mut self, turns: &mut Turns<'a>) {
        if let Some((_, list)) = turns.open.take() {
            list.finish(&mut self.points, &mut self.out);
            self.put("]}");
        }
    }

    /// The service model has a role `system` by now, without saying which models take it and where: the words of system turns are
    /// the user's, marked as what they are, at the same place.
    fn write_waiting(&mut self, turns: &mut Turns<'a>) {
        for (text, ttl) in std::mem::take(&mut turns.waiting) {
            self.turn(turns, Role::User);
            if let Some((_, list)) = &mut turns.open {
                list.begin(&mut self.out);
            }
            self.put("{\"text\":\"<system>\\n");
            self.put(text);
            self.put("\\n</system>\"}");
            self.end(turns, ttl);
        }
    }
}

fn system_turn<'a>(
    turns: &mut Turns<'a>,
    at: usize,
    content: &'a RawValue,
) -> Result<(), TranslateError> {
    let mut wait = |text: &'a RawValue, ttl| {
        if !json::is_blank(text) {
            turns
                .waiting
                .extend(json::escaped(text).map(|text| (text, ttl)));
        }
    };
    refuse_tool_changes(content)?;
    match json::kind_of(content) {
        Kind::Text => {
            wait(content, None);
            Ok(())
        }
        Kind::List => json::each(content.get(), |block_at, block| {
            let place = format_args!("messages.{at}.content.{block_at}");
            let (text, ttl) = text_block(block, place)?;
            wait(text, ttl);
            Ok(())
        }),
        _ => Err(TranslateError::invalid(
            format_args!("messages.{at}.content"),
            "Input should be a valid string or list",
        )),
    }
}
