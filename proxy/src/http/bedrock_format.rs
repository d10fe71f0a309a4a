//! Bedrock's format, for clients that were told this proxy is Bedrock.
//!
//! The id in the path goes to Bedrock as it is, unless the pool maps it: by its exact name, or, if it is no id of Bedrock's own
//! such as `claude-sonnet-4-5`, by any mapping that matches. A key's or user's `allowedModels` may name the id as it is asked
//! for, the foundation model in it, the name that Anthropic's API has for that, or the pool's exact name for it.

use std::sync::Arc;
use std::time::Instant;

use http::{HeaderMap, HeaderValue, Request, Response};
use spillway_core::domain::bedrock::{foundation_model, is_bedrock_id, is_well_formed, names};
use spillway_core::domain::models::ModelMapping;
use spillway_core::domain::usage::Provider;
use uuid::Uuid;

use super::bedrock_head::bedrock_head;
use super::connection::RequestBody;
use super::error::{ErrorType, Refusal};
use super::models::Answered;
use super::route::{Route, target};
use super::{Frontend, blocked, shown};
use crate::adapter::bedrock_relay::{Fault, Operation};
use crate::call::{Closing, Ticket};
use crate::routing::{BedrockAsked, RelayBody};

impl Frontend {
    /// Answers a call of an operation. The provider is given where nothing is metered.
    pub(super) async fn bedrock(
        &self,
        request: Request<RequestBody>,
        operation: Operation,
        request_id: Uuid,
        received_at: Instant,
    ) -> Result<Response<RelayBody>, Refusal> {
        let admitted = self.admit(request).await?;
        let id = target(admitted.parts.uri.path())
            .decoded_id()
            .filter(|id| is_well_formed(id))
            .ok_or_else(|| {
                Refusal::invalid("model", "The provided model identifier is invalid.")
            })?;
        let entry = Arc::clone(&admitted.entry);
        let models = &entry.pool.models;
        let asked = entry
            .caller
            .bedrock
            .as_ref()
            .map(|credential| BedrockAsked {
                operation,
                model_id: id_to_ask(models, &id, operation).to_owned(),
                credential: Arc::clone(credential),
            });
        let refusal = if asked.is_none() {
            Some(no_credential())
        } else if !entry.allows_by_any(&names_of(models, &id)) {
            Some(Refusal::invalid(
                "model",
                format!("model: {} is not allowed for this access key", shown(&id)),
            ))
        } else {
            None
        };
        let head = bedrock_head(id, operation, &admitted.body, &admitted.parts.headers);
        let call = admitted.into_call(head, request_id, received_at);
        let ticket = if operation.is_metered() {
            self.meter.open(&call, Route::Bedrock(operation)).await?
        } else {
            Ticket::new(received_at, |_| Closing::done())
        };
        match (asked, refusal) {
            (Some(asked), None) => Ok(self.bedrock_format.serve(call, asked, ticket).await),
            (_, refusal) => {
                let refusal = refusal.unwrap_or_else(no_credential);
                ticket
                    .finish(blocked(&refusal, received_at.elapsed()))
                    .await;
                Err(refusal)
            }
        }
    }

    /// Answers a look at the inference profiles: those that the pool's models are mapped to. Claude Code picks from them the
    /// ids of its default models, and its built-in ones where it finds none.
    pub(super) async fn inference_profiles(
        &self,
        parts: &http::request::Parts,
        request_id: Uuid,
    ) -> Result<Answered, Refusal> {
        let entry = self.admit_head(parts).await?;
        let asked = target(parts.uri.path());
        let region = entry
            .caller
            .bedrock
            .as_ref()
            .map(|credential| credential.region.as_str());
        let body = if asked.route == Route::InferenceProfile {
            asked
                .decoded_id()
                .filter(|id| is_well_formed(id))
                .and_then(|id| profile(&id, region?))
                .ok_or_else(unknown_profile)?
        } else {
            let of_system = parts
                .uri
                .query()
                .is_none_or(|query| !query.contains("APPLICATION"));
            let profiles: Vec<_> = region
                .filter(|_| of_system)
                .map(|region| {
                    profile_ids(&entry.pool.models, entry.pool.default_model.as_deref())
                        .filter(|id| entry.allows_by_any(&names_of(&entry.pool.models, id)))
                        .filter_map(|id| profile(id, region))
                        .collect()
                })
                .unwrap_or_default();
            serde_json::json!({"inferenceProfileSummaries": profiles})
        };
        let mut response = Response::new(RelayBody::whole(body.to_string().into()));
        let headers = response.headers_mut();
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Ok(id) = HeaderValue::try_from(request_id.to_string()) {
            headers.insert("x-amzn-requestid", id);
        }
        Ok((response, None::<Provider>))
    }
}

/// The id that Bedrock is asked for. Of inference profiles it counts no tokens, only of the models behind them.
fn id_to_ask<'a>(models: &'a [ModelMapping], asked: &'a str, operation: Operation) -> &'a str {
    let mapped = models
        .iter()
        .filter(|mapping| {
            mapping.name.exact() == Some(asked)
                || (!is_bedrock_id(asked) && mapping.name.matches(asked))
        })
        .find_map(|mapping| mapping.bedrock_model_id.as_deref());
    let id = mapped.unwrap_or(asked);
    if operation == Operation::CountTokens {
        foundation_model(id).unwrap_or(id)
    } else {
        id
    }
}

/// The names that an id may be allowed by.
fn names_of<'a>(models: &'a [ModelMapping], id: &'a str) -> Vec<&'a str> {
    let mut all = names(id);
    all.extend(
        models
            .iter()
            .filter(|mapping| mapping.bedrock_model_id.as_deref() == Some(id))
            .filter_map(|mapping| mapping.name.exact()),
    );
    all
}

