//! Citations.

use serde_json::value::RawValue;

use crate::adapter::json;

/// A place in a source: Converse's name, the Messages API's type, whether it is in a document (else in a search result), and what
/// its bounds are called.
/// Sources: `CitationLocation` of the service model; <https://docs.anthropic.com/en/docs/build-with-claude/citations>.
const LOCATIONS: [(&str, &str, bool, &str, &str); 4] = [
    (
        "documentChar",
        "char_location",
        true,
        "start_char_index",
        "end_char_index",
    ),
    (
        "documentPage",
        "page_location",
        true,
        "start_page_number",
        "end_page_number",
    ),
    (
        "documentChunk",
        "content_block_location",
        true,
        "start_block_index",
        "end_block_index",
    ),
    (
        "searchResultLocation",
        "search_result_location",
        false,
        "start_block_index",
        "end_block_index",
    ),
];

/// The titles of a request's documents that Converse knows by other names, by these names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Titles(Vec<(String, Option<String>)>);

impl Titles {
    /// Notes that a document of this title, or of none, goes by `name`.
    pub(super) fn note(&mut self, name: &str, title: Option<&str>) {
        if title != Some(name) {
            self.0.push((name.to_owned(), title.map(str::to_owned)));
        }
    }

    /// Appends the title of the document that Converse calls so.
    fn write(&self, name: &RawValue, out: &mut Vec<u8>) {
        let known =
            json::text(name).and_then(|name| self.0.iter().find(|(known, _)| *known == name));
        match known {
            Some((_, Some(title))) => json::write_text(out, title),
            Some((_, None)) => out.extend_from_slice(b"null"),
            None => out.extend_from_slice(name.get().as_bytes()),
        }
    }
}

/// A citation in the Messages API's form; `None` where that has none, as for a place on the web.
pub(super) fn translate(citation: &RawValue, titles: &Titles) -> Option<Vec<u8>> {
    let [title, source, content, location] = json::pick(
        citation.get(),
        ["title", "source", "sourceContent", "location"],
    )
    .ok()?;
    let places = json::pick(location?.get(), LOCATIONS.map(|(name, ..)| name)).ok()?;
    let ((_, kind, is_document, start, end), place) = LOCATIONS
        .iter()
        .zip(places)
        .find_map(|(known, place)| Some((known, place?)))?;
    let [document, result, from, to] = json::pick(
        place.get(),
        ["documentIndex", "searchResultIndex", "start", "end"],
    )
    .ok()?;
    let index = json::count(if *is_document { document } else { result })?;
    let (from, to) = (json::count(from)?, json::count(to)?);
    let mut out = format!("{{\"type\":\"{kind}\",\"cited_text\":\"").into_bytes();
    write_texts(&mut out, content);
    if *is_document {
        out.extend_from_slice(
            format!("\",\"document_index\":{index},\"document_title\":").as_bytes(),
        );
        match title {
            Some(name) => titles.write(name, &mut out),
            None => out.extend_from_slice(b"null"),
        }
        out.extend_from_slice(b",\"file_id\":null");
    } else {
        let source = source.map_or("\"\"", RawValue::get);
        let title = title.map_or("null", RawValue::get);
        let of =
            format!("\",\"search_result_index\":{index},\"source\":{source},\"title\":{title}");
        out.extend_from_slice(of.as_bytes());
    }
    out.extend_from_slice(format!(",\"{start}\":{from},\"{end}\":{to}}}").as_bytes());
    Some(out)
}

/// Appends the texts of a list of `{"text": …}`, escaped as they are.
pub(super) fn write_texts(out: &mut Vec<u8>, list: Option<&RawValue>) {
    let Some(list) = list else { return };
    let read = json::each::<serde_json::Error>(list.get(), |_, item| {
        let [text] = json::pick(item.get(), ["text"])?;
        out.extend_from_slice(text.and_then(json::escaped).unwrap_or_default().as_bytes());
        Ok(())
    });
    // What is no list has no text.
    read.ok();
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn citation(json: &Value) -> Option<Value> {
        let raw = serde_json::value::to_raw_value(json).unwrap();
        let mut titles = Titles::default();
        titles.note("Report Q3 2025 pdf", Some("Report: Q3/2025.pdf"));
        titles.note("Document", None);
        titles.note("T", Some("T"));
        translate(&raw, &titles).map(|json| serde_json::from_slice(&json).unwrap())
    }

    #[test]
    fn a_cited_document_has_the_title_that_the_client_gave_it() {
        for (name, title) in [
            ("Report Q3 2025 pdf", json!("Report: Q3/2025.pdf")),
            ("Document", json!(null)),
            ("T", json!("T")),
        ] {
            let place = json!({"documentPage": {"documentIndex": 0, "start": 1, "end": 2}});
            let citation = citation(&json!({"title": name, "location": place})).unwrap();
            assert_eq!(citation["document_title"], title);
        }
    }

    #[test]
    fn places_in_documents_and_search_results_are_translated() {
        assert_eq!(
            citation(
                &json!({"title": "T \"1\"", "sourceContent": [{"text": "a\n"}, {"text": "b"}], "location": {"documentPage": {"documentIndex": 1, "start": 2, "end": 3}}})
            ),
            Some(
                json!({"type": "page_location", "cited_text": "a\nb", "document_index": 1, "document_title": "T \"1\"", "file_id": null, "start_page_number": 2, "end_page_number": 3})
            )
        );
        assert_eq!(
            citation(
                &json!({"source": "s", "title": "t", "location": {"searchResultLocation": {"searchResultIndex": 0, "start": 0, "end": 1}}})
            ),
            Some(
                json!({"type": "search_result_location", "cited_text": "", "search_result_index": 0, "source": "s", "title": "t", "start_block_index": 0, "end_block_index": 1})
            )
        );
    }

    #[test]
    fn what_has_no_form_is_left_out() {
        for other in [
            json!({}),
            json!([]),
            json!({"location": {"web": {"url": "https://example.com"}}}),
            json!({"location": {"documentChar": {"start": 0, "end": 1}}}),
        ] {
            assert_eq!(citation(&other), None, "{other}");
        }
    }
}
