//! The models that a key may ask for: the Plan's, and those that the pool names.

use std::borrow::Cow;

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};
use spillway_core::domain::models::ModelMapping;
use url::form_urlencoded;

use crate::http::error::{ErrorType, Refusal};

/// Source: <https://docs.anthropic.com/en/api/models-list>.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1_000;
/// What the API says of a model whose day it does not know.
const NO_DATE: &str = "1970-01-01T00:00:00Z";

/// A model as it is listed.
#[derive(Debug, Clone)]
pub struct Listed {
    id: String,
    json: Box<RawValue>,
}

#[derive(Serialize)]
struct PoolModel<'a> {
    r#type: &'static str,
    id: &'a str,
    display_name: String,
    created_at: String,
}

impl Listed {
    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// A model that only the pool names.
    pub(super) fn of_pool(name: &str) -> Option<Self> {
        let model = PoolModel {
            r#type: "model",
            id: name,
            display_name: display_name(name),
            created_at: created_at(name),
        };
        Some(Self {
            id: name.to_owned(),
            json: to_raw_value(&model).ok()?,
        })
    }

    /// Its JSON.
    pub fn into_json(self) -> Bytes {
        self.json.get().to_owned().into()
    }
}

/// A page of the Plan's list.
pub struct PlanPage {
    /// Its models.
    pub models: Vec<Listed>,
    /// Where the next page begins, if there is one.
    pub next: Option<String>,
}

impl PlanPage {
    /// Reads a page; `None` if it is none. Members of models that nobody here has heard of stay.
    pub fn parse(body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Page<'a> {
            #[serde(borrow)]
            data: Vec<&'a RawValue>,
            #[serde(default)]
            has_more: bool,
            last_id: Option<String>,
        }
        #[derive(Deserialize)]
        struct Model<'a> {
            #[serde(borrow)]
            id: Cow<'a, str>,
        }
        let page: Page<'_> = serde_json::from_slice(body).ok()?;
        let models = page
            .data
            .into_iter()
            .filter_map(|json| {
                let id = serde_json::from_str::<Model<'_>>(json.get()).ok()?.id;
                Some(Listed {
                    id: id.into_owned(),
                    json: json.to_owned(),
                })
            })
            .collect();
        Some(Self {
            models,
            next: page.last_id.filter(|_| page.has_more),
        })
    }
}

/// The Plan's models and then those that only the pool names, as far as they are allowed.
pub(super) fn merge(
    plan: Vec<Listed>,
    pool: &[ModelMapping],
    is_allowed: impl Fn(&str) -> bool,
) -> Vec<Listed> {
    let mut all = plan;
    for name in pool.iter().filter_map(|mapping| mapping.name.exact()) {
        if all.iter().all(|model| model.id != name) {
            all.extend(Listed::of_pool(name));
        }
    }
    all.retain(|model| is_allowed(&model.id));
    all
}

/// Which part of a list is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Window {
    limit: usize,
    after: Option<String>,
    before: Option<String>,
}