/// The inference profiles that a pool's models are mapped to, each once. ARNs hold an account and are left out.
fn profile_ids<'a>(
    models: &'a [ModelMapping],
    default_model: Option<&'a str>,
) -> impl Iterator<Item = &'a str> {
    let mut seen = Vec::new();
    models
        .iter()
        .filter_map(|mapping| mapping.bedrock_model_id.as_deref())
        .chain(default_model)
        .filter(move |id| {
            let is_profile =
                !id.starts_with("arn:") && foundation_model(id).is_some_and(|model| model != *id);
            let is_new = is_profile && !seen.contains(id);
            if is_new {
                seen.push(*id);
            }
            is_new
        })
}

/// An inference profile as Bedrock describes it, but for the account.
/// Source: <https://docs.aws.amazon.com/bedrock/latest/APIReference/API_GetInferenceProfile.html>.
fn profile(id: &str, region: &str) -> Option<serde_json::Value> {
    let id = id.rsplit('/').next().unwrap_or(id);
    let model = foundation_model(id)?;
    Some(serde_json::json!({
        "inferenceProfileId": id,
        "inferenceProfileName": id,
        "inferenceProfileArn": format!("arn:aws:bedrock:{region}::inference-profile/{id}"),
        "models": [{"modelArn": format!("arn:aws:bedrock:{region}::foundation-model/{model}")}],
        "status": "ACTIVE",
        "type": "SYSTEM_DEFINED",
    }))
}

fn no_credential() -> Refusal {
    Refusal::forbidden(
        "no_bedrock_credential",
        "No Bedrock credential resolves for this access key: its pool has none, or has the fallback to Bedrock off",
    )
}

fn unknown_profile() -> Refusal {
    Refusal::new(
        http::StatusCode::NOT_FOUND,
        ErrorType::NotFound,
        "unknown_profile",
        "The inference profile is not known here",
    )
}

/// A refusal in Bedrock's shape.
pub(super) fn refused(refusal: Refusal, request_id: Uuid) -> Response<RelayBody> {
    let optional = refusal.headers();
    let fault = if refusal.reason == Refusal::UNKNOWN_ROUTE {
        Fault::unknown_operation(refusal.message)
    } else {
        Fault::new(refusal.status, refusal.message)
    };
    let mut headers: HeaderMap = fault.headers(request_id);
    headers.extend(optional);
    let mut response = Response::new(RelayBody::whole(fault.body()));
    *response.status_mut() = fault.status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use spillway_core::domain::models::{BedrockApi, ModelPattern};

    use super::*;

    const SONNET: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

    fn models(mappings: &[(&str, &str)]) -> Vec<ModelMapping> {
        mappings
            .iter()
            .map(|(name, id)| ModelMapping {
                name: ModelPattern::new(name).unwrap(),
                bedrock_model_id: (!id.is_empty()).then(|| (*id).to_owned()),
                bedrock_api: BedrockApi::Auto,
                price: None,
            })
            .collect()
    }

    #[test]
    fn ids_of_bedrock_stay_and_names_are_mapped() {
        let models = models(&[
            ("claude-sonnet-4-5", ""),
            ("claude-sonnet-*", SONNET),
            ("us.anthropic.claude-haiku", "eu.anthropic.claude-haiku"),
            ("*", "eu.anthropic.claude-opus"),
        ]);
        for (asked, id) in [
            ("claude-sonnet-4-5", SONNET),
            ("claude-sonnet-4-6", SONNET),
            ("us.anthropic.claude-haiku", "eu.anthropic.claude-haiku"),
            (
                "us.anthropic.claude-sonnet-4-5-v1",
                "us.anthropic.claude-sonnet-4-5-v1",
            ),
            ("gpt-4.1", "eu.anthropic.claude-opus"),
        ] {
            assert_eq!(id_to_ask(&models, asked, Operation::Invoke), id, "{asked}");
        }
        assert_eq!(
            id_to_ask(&models[..1], "claude-sonnet-4-5", Operation::Invoke),
            "claude-sonnet-4-5"
        );
    }

    #[test]
    fn tokens_are_counted_for_the_model_behind_a_profile() {
        assert_eq!(
            id_to_ask(&[], SONNET, Operation::CountTokens),
            "anthropic.claude-sonnet-4-5-20250929-v1:0"
        );
    }

    #[test]
    fn an_id_is_allowed_by_the_pools_name_for_it_too() {
        let models = models(&[("sonnet", SONNET), ("son*", SONNET)]);
        let names = names_of(&models, SONNET);
        assert!(names.contains(&"sonnet") && names.contains(&"claude-sonnet-4-5"));
        assert!(!names.contains(&"son*"));
    }

    #[test]
    fn the_pools_inference_profiles_are_listed_once_and_without_accounts() {
        let models = models(&[
            ("a", SONNET),
            ("b", SONNET),
            ("c", "anthropic.claude-3-haiku-20240307-v1:0"),
            (
                "d",
                "arn:aws:bedrock:eu-west-1:123456789012:inference-profile/eu.anthropic.claude-x-v1",
            ),
        ]);
        let ids: Vec<_> = profile_ids(&models, Some("us.anthropic.claude-opus-4-6-v1")).collect();
        assert_eq!(ids, [SONNET, "us.anthropic.claude-opus-4-6-v1"]);
        let profile = profile(SONNET, "eu-west-1").unwrap();
        assert_eq!(
            profile["models"][0]["modelArn"],
            "arn:aws:bedrock:eu-west-1::foundation-model/anthropic.claude-sonnet-4-5-20250929-v1:0"
        );
        assert_eq!(self::profile("a1b2c3", "eu-west-1"), None);
    }
}
