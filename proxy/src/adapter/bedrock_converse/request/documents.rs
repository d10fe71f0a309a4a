//! Documents: their formats and names.

use std::collections::HashSet;

use crate::adapter::bedrock_converse::citations::Titles;

/// Converse's format for a media type.
/// Source: `DocumentFormat` of the service model.
const FORMATS: &[(&str, &str)] = &[
    ("application/pdf", "pdf"),
    ("text/plain", "txt"),
    ("text/csv", "csv"),
    ("text/html", "html"),
    ("text/markdown", "md"),
    ("application/msword", "doc"),
    (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        "docx",
    ),
    ("application/vnd.ms-excel", "xls"),
    (
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
        "xlsx",
    ),
];

/// The format of a document of this media type.
pub(super) fn format(media_type: &str) -> Option<&'static str> {
    FORMATS
        .iter()
        .find(|(known, _)| *known == media_type)
        .map(|(_, format)| *format)
}

/// The longest name, in characters.
const MAX: usize = 200;
/// Room for the number of a name that comes again.
const NUMBER: usize = 10;

/// Names of a request's documents. Converse takes letters, digits, single white space, hyphens, round and square brackets, each
/// name once; underscores are accepted though the documentation does not name them.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_DocumentBlock.html>.
#[derive(Debug, Default)]
pub(super) struct DocumentNames {
    /// In lower case.
    taken: HashSet<String>,
    titles: Titles,
}

impl DocumentNames {
    /// The name for a document of this title. Earlier documents keep theirs when more follow, as prompt caching needs.
    pub(super) fn name(&mut self, title: Option<&str>) -> String {
        let base = match tidy(title.unwrap_or_default()) {
            name if name.is_empty() => "Document".to_owned(),
            name => name,
        };
        let mut name = base.clone();
        let mut number = 2_usize;
        while !self.taken.insert(name.to_lowercase()) {
            name = format!("{base} ({number})");
            number += 1;
        }
        self.titles.note(&name, title);
        name
    }

    /// The way back.
    pub(super) fn into_titles(self) -> Titles {
        self.titles
    }
}

fn tidy(title: &str) -> String {
    let allowed: String = title
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '(' | ')' | '[' | ']') {
                c
            } else {
                ' '
            }
        })
        .collect();
    let words: Vec<&str> = allowed.split_whitespace().collect();
    let mut name = words.join(" ");
    name.truncate(MAX - NUMBER);
    name.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_hold_what_converse_takes() {
        let mut names = DocumentNames::default();
        for (title, expected) in [
            ("Report: Q3/2025 (final).pdf", "Report Q3 2025 (final) pdf"),
            ("notes_1", "notes_1"),
            ("  a\t\n b ", "a b"),
            ("", "Document"),
            ("資料", "Document (2)"),
            ("a [1]-x", "a [1]-x"),
        ] {
            assert_eq!(names.name(Some(title)), expected, "{title}");
        }
        assert!(names.name(Some(&"x".repeat(500))).len() <= MAX);
    }

    #[test]
    fn a_name_that_comes_again_is_numbered() {
        let mut names = DocumentNames::default();
        let all: Vec<String> = ["a.pdf", "a.pdf", "a pdf", "A pdf", "a pdf (2)"]
            .map(|title| names.name(Some(title)))
            .into();
        assert_eq!(
            all,
            [
                "a pdf",
                "a pdf (2)",
                "a pdf (3)",
                "A pdf (4)",
                "a pdf (2) (2)"
            ]
        );
    }
}
