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

/// A citation in the Messages API's form; `None` where that has none, as for a place on the web.
pub(super) fn translate(citation: &RawValue) -> Option<Vec<u8>> {
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
    let title = title.map_or("null", RawValue::get);
    let mut out = format!("{{\"type\":\"{kind}\",\"cited_text\":\"").into_bytes();
    write_texts(&mut out, content);
    let of = if *is_document {
        format!("\"document_index\":{index},\"document_title\":{title},\"file_id\":null")
    } else {
        let source = source.map_or("\"\"", RawValue::get);
        format!("\"search_result_index\":{index},\"source\":{source},\"title\":{title}")
    };
    out.extend_from_slice(format!("\",{of},\"{start}\":{from},\"{end}\":{to}}}").as_bytes());
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
        translate(&raw).map(|json| serde_json::from_slice(&json).unwrap())
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
