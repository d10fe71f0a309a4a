//! The `PROXY_*` environment, read once, with one message for everything that is wrong in it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;

/// What every variable of Spillway begins with.
pub const PREFIX: &str = "PROXY_";

/// Every wrong variable, each with what would be right. Exit code 2 is for this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(BTreeMap<String, String>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration is wrong:")?;
        for (name, problem) in &self.0 {
            write!(f, "\n  {name}: {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Reads variables and remembers what is wrong. An empty value counts as absent, as Helm and shells leave such behind.
#[derive(Debug)]
pub struct Vars<F> {
    lookup: F,
    problems: BTreeMap<String, String>,
}

impl Vars<fn(&str) -> Option<String>> {
    /// The process's own environment.
    pub fn from_process() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }
}

impl<F: Fn(&str) -> Option<String>> Vars<F> {
    /// Variables from `lookup`, which is asked with the whole name.
    pub const fn new(lookup: F) -> Self {
        Self {
            lookup,
            problems: BTreeMap::new(),
        }
    }

    /// The text of `PROXY_<name>`.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(&format!("{PREFIX}{name}")).filter(|value| !value.trim().is_empty())
    }

    /// The text of a variable that is not Spillway's own, by its whole name.
    pub fn foreign_text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|value| !value.trim().is_empty())
    }

    /// A secret text.
    pub fn secret(&self, name: &str) -> Option<SecretString> {
        self.text(name).map(SecretString::from)
    }

    /// A secret text that must be there.
    pub fn required_secret(&mut self, name: &str, hint: &str) -> SecretString {
        self.secret(name).unwrap_or_else(|| {
            self.problem(name, format!("is not set: {hint}"));
            SecretString::from("")
        })
    }

    /// A value that `T` can read, or `default`.
    pub fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, default: T) -> T {
        self.optional(name).unwrap_or(default)
    }

    /// A value that `T` can read, if it is set.
    pub fn optional<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        match text.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.problem(name, format!("{error}"));
                None
            }
        }
    }

    /// A whole number of seconds of at least one, if it is set.
    pub fn seconds(&mut self, name: &str) -> Option<Duration> {
        let text = self.text(name)?;
        match text.trim().parse::<u32>() {
            Ok(seconds) if seconds > 0 => Some(Duration::from_secs(seconds.into())),
            _ => {
                self.problem(
                    name,
                    format!("`{text}` is not a whole number of seconds above zero, such as 60"),
                );
                None
            }
        }
    }

    /// The items of a comma-separated list that `T` can read.
    pub fn list<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Vec<T> {
        let text = self.text(name).unwrap_or_default();
        let mut items = Vec::new();
        for item in text
            .split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
        {
            match item.parse() {
                Ok(value) => items.push(value),
                Err(error) => self.problem(name, format!("`{item}`: {error}")),
            }
        }
        items
    }

    /// Notes that `PROXY_<name>` is wrong. The text must not hold a secret.
    pub fn problem(&mut self, name: &str, problem: impl Into<String>) {
        self.problems
            .entry(format!("{PREFIX}{name}"))
            .or_insert_with(|| problem.into());
    }

    /// Notes that a variable is wrong that is not Spillway's own, by its whole name.
    pub fn foreign_problem(&mut self, name: &str, problem: impl Into<String>) {
        self.problems
            .entry(name.to_owned())
            .or_insert_with(|| problem.into());
    }

    /// `value` when everything was right, else the error that names every wrong variable.
    pub fn finish<T>(self, value: T) -> Result<T, ConfigError> {
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(ConfigError(self.problems))
        }
    }

    /// As [`finish`](Self::finish); `None` is a value that could not be made, for a problem that was noted.
    pub fn finish_some<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        match value {
            Some(value) => self.finish(value),
            None => Err(ConfigError(self.problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn vars(
        pairs: &'static [(&'static str, &'static str)],
    ) -> Vars<impl Fn(&str) -> Option<String>> {
        Vars::new(move |name| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn every_wrong_variable_is_named_in_one_message() {
        let mut vars = vars(&[
            ("PROXY_LISTEN_ADDR", "nonsense"),
            ("PROXY_PLAN_HOLD_BACK", "0"),
            ("PROXY_LOG_LEVEL", "info"),
        ]);
        vars.parsed("LISTEN_ADDR", SocketAddr::from(([0, 0, 0, 0], 8080)));
        vars.seconds("PLAN_HOLD_BACK");
        vars.required_secret("DATABASE_URL", "give the URL of a PostgreSQL database");
        let message = vars.finish(()).unwrap_err().to_string();
        for name in [
            "PROXY_LISTEN_ADDR: invalid socket address",
            "PROXY_PLAN_HOLD_BACK: `0` is not",
            "PROXY_DATABASE_URL: is not set",
        ] {
            assert!(message.contains(name), "{message}");
        }
        assert!(!message.contains("LOG_LEVEL"));
    }

    #[test]
    fn an_empty_value_is_no_value() {
        let mut vars = vars(&[
            ("PROXY_KMS_KEY_ID", " "),
            ("PROXY_POOL_NAMESPACES", "a, b,,"),
        ]);
        assert_eq!(vars.text("KMS_KEY_ID"), None);
        assert_eq!(vars.list::<String>("POOL_NAMESPACES"), ["a", "b"]);
        assert!(vars.finish(()).is_ok());
    }
}
