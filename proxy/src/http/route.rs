//! Which route a path is. Names of routes, never paths, go into logs and metrics: a path may hold a key.

use std::fmt;

/// A path, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The route.
    pub route: Route,
    /// The access key of an `/ak/{key}` prefix.
    pub path_key: Option<&'a str>,
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("route", &self.route)
            .field("has_path_key", &self.path_key.is_some())
            .finish()
    }
}

/// The routes that this proxy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/v1/messages`
    Messages,
    /// The base URL itself or `/api/hello`, where clients look whether anybody is there.
    Probe,
    /// Anything else.
    Unknown,
}

impl Route {
    /// A bounded label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Probe => "probe",
            Self::Unknown => "unknown",
        }
    }

    /// The methods it answers, as `Allow` writes them.
    pub fn methods(self) -> &'static str {
        match self {
            Self::Messages => "POST",
            Self::Probe | Self::Unknown => "GET, HEAD",
        }
    }
}

/// Takes a request's path apart.
pub fn target(path: &str) -> Target<'_> {
    let (path_key, rest) = match path.strip_prefix("/ak/") {
        None => (None, path),
        Some(after) => match after.find('/') {
            None => (Some(after), ""),
            Some(end) => (Some(&after[..end]), &after[end..]),
        },
    };
    let route = match rest {
        "/v1/messages" => Route::Messages,
        "" | "/" | "/api/hello" => Route::Probe,
        _ => Route::Unknown,
    };
    Target { route, path_key }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_routes_with_and_without_a_key() {
        for (path, route, path_key) in [
            ("/v1/messages", Route::Messages, None),
            (
                "/ak/sk-spw-x/v1/messages",
                Route::Messages,
                Some("sk-spw-x"),
            ),
            ("/", Route::Probe, None),
            ("/ak/k", Route::Probe, Some("k")),
            ("/ak/k/", Route::Probe, Some("k")),
            ("/ak/k/api/hello", Route::Probe, Some("k")),
            ("/ak//v1/messages", Route::Messages, Some("")),
            ("/v1/messages/", Route::Unknown, None),
            ("/v1/nothing", Route::Unknown, None),
            ("/akk/v1/messages", Route::Unknown, None),
        ] {
            assert_eq!(target(path), Target { route, path_key }, "{path}");
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert!(!format!("{:?}", target("/ak/secret/v1/messages")).contains("secret"));
    }
}