impl Window {
    /// Reads a query.
    pub(super) fn parse(query: &str) -> Result<Self, Refusal> {
        let mut window = Self {
            limit: DEFAULT_LIMIT,
            after: None,
            before: None,
        };
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            match name.as_ref() {
                "limit" => {
                    window.limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=MAX_LIMIT).contains(limit))
                        .ok_or_else(|| {
                            Refusal::invalid("limit", "limit: must be a number from 1 to 1000")
                        })?;
                }
                "after_id" if !value.is_empty() => window.after = Some(value.into_owned()),
                "before_id" if !value.is_empty() => window.before = Some(value.into_owned()),
                _ => {}
            }
        }
        if window.after.is_some() && window.before.is_some() {
            return Err(Refusal::invalid(
                "cursor",
                "after_id: cannot be used together with before_id",
            ));
        }
        Ok(window)
    }

    /// The answer for this part of `models`.
    pub(super) fn render(&self, models: &[Listed]) -> Result<Bytes, Refusal> {
        #[derive(Serialize)]
        struct Page<'a> {
            data: Vec<&'a RawValue>,
            has_more: bool,
            first_id: Option<&'a str>,
            last_id: Option<&'a str>,
        }
        let find = |id: &str, field: &'static str| {
            models
                .iter()
                .position(|model| model.id == id)
                .ok_or_else(|| Refusal::invalid("cursor", format!("{field}: no such model")))
        };
        let (part, has_more) = match (&self.after, &self.before) {
            (_, Some(id)) => {
                let end = find(id, "before_id")?;
                let begin = end.saturating_sub(self.limit);
                (&models[begin..end], begin > 0)
            }
            (after, None) => {
                let begin = match after {
                    Some(id) => find(id, "after_id")? + 1,
                    None => 0,
                };
                let end = models.len().min(begin + self.limit);
                (&models[begin..end], end < models.len())
            }
        };
        let page = Page {
            data: part.iter().map(|model| model.json.as_ref()).collect(),
            has_more,
            first_id: part.first().map(|model| model.id.as_str()),
            last_id: part.last().map(|model| model.id.as_str()),
        };
        serde_json::to_vec(&page).map(Bytes::from).map_err(|_| {
            Refusal::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                ErrorType::Api,
                "models",
                "The list of models could not be written",
            )
        })
    }
}

/// The query for a page of the Plan's whole list: the client's own, but from where that page begins.
pub(super) fn plan_query(query: &str, after: Option<&str>) -> String {
    let mut whole = form_urlencoded::Serializer::new(String::new());
    whole.extend_pairs(
        form_urlencoded::parse(query.as_bytes())
            .filter(|(name, _)| !matches!(name.as_ref(), "limit" | "after_id" | "before_id")),
    );
    whole.append_pair("limit", &MAX_LIMIT.to_string());
    if let Some(after) = after {
        whole.append_pair("after_id", after);
    }
    whole.finish()
}

/// `Claude Sonnet 4.5` of `claude-sonnet-4-5-20250929`. Of names in another style, the name.
fn display_name(name: &str) -> String {
    if !name.starts_with("claude-") {
        return name.to_owned();
    }
    let mut shown = String::with_capacity(name.len());
    let mut after_number = false;
    for part in name.split('-').filter(|part| date(part).is_none()) {
        let is_number = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !shown.is_empty() {
            shown.push(if is_number && after_number { '.' } else { ' ' });
        }
        let mut letters = part.chars();
        shown.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        shown.push_str(letters.as_str());
        after_number = is_number;
    }
    shown
}

fn created_at(name: &str) -> String {
    name.rsplit('-')
        .find_map(date)
        .unwrap_or(NO_DATE.to_owned())
}

