//! Which route a path is. Names of routes, never paths, go into logs and metrics: a path may hold a key.

use std::borrow::Cow;
use std::fmt;

use http::Method;
use percent_encoding::percent_decode_str;

use crate::adapter::bedrock_relay::Operation;

/// A path, taken apart.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// The route.
    pub route: Route,
    /// The access key of an `/ak/{key}` prefix.
    pub path_key: Option<&'a str>,
    /// The model or inference profile in the path, as it was sent; empty where the route has none.
    pub id: &'a str,
}

impl Target<'_> {
    /// The id without its URL encoding; `None` if there is none in it. Some clients and ingresses encode what is encoded
    /// already: no id has a percent sign of its own.
    pub fn decoded_id(&self) -> Option<String> {
        let once = decode(self.id)?;
        let id = if once.contains('%') {
            decode(&once)?.into_owned()
        } else {
            once.into_owned()
        };
        (!id.is_empty()).then_some(id)
    }
}

fn decode(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

impl fmt::Debug for Target<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("route", &self.route)
            .field("has_path_key", &self.path_key.is_some())
            .finish_non_exhaustive()
    }
}

/// The routes that this proxy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// `/v1/messages`
    Messages,
    /// `/v1/messages/count_tokens`
    CountTokens,
    /// `/v1/models`
    Models,
    /// `/v1/models/{id}`
    Model,
    /// `/bedrock/model/{id}/{operation}`
    Bedrock(Operation),
    /// `/bedrock/inference-profiles`
    InferenceProfiles,
    /// `/bedrock/inference-profiles/{id}`
    InferenceProfile,
    /// The base URL itself or `/api/hello`, where clients look whether anybody is there.
    Probe,
    /// Anything else, in Anthropic's format.
    Unknown,
    /// Anything else under `/bedrock`.
    UnknownBedrock,
}

impl Route {
    /// A bounded label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::CountTokens => "count_tokens",
            Self::Models => "models",
            Self::Model => "model",
            Self::Bedrock(operation) => operation.label(),
            Self::InferenceProfiles => "bedrock_inference_profiles",
            Self::InferenceProfile => "bedrock_inference_profile",
            Self::Probe => "probe",
            Self::Unknown => "unknown",
            Self::UnknownBedrock => "bedrock_unknown",
        }
    }

    /// The methods it answers, as `Allow` writes them.
    pub fn methods(self) -> &'static str {
        match self {
            Self::Messages | Self::CountTokens | Self::Bedrock(_) => "POST",
            Self::Models | Self::Model | Self::InferenceProfiles | Self::InferenceProfile => "GET",
            Self::Probe | Self::Unknown | Self::UnknownBedrock => "GET, HEAD",
        }
    }

    /// Whether it answers `method`.
    pub fn has(self, method: &Method) -> bool {
        self.methods()
            .split(", ")
            .any(|known| known == method.as_str())
    }

    /// Whether its clients speak Bedrock's format, errors included.
    pub fn is_bedrock(self) -> bool {
        matches!(
            self,
            Self::Bedrock(_)
                | Self::InferenceProfiles
                | Self::InferenceProfile
                | Self::UnknownBedrock
        )
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
    let (route, id) = match rest {
        "/v1/messages" => (Route::Messages, ""),
        "/v1/messages/count_tokens" => (Route::CountTokens, ""),
        "/v1/models" => (Route::Models, ""),
        "" | "/" | "/api/hello" | "/bedrock" | "/bedrock/" => (Route::Probe, ""),
        _ => longer(rest),
    };
    Target {
        route,
        path_key,
        id,
    }
}

fn longer(path: &str) -> (Route, &str) {
    if let Some(id) = path.strip_prefix("/v1/models/") {
        return if id.is_empty() || id.contains('/') {
            (Route::Unknown, "")
        } else {
            (Route::Model, id)
        };
    }
    path.strip_prefix("/bedrock/")
        .map_or((Route::Unknown, ""), bedrock)
}

/// An ARN's slash may have been decoded on the way here, so ids may hold some.
fn bedrock(path: &str) -> (Route, &str) {
    let known = if path == "inference-profiles" {
        Some((Route::InferenceProfiles, ""))
    } else if let Some(id) = path.strip_prefix("inference-profiles/") {
        Some((Route::InferenceProfile, id))
    } else {
        path.strip_prefix("model/")
            .and_then(|rest| rest.rsplit_once('/'))
            .and_then(|(id, operation)| Some((Route::Bedrock(Operation::of_path(operation)?), id)))
    };
    known.unwrap_or((Route::UnknownBedrock, ""))
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
            ("/v1/messages/count_tokens", Route::CountTokens, None),
            ("/ak/k/v1/models", Route::Models, Some("k")),
            ("/", Route::Probe, None),
            ("/ak/k", Route::Probe, Some("k")),
            ("/ak/k/", Route::Probe, Some("k")),
            ("/ak/k/api/hello", Route::Probe, Some("k")),
            ("/ak/k/bedrock", Route::Probe, Some("k")),
            ("/ak//v1/messages", Route::Messages, Some("")),
            ("/v1/messages/", Route::Unknown, None),
            ("/v1/models/", Route::Unknown, None),
            ("/v1/models/a/b", Route::Unknown, None),
            ("/v1/nothing", Route::Unknown, None),
            ("/akk/v1/messages", Route::Unknown, None),
            (
                "/ak/k/bedrock/inference-profiles",
                Route::InferenceProfiles,
                Some("k"),
            ),
            ("/bedrock/model/x/start", Route::UnknownBedrock, None),
            ("/bedrock/model/invoke", Route::UnknownBedrock, None),
            ("/bedrock/nothing", Route::UnknownBedrock, None),
            ("/model/x/invoke", Route::Unknown, None),
        ] {
            let id = "";
            assert_eq!(
                target(path),
                Target {
                    route,
                    path_key,
                    id
                },
                "{path}"
            );
        }
    }

    #[test]
    fn ids_are_taken_out_of_paths_and_decoded() {
        const ARN: &str = "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-6-v1";
        let encoded = ARN.replace(':', "%3A").replace('/', "%2F");
        let invoke = Route::Bedrock(Operation::Invoke);
        for (path, route, id) in [
            (
                "/v1/models/claude-x".to_owned(),
                Route::Model,
                Some("claude-x"),
            ),
            (
                "/bedrock/model/us.anthropic.x-v1%3A0/invoke".to_owned(),
                invoke,
                Some("us.anthropic.x-v1:0"),
            ),
            (
                format!("/bedrock/model/{encoded}/invoke"),
                invoke,
                Some(ARN),
            ),
            (
                format!("/bedrock/model/{}/invoke", encoded.replace('%', "%25")),
                invoke,
                Some(ARN),
            ),
            (format!("/bedrock/model/{ARN}/invoke"), invoke, Some(ARN)),
            (
                format!("/bedrock/inference-profiles/{encoded}"),
                Route::InferenceProfile,
                Some(ARN),
            ),
            ("/bedrock/model/%FF/invoke".to_owned(), invoke, None),
            ("/bedrock/model//invoke".to_owned(), invoke, None),
        ] {
            let target = target(&path);
            assert_eq!(target.route, route, "{path}");
            assert_eq!(target.decoded_id().as_deref(), id, "{path}");
        }
    }

    #[test]
    fn debug_output_hides_the_key() {
        assert!(!format!("{:?}", target("/ak/secret/v1/messages")).contains("secret"));
    }
}
