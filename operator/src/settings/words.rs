//! The forms of single values.

use std::str::FromStr;

use spillway_core::env::Vars;
use spillway_core::telemetry;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Looks a variable up by its whole name.
pub trait Lookup: Fn(&str) -> Option<String> {}

impl<F: Fn(&str) -> Option<String>> Lookup for F {}

/// A name that Kubernetes takes for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DnsLabel(pub(super) String);

/// The text is no such name.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no name: use up to 63 of a-z 0-9 -, beginning and ending with a letter or digit")]
pub(super) struct NotALabel(String);

impl FromStr for DnsLabel {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotALabel(text.to_owned()))
        }
    }
}

/// What is logged: a level, or a filter such as `info,spillway_operator=debug`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLevel(String);

impl LogLevel {
    /// Reads `PROXY_LOG_LEVEL`; `info` when it is not set or wrong, which `vars` then remembers.
    pub fn read<F: Lookup>(vars: &mut Vars<F>) -> Self {
        vars.parsed("LOG_LEVEL", Self("info".to_owned()))
    }

    /// Starts logging.
    pub fn start(&self) {
        if let Err(error) = telemetry::init(Some(&self.0)) {
            eprintln!("spillway-operator: nothing is logged: {error}");
        }
    }
}

impl FromStr for LogLevel {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map(|_| Self(text.to_owned()))
    }
}
