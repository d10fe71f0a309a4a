//! `system`: a text, or a list of them.

use serde_json::value::RawValue;

use super::Writer;
use super::cache::{List, Section, Ttl};
use crate::adapter::bedrock::TranslateError;
use crate::adapter::json::{self, Kind};

impl<'a> Writer<'a> {
    /// Appends the field, if anything is in it. Blocks stay apart and in order; blank ones, which Converse refuses, go.
    pub(super) fn system(&mut self, system: Option<&'a RawValue>) -> Result<(), TranslateError> {
        let Some(system) = system else { return Ok(()) };
        let start = self.out.len();
        self.put(",\"system\":[");
        let mut list = List::new(Section::System);
        match json::kind_of(system) {
            Kind::Text => self.system_text(&mut list, system, None),
            Kind::List => json::each::<TranslateError>(system.get(), |at, block| {
                let (text, ttl) = text_block(block, format_args!("system.{at}"))?;
                self.system_text(&mut list, text, ttl);
                Ok(())
            })?,
            _ => {
                return Err(TranslateError::invalid(
                    "system",
                    "Input should be a valid string or list",
                ));
            }
        }
        if list.is_empty() {
            self.out.truncate(start);
        } else {
            list.finish(&mut self.points, &mut self.out);
            self.out.push(b']');
        }
        Ok(())
    }

    fn system_text(&mut self, list: &mut List, text: &RawValue, ttl: Option<Ttl>) {
        if json::is_blank(text) {
            // What was before it ends where the cache would have.
            list.mark(&mut self.points, &mut self.out, ttl);
            return;
        }
        list.begin(&mut self.out);
        self.text_block(text.get());
        list.end(&mut self.points, &mut self.out, ttl);
    }
}

/// The text of a block that can be nothing else, and the lifetime of its marker.
pub(super) fn text_block<'a>(
    block: &'a RawValue,
    place: std::fmt::Arguments<'_>,
) -> Result<(&'a RawValue, Option<Ttl>), TranslateError> {
    let [kind, text, cache_control] = json::pick(block.get(), ["type", "text", "cache_control"])
        .map_err(|_| TranslateError::invalid(place, "Input should be a valid dictionary"))?;
    if kind.is_none_or(|kind| kind.get() != r#""text""#) {
        return Err(TranslateError::invalid(
            format_args!("{place}.type"),
            "Input should be 'text'",
        ));
    }
    match text.filter(|text| json::kind_of(text) == Kind::Text) {
        Some(text) => Ok((text, Ttl::of(cache_control))),
        None => Err(TranslateError::invalid(
            format_args!("{place}.text"),
            "Input should be a valid string",
        )),
    }
}
