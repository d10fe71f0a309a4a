//! Which model of Bedrock, through which of its APIs, stands in for the one a client names.

use std::sync::Arc;

use spillway_core::domain::models::{BedrockApi, ModelMapping};

use crate::adapter::bedrock::{Api, BedrockTarget, MAX_BODY};
use crate::call::{Call, PoolView};

/// What Bedrock can do for a call: `None` without a credential, without a model, or when the body is too large for it.
pub(super) fn bedrock_target(call: &Call) -> Option<BedrockTarget> {
    let credential = call.admission.caller.bedrock.as_ref()?;
    let (model_id, api) = bedrock_model(&call.admission.pool, &call.head.model)?;
    (call.body.len() <= MAX_BODY).then(|| BedrockTarget {
        credential: Arc::clone(credential),
        model_id: model_id.to_owned(),
        api: Api::of(model_id, api),
    })
}

/// The model id for `model`, by the first mapping that matches and names one, else the pool's default.
fn bedrock_model<'a>(pool: &'a PoolView, model: &str) -> Option<(&'a str, BedrockApi)> {
    let mapping: Option<&ModelMapping> = pool
        .models
        .iter()
        .find(|mapping| mapping.name.matches(model));
    let id = mapping
        .and_then(|mapping| mapping.bedrock_model_id.as_deref())
        .or(pool.default_model.as_deref())?;
    Some((
        id,
        mapping.map_or(BedrockApi::Auto, |mapping| mapping.bedrock_api),
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use spillway_core::domain::models::ModelPattern;
    use uuid::Uuid;

    use super::*;
    use crate::call::CircuitSettings;

    fn pool(models: &[(&str, Option<&str>, BedrockApi)], default_model: Option<&str>) -> PoolView {
        PoolView {
            id: Uuid::nil(),
            namespace: "n".into(),
            name: "p".into(),
            models: models
                .iter()
                .map(|(name, id, api)| ModelMapping {
                    name: ModelPattern::new(name).unwrap(),
                    bedrock_model_id: id.map(str::to_owned),
                    bedrock_api: *api,
                    price: None,
                })
                .collect(),
            default_model: default_model.map(str::to_owned),
            plan_url: None,
            circuit: CircuitSettings {
                failure_threshold: 3,
                failure_rate: 50,
                failure_window: Duration::from_mins(1),
                reset_timeout: Duration::from_mins(1),
            },
        }
    }

    #[test]
    fn the_first_mapping_wins_and_the_default_takes_the_rest() {
        let pool = pool(
            &[
                ("claude-haiku-4-5", Some("haiku"), BedrockApi::Auto),
                ("claude-haiku-*", Some("haikus"), BedrockApi::InvokeModel),
                ("claude-priced", None, BedrockApi::Converse),
            ],
            Some("default"),
        );
        for (model, expected) in [
            ("claude-haiku-4-5", ("haiku", BedrockApi::Auto)),
            ("claude-haiku-4-6", ("haikus", BedrockApi::InvokeModel)),
            ("claude-priced", ("default", BedrockApi::Converse)),
            ("claude-opus-5", ("default", BedrockApi::Auto)),
        ] {
            assert_eq!(bedrock_model(&pool, model), Some(expected), "{model}");
        }
        assert_eq!(bedrock_model(&self::pool(&[], None), "claude-opus-5"), None);
    }
}