/// The day in a name's part, as in `20250929`.
fn date(part: &str) -> Option<String> {
    let day = chrono::NaiveDate::parse_from_str(part, "%Y%m%d").ok()?;
    (part.len() == 8).then(|| format!("{day}T00:00:00Z"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use spillway_core::domain::models::{BedrockApi, ModelPattern};

    use super::*;

    fn plan() -> Vec<Listed> {
        let page = br#"{"data":[{"type":"model","id":"claude-opus-4-8","new":{"a":[1]}},{"id":"claude-haiku-4-5"},{"no":"id"}],"has_more":true,"first_id":"claude-opus-4-8","last_id":"claude-haiku-4-5"}"#;
        let page = PlanPage::parse(page).unwrap();
        assert_eq!(page.next.as_deref(), Some("claude-haiku-4-5"));
        page.models
    }

    fn pool(names: &[&str]) -> Vec<ModelMapping> {
        names
            .iter()
            .map(|name| ModelMapping {
                name: ModelPattern::new(name).unwrap(),
                bedrock_model_id: None,
                bedrock_api: BedrockApi::Auto,
                price: None,
            })
            .collect()
    }

    fn listed(names: &[&str]) -> Vec<Listed> {
        names
            .iter()
            .map(|name| Listed::of_pool(name).unwrap())
            .collect()
    }

    fn ids(models: &[Listed]) -> Vec<&str> {
        models.iter().map(|model| model.id.as_str()).collect()
    }

    #[test]
    fn the_pools_exact_names_follow_the_plans_models() {
        let pool = pool(&["claude-haiku-4-5", "nova", "claude-*"]);
        let all = merge(plan(), &pool, |_| true);
        assert_eq!(ids(&all), ["claude-opus-4-8", "claude-haiku-4-5", "nova"]);
        assert_eq!(
            all[0].json.get(),
            r#"{"type":"model","id":"claude-opus-4-8","new":{"a":[1]}}"#
        );
        let some = merge(plan(), &pool, |id| id != "claude-opus-4-8");
        assert_eq!(ids(&some), ["claude-haiku-4-5", "nova"]);
        assert_eq!(
            ids(&merge(Vec::new(), &pool, |_| true)),
            ["claude-haiku-4-5", "nova"]
        );
    }

    #[test]
    fn a_pools_model_is_described_by_its_name() {
        for (name, shown, day) in [
            (
                "claude-sonnet-4-5-20250929",
                "Claude Sonnet 4.5",
                "2025-09-29T00:00:00Z",
            ),
            (
                "claude-3-5-haiku-20241022",
                "Claude 3.5 Haiku",
                "2024-10-22T00:00:00Z",
            ),
            ("claude-opus-4-8", "Claude Opus 4.8", NO_DATE),
            ("nova-lite", "nova-lite", NO_DATE),
            ("claude-x-99999999", "Claude X 99999999", NO_DATE),
        ] {
            let json = Listed::of_pool(name).unwrap().into_json();
            let json: Value = serde_json::from_slice(&json).unwrap();
            assert_eq!(
                json,
                json!({"type": "model", "id": name, "display_name": shown, "created_at": day})
            );
        }
    }

    #[test]
    fn pages_follow_the_cursors_in_both_directions() {
        let models = listed(&["a", "b", "c", "d", "e"]);
        for (query, expected, more) in [
            ("", &["a", "b", "c", "d", "e"][..], false),
            ("limit=2", &["a", "b"], true),
            ("limit=2&after_id=b", &["c", "d"], true),
            ("limit=2&after_id=d", &["e"], false),
            ("after_id=e", &[], false),
            ("limit=2&before_id=e", &["c", "d"], true),
            ("limit=9&before_id=c", &["a", "b"], false),
            ("before_id=a", &[], false),
            (
                "beta=true&limit=1000&after_id=",
                &["a", "b", "c", "d", "e"],
                false,
            ),
        ] {
            let page = Window::parse(query).unwrap().render(&models).unwrap();
            let page: Value = serde_json::from_slice(&page).unwrap();
            let got: Vec<&str> = page["data"]
                .as_array()
                .unwrap()
                .iter()
                .map(|model| model["id"].as_str().unwrap())
                .collect();
            assert_eq!(got, expected, "{query}");
            assert_eq!(page["has_more"], more, "{query}");
            assert_eq!(page["first_id"], json!(expected.first()), "{query}");
            assert_eq!(page["last_id"], json!(expected.last()), "{query}");
        }
    }

    #[test]
    fn wrong_cursors_and_limits_are_named() {
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("limit=x", "limit"),
            ("after_id=a&before_id=b", "after_id"),
        ] {
            let refusal = Window::parse(query).unwrap_err();
            assert!(refusal.message.starts_with(field), "{query}");
        }
        let refusal = Window::parse("before_id=z")
            .unwrap()
            .render(&listed(&["a"]))
            .unwrap_err();
        assert_eq!(
            (refusal.status.as_u16(), refusal.message.as_ref()),
            (400, "before_id: no such model")
        );
    }

    #[test]
    fn the_plan_is_asked_for_all_it_has() {
        assert_eq!(plan_query("", None), "limit=1000");
        assert_eq!(
            plan_query("beta=true&limit=5&before_id=x", Some("a&b")),
            "beta=true&limit=1000&after_id=a%26b"
        );
    }
}
