//! A pool's specification as the settings that proxies read.

use spillway_core::domain::models::{BedrockApi, ModelMapping, ModelPattern};
use spillway_core::domain::money::MicroUsd;
use spillway_core::domain::pool::{CircuitBreakerConfig, PoolConfig};
use spillway_core::domain::pricing::Price;
use spillway_crds::{CircuitBreaker, DurationString, Model, ModelPrice, ProxyPoolSpec};
use uuid::Uuid;

use super::super::conditions::Problem;

/// The rows that a pool refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) plan_key_id: Option<Uuid>,
    pub(super) bedrock_key_id: Option<Uuid>,
}

/// The settings of `spec`; id, namespace and name are filled in by the caller.
pub(super) fn config(spec: &ProxyPoolSpec, resolved: Resolved) -> Result<PoolConfig, Vec<Problem>> {
    let mut problems = Vec::new();
    let bedrock = spec
        .fallback
        .as_ref()
        .and_then(|fallback| fallback.bedrock.as_ref());
    let models = models(&spec.models, &mut problems);
    let circuit_breaker = spec
        .circuit_breaker
        .as_ref()
        .map(|breaker| circuit_breaker(breaker, &mut problems))
        .unwrap_or_default();
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(PoolConfig {
        id: Uuid::nil(),
        namespace: String::new(),
        name: String::new(),
        plan_api_url: spec.plan.as_ref().and_then(|plan| plan.api_url.clone()),
        plan_key_id: resolved.plan_key_id,
        fallback_enabled: spec.fallback.as_ref().map(|fallback| fallback.enabled),
        bedrock_region: bedrock.and_then(|bedrock| bedrock.region.clone()),
        bedrock_default_model: bedrock.and_then(|bedrock| bedrock.default_model.clone()),
        bedrock_key_id: resolved.bedrock_key_id,
        circuit_breaker,
        models,
    })
}

/// Exact names first, for proxies take the first mapping that matches.
fn models(models: &[Model], problems: &mut Vec<Problem>) -> Vec<ModelMapping> {
    let mut mappings: Vec<_> = models
        .iter()
        .enumerate()
        .filter_map(|(index, model)| match mapping(model) {
            Ok(mapping) => Some(mapping),
            Err((reason, message)) => {
                problems.push(Problem::accepted(
                    reason,
                    format!("spec.models[{index}] {message}"),
                ));
                None
            }
        })
        .collect();
    mappings.sort_by_key(|mapping| mapping.name.as_str().contains(['*', '?', '[', '{']));
    mappings
}

fn mapping(model: &Model) -> Result<ModelMapping, (&'static str, String)> {
    Ok(ModelMapping {
        name: ModelPattern::new(&model.name)
            .map_err(|error| ("InvalidModelPattern", format!("name: {error}")))?,
        bedrock_model_id: Some(model.bedrock_model_id.clone()),
        bedrock_api: match model.bedrock_api {
            spillway_crds::BedrockApi::Auto => BedrockApi::Auto,
            spillway_crds::BedrockApi::InvokeModel => BedrockApi::InvokeModel,
            spillway_crds::BedrockApi::Converse => BedrockApi::Converse,
        },
        price: model.price.as_ref().map(price).transpose()?,
    })
}

/// The classes that are left out follow from the input price, as in Anthropic's own price list.
fn price(price: &ModelPrice) -> Result<Price, (&'static str, String)> {
    let amount = |field: &str, text: &str| {
        text.parse::<MicroUsd>()
            .map_err(|error| ("InvalidPrice", format!("price.{field}: {error}")))
    };
    let or = |field: &str, text: Option<&String>, otherwise: MicroUsd| {
        text.map_or(Ok(otherwise), |text| amount(field, text))
    };
    let usual = Price::of(
        amount("input", &price.input)?,
        amount("output", &price.output)?,
    );
    Ok(Price {
        cache_read: or("cacheRead", price.cache_read.as_ref(), usual.cache_read)?,
        cache_write_5m: or(
            "cacheWrite5m",
            price.cache_write_5m.as_ref(),
            usual.cache_write_5m,
        )?,
        cache_write_1h: or(
            "cacheWrite1h",
            price.cache_write_1h.as_ref(),
            usual.cache_write_1h,
        )?,
        ..usual
    })
}

