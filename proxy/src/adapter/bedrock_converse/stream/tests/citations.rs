//! Citations.

use super::*;

fn cited_titles(block: &Value) -> Vec<&str> {
    let citations = block["citations"].as_array();
    citations
        .into_iter()
        .flatten()
        .map(|citation| citation["document_title"].as_str().unwrap())
        .collect()
}

#[test]
fn citations_come_with_the_text_they_are_for_which_mostly_follows_them() {
    let frames = [
        start(),
        text(0, "Employees get "),
        stop(0),
        citation(1, "first"),
        citation(1, "second"),
        text(1, " "),
        text(1, "20 days"),
        text(1, "."),
        stop(1),
        text(2, "Also"),
        citation(2, "behind"),
        stop(2),
        citation(3, "of nothing"),
        stop(3),
        message_stop("end_turn"),
        metadata(),
    ];
    let (events, _) = read(context(), &frames);
    let blocks = content(&events);
    let seen: Vec<_> = blocks
        .iter()
        .map(|block| (block["text"].as_str().unwrap(), cited_titles(block)))
        .collect();
    assert_eq!(
        seen,
        [
            ("Employees get ", vec![]),
            (" 20 days.", vec!["first", "second"]),
            ("Also", vec!["behind"]),
        ]
    );
}
