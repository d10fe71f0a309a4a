//! Errors as one line for the log.

use std::error::Error;

/// `error` and its sources, outermost first, joined by `: `. A source whose text the line already has is left out
/// (some libraries repeat the source in their own message).
pub fn chain(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::chain;

    #[derive(Debug, thiserror::Error)]
    #[error("inner")]
    struct Inner;

    #[derive(Debug, thiserror::Error)]
    enum Outer {
        #[error("outer")]
        Plain(#[source] Inner),
        #[error("outer with inner")]
        Repeating(#[source] Inner),
    }

    #[test]
    fn sources_follow_their_error_once() {
        assert_eq!(chain(&Outer::Plain(Inner)), "outer: inner");
        assert_eq!(chain(&Outer::Repeating(Inner)), "outer with inner");
    }
}