fn circuit_breaker(breaker: &CircuitBreaker, problems: &mut Vec<Problem>) -> CircuitBreakerConfig {
    let mut seconds = |field: &str, duration: Option<&DurationString>| {
        let parsed = duration?
            .parse()
            .map(|duration| u32::try_from(duration.as_secs()).unwrap_or(u32::MAX));
        parsed
            .map_err(|error| {
                problems.push(Problem::accepted(
                    "InvalidDuration",
                    format!("spec.circuitBreaker.{field} {error}"),
                ));
            })
            .ok()
            // Postgres keeps whole numbers of 32 bits with a sign.
            .map(|seconds| seconds.min(i32::MAX.unsigned_abs()))
    };
    CircuitBreakerConfig {
        failure_threshold: breaker
            .failure_threshold
            .and_then(|threshold| u32::try_from(threshold).ok()),
        failure_rate: breaker
            .failure_rate
            .and_then(|rate| u8::try_from(rate).ok()),
        failure_window_seconds: seconds("failureWindow", breaker.failure_window.as_ref()),
        reset_timeout_seconds: seconds("resetTimeout", breaker.reset_timeout.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn converted(spec: &Value) -> Result<PoolConfig, Vec<Problem>> {
        config(
            &serde_json::from_value(spec.clone()).unwrap(),
            Resolved::default(),
        )
    }

    #[test]
    fn what_is_left_out_is_left_to_the_environment() {
        let config = converted(&json!({})).unwrap();
        assert_eq!(
            (
                config.plan_api_url,
                config.fallback_enabled,
                config.bedrock_region
            ),
            (None, None, None)
        );
        assert_eq!(config.circuit_breaker, CircuitBreakerConfig::default());
        assert!(config.models.is_empty());
    }

    #[test]
    fn what_is_said_is_converted() {
        let config = converted(&json!({
            "plan": { "apiUrl": "https://api.anthropic.com" },
            "fallback": { "bedrock": { "region": "us-east-1", "defaultModel": "m" } },
            "circuitBreaker": { "failureThreshold": 4, "failureRate": 60, "failureWindow": "2m", "resetTimeout": "1h" },
        }))
        .unwrap();
        assert_eq!(
            config.plan_api_url.as_deref(),
            Some("https://api.anthropic.com")
        );
        assert_eq!(config.fallback_enabled, Some(true));
        assert_eq!(config.bedrock_default_model.as_deref(), Some("m"));
        let breaker = CircuitBreakerConfig {
            failure_threshold: Some(4),
            failure_rate: Some(60),
            failure_window_seconds: Some(120),
            reset_timeout_seconds: Some(3600),
        };
        assert_eq!(config.circuit_breaker, breaker);
    }

    #[test]
    fn exact_names_come_before_globs() {
        let config = converted(&json!({ "models": [
            { "name": "claude-*", "bedrockModelId": "any" },
            { "name": "claude-opus-4-8", "bedrockModelId": "opus", "bedrockApi": "Converse" },
        ] }))
        .unwrap();
        let names: Vec<_> = config
            .models
            .iter()
            .map(|model| model.name.as_str())
            .collect();
        assert_eq!(names, ["claude-opus-4-8", "claude-*"]);
        assert_eq!(config.models[0].bedrock_api, BedrockApi::Converse);
    }

    #[test]
    fn prices_are_micro_dollars_and_follow_from_input() {
        let config = converted(&json!({ "models": [
            { "name": "a", "bedrockModelId": "x", "price": { "input": "3", "output": "15.00" } },
            { "name": "b", "bedrockModelId": "x", "price": {
                "input": "3", "output": "15", "cacheRead": "0.000001", "cacheWrite5m": "1", "cacheWrite1h": "2" } },
        ] }))
        .unwrap();
        let price = config.models[0].price.unwrap();
        assert_eq!(
            (price.input, price.output),
            (MicroUsd(3_000_000), MicroUsd(15_000_000))
        );
        assert_eq!(price.cache_read, MicroUsd(300_000));
        assert_eq!(
            (price.cache_write_5m, price.cache_write_1h),
            (MicroUsd(3_750_000), MicroUsd(6_000_000))
        );
        let price = config.models[1].price.unwrap();
        assert_eq!(
            (price.cache_read, price.cache_write_5m, price.cache_write_1h),
            (MicroUsd(1), MicroUsd(1_000_000), MicroUsd(2_000_000))
        );
    }

    #[test]
    fn a_broken_glob_is_named_by_its_place() {
        let problems =
            converted(&json!({ "models": [{ "name": "claude-[", "bedrockModelId": "x" }] }))
                .unwrap_err();
        assert_eq!(problems[0].reason, "InvalidModelPattern");
        assert!(
            problems[0]
                .message
                .starts_with("spec.models[0] name: `claude-[`"),
            "{}",
            problems[0].message
        );
    }
}
