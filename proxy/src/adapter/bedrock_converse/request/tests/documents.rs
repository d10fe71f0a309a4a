//! Documents, images and search results.

use super::*;

#[test]
fn documents_have_names_that_converse_takes_each_once() {
    let turns = turns(&json!([user(
        &json!([pdf("a/b.pdf"), pdf("a b pdf"), pdf(""), {"type": "document", "context": "c", "citations": {"enabled": true}, "source": {"type": "text", "media_type": "text/plain", "data": "naïve"}}])
    )]));
    let names: Vec<&str> = turns[0]["content"]
        .as_array()
        .unwrap()
        .iter()
        .map(|block| block["document"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["a b pdf", "a b pdf (2)", "Document", "Document (2)"]
    );
    let last = &turns[0]["content"][3]["document"];
    assert_eq!(
        (&last["format"], &last["context"]),
        (&json!("txt"), &json!("c"))
    );
    assert_eq!(
        (&last["source"], &last["citations"]),
        (&json!({"text": "naïve"}), &json!({"enabled": true}))
    );
}

#[test]
fn documents_of_pieces_and_search_results_have_their_forms() {
    let content = json!([
        {"type": "document", "source": {"type": "content", "content": [text("a"), text("b")]}},
        {"type": "search_result", "source": "s", "title": "t", "content": [text("c")], "citations": {"enabled": true}},
    ]);
    let turns = turns(&json!([user(&content)]));
    let document = &turns[0]["content"][0]["document"];
    assert_eq!(
        (&document["format"], &document["source"]),
        (
            &json!("txt"),
            &json!({"content": [{"text": "a"}, {"text": "b"}]})
        )
    );
    assert_eq!(
        turns[0]["content"][1],
        json!({"searchResult": {"source": "s", "title": "t", "content": [{"text": "c"}], "citations": {"enabled": true}}})
    );
}

#[test]
fn sources_by_url_or_file_are_unsupported() {
    for (kind, source, token) in [
        ("image", "url", "image_source_url"),
        ("image", "file", "image_source_file"),
        ("document", "url", "document_source_url"),
        ("document", "file", "document_source_file"),
    ] {
        let block = json!({"type": kind, "source": {"type": source, "url": "https://example.com/secret", "file_id": "f"}});
        for content in [
            json!([block]),
            json!([{"type": "tool_result", "tool_use_id": "t", "content": [block]}]),
        ] {
            let body = json!({"max_tokens": 9, "messages": [user(&content)]});
            assert!(
                matches!(translated(&body, CLAUDE), Err(TranslateError::Unsupported(field)) if field == token)
            );
        }
    }
    for field in ["container", "mcp_servers", "safeguards"] {
        let mut body = json!({"max_tokens": 9, "messages": [user(&json!("go"))]});
        body[field] = json!({"a": 1});
        assert!(
            matches!(translated(&body, CLAUDE), Err(TranslateError::Unsupported(name)) if name == field)
        );
        for nothing in [Value::Null, json!([]), json!({})] {
            body[field] = nothing;
            assert!(translated(&body, CLAUDE).is_ok());
        }
    }
}

#[test]
fn images_have_the_formats_of_the_messages_api() {
    let image = |media: &str| json!({"type": "image", "source": {"type": "base64", "media_type": media, "data": "aW1n"}});
    let turns = turns(&json!([user(&json!([image("image/jpeg")]))]));
    assert_eq!(
        turns[0]["content"][0],
        json!({"image": {"format": "jpeg", "source": {"bytes": "aW1n"}}})
    );
    let body = json!({"max_tokens": 9, "messages": [user(&json!([image("image/tiff")]))]});
    assert!(refused(&body).starts_with("messages.0.content.0.source.media_type: "));
}

#[test]
fn plain_text_is_a_file_to_models_that_are_not_claude() {
    let block = json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "naïve"}});
    let turns = turns_of(&json!([user(&json!([block]))]), NOVA);
    let document = &turns[0]["content"][0]["document"];
    assert_eq!(
        (&document["format"], &document["source"]),
        (&json!("txt"), &json!({"bytes": "bmHDr3Zl"}))
    );
}

#[test]
fn titles_that_converse_does_not_take_are_kept_for_the_answer() {
    let mut untitled = pdf("");
    untitled.as_object_mut().unwrap().remove("title");
    let content = json!([pdf("Report: Q3/2025.pdf"), untitled, pdf("plain")]);
    let body = json!({"max_tokens": 9, "messages": [user(&content)]});
    let mut titles = Titles::default();
    titles.note("Report Q3 2025 pdf", Some("Report: Q3/2025.pdf"));
    titles.note("Document", None);
    assert_eq!(translated(&body, CLAUDE).unwrap().titles, titles);
}
