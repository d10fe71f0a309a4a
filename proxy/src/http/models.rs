//! `/v1/models`: the Plan's answer where there is nothing to add and nothing to hide, else the Plan's models with the pool's.

use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use spillway_core::domain::usage::Provider;
use tokio::time::Instant;
use uuid::Uuid;

use super::Frontend;
use super::error::{ErrorType, Refusal};
use super::model_list::{Listed, PlanPage, Window, merge, plan_query};
use super::route::target;
use crate::adapter::plan::PlanRequest;
use crate::call::PlanCredential;
use crate::directory::KeyEntry;
use crate::routing::{PlanAnswer, RelayBody};

const PATH: &str = "/v1/models";
/// How long the Plan may take where the pool has an answer of its own: Claude Code waits for three seconds.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// How long where it has none.
const LAST_PATIENCE: Duration = Duration::from_secs(30);
/// Pages of a thousand models that the Plan's list may have.
const MAX_PAGES: usize = 5;

/// A response and who gave it.
pub(super) type Answered = (Response<RelayBody>, Option<Provider>);

/// A request for models: whose, and with what.
struct Asked<'a> {
    parts: &'a Parts,
    entry: &'a KeyEntry,
    request_id: Uuid,
}

impl Frontend {
    /// Answers `GET /v1/models`.
    pub(super) async fn models(
        &self,
        parts: &Parts,
        request_id: Uuid,
    ) -> Result<Answered, Refusal> {
        let entry = self.admit_head(parts).await?;
        let asked = Asked {
            parts,
            entry: &entry,
            request_id,
        };
        let names_some = names_models(&entry);
        let plan = entry.caller.plan.as_deref();
        if let Some(plan) = plan.filter(|_| !names_some && entry.allows_all()) {
            let answer = self
                .ask(&asked, plan, PATH, parts.uri.query(), LAST_PATIENCE)
                .await;
            return Ok((answer.into(), Some(Provider::Plan)));
        }
        let query = parts.uri.query().unwrap_or_default();
        let window = Window::parse(query)?;
        let (models, provider) = match plan {
            None => (Vec::new(), None),
            Some(plan) => match self.plans_models(&asked, plan, query).await {
                Ok(models) => (models, Some(Provider::Plan)),
                Err(_) if names_some => (Vec::new(), None),
                Err(answer) => return Ok((answer.into(), Some(Provider::Plan))),
            },
        };
        let all = merge(models, &entry.pool.models, |id| entry.allows(id));
        Ok((json(request_id, window.render(&all)?), provider))
    }

    /// Answers `GET /v1/models/{id}`.
    pub(super) async fn model(&self, parts: &Parts, request_id: Uuid) -> Result<Answered, Refusal> {
        let entry = self.admit_head(parts).await?;
        let raw = target(parts.uri.path()).id;
        let id = target(parts.uri.path())
            .decoded_id()
            .filter(|id| is_one_segment(id) && entry.allows(id))
            .ok_or_else(|| unknown(raw))?;
        let of_pool = entry
            .pool
            .models
            .iter()
            .any(|mapping| mapping.name.exact() == Some(&id))
            .then(|| Listed::of_pool(&id))
            .flatten();
        let answer = match entry.caller.plan.as_deref() {
            None => None,
            Some(plan) => {
                let asked = Asked {
                    parts,
                    entry: &entry,
                    request_id,
                };
                let patience = if of_pool.is_some() {
                    PATIENCE
                } else {
                    LAST_PATIENCE
                };
                let path = format!("{PATH}/{raw}");
                Some(
                    self.ask(&asked, plan, &path, parts.uri.query(), patience)
                        .await,
                )
            }
        };
        match (answer, of_pool) {
            (Some(answer), None) => Ok((answer.into(), Some(Provider::Plan))),
            (Some(answer), Some(_)) if answer.status.is_success() => {
                Ok((answer.into(), Some(Provider::Plan)))
            }
            (_, Some(model)) => Ok((json(request_id, model.into_json()), None)),
            (None, None) => Err(unknown(&id)),
        }
    }

    /// The Plan's whole list, or the answer that was none.
    async fn plans_models(
        &self,
        asked: &Asked<'_>,
        plan: &PlanCredential,
        query: &str,
    ) -> Result<Vec<Listed>, PlanAnswer> {
        let until = Instant::now() + PATIENCE;
        let mut all = Vec::new();
        let mut after: Option<String> = None;
        for _ in 0..MAX_PAGES {
            let query = plan_query(query, after.as_deref());
            let left = until - Instant::now();
            let answer = self.ask(asked, plan, PATH, Some(&query), left).await;
            let page = PlanPage::parse(&answer.body).filter(|_| answer.status.is_success());
            let Some(page) = page else {
                return Err(answer);
            };
            all.extend(page.models);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(all)
    }

    async fn ask(
        &self,
        asked: &Asked<'_>,
        plan: &PlanCredential,
        path: &str,
        query: Option<&str>,
        patience: Duration,
    ) -> PlanAnswer {
        let request = PlanRequest {
            method: Method::GET,
            path,
            query,
            headers: &asked.parts.headers,
            body: Bytes::new(),
        };
        let until = Instant::now() + patience;
        tracing::trace!(request_id = %asked.request_id, key_id = asked.entry.caller.key_id, "asking the plan for models");
        PlanAnswer::ask(&self.plan, request, plan, until, asked.request_id).await
    }
}

/// Whether the pool names models of its own, not only globs.
fn names_models(entry: &KeyEntry) -> bool {
    entry
        .pool
        .models
        .iter()
        .any(|mapping| mapping.name.exact().is_some())
}

/// A name that stays one part of a path, whoever normalises it on the way.
fn is_one_segment(id: &str) -> bool {
    !matches!(id, "." | "..") && !id.contains(['/', '\\']) && !id.contains(char::is_control)
}

/// In the API's words. A model that is not allowed is one that does not exist.
fn unknown(id: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        ErrorType::NotFound,
        "unknown_model",
        format!("model: {}", super::shown(id)),
    )
}

fn json(request_id: Uuid, body: Bytes) -> Response<RelayBody> {
    let mut response = Response::new(RelayBody::whole(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::try_from(format!("req_{}", request_id.simple())) {
        headers.insert("request-id", id);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_elsewhere_are_no_models() {
        assert!(is_one_segment("us.anthropic.claude-opus-4-6-v1:0"));
        for id in [".", "..", "../messages", "a\\b", "a\nb"] {
            assert!(!is_one_segment(id), "{id:?}");
        }
    }
}
