//! Usage records from calls and outcomes, priced. Pure.
//!
//! An open record is written in the form it must have if this process is killed: `interrupted` and `estimated`, so that the
//! next start has nothing to compute. Its estimate: the input that a body of this size is taken for, and
//! [`INTERRUPTED_OUTPUT_TOKENS`] of output or `max_tokens` where that is less, for an answer that was cut off at an unknown place.

use std::time::Duration;

use spillway_core::domain::money::MicroUsd;
use spillway_core::domain::pricing::{Price, PriceSource, price_of};
use spillway_core::domain::tokens::TokenUsage;
use spillway_core::domain::usage::{AbandonedUsage, UsageRecord, UsageStatus};

use crate::call::{CLIENT_CLOSED_REQUEST, Call, Outcome, PoolView};
use crate::stream::guessed_input;

/// Output tokens that an interrupted request is charged: about half an answer of usual length.
const INTERRUPTED_OUTPUT_TOKENS: u64 = 256;
const MAX_MODEL_CHARS: usize = 256;

/// The record of a call that is being served.
pub(super) fn opened(call: &Call) -> UsageRecord {
    let admission = &call.admission;
    let (caller, pool, head) = (&admission.caller, &admission.pool, &call.head);
    let tokens = TokenUsage {
        input: guessed_input(call.body.len()),
        output: head
            .max_tokens
            .unwrap_or(u64::MAX)
            .min(INTERRUPTED_OUTPUT_TOKENS),
        ..TokenUsage::default()
    };
    let (price, price_source) = price(pool, &head.model, None);
    UsageRecord {
        request_id: admission.request_id,
        created_at: admission.created_at,
        access_key_id: caller.access_key_id,
        user_id: caller.user_id,
        key_id: caller.key_id.clone(),
        namespace: caller.namespace.clone(),
        key_name: caller.key_name.clone(),
        user_name: caller.user_name.clone(),
        pool: format!("{}/{}", pool.namespace, pool.name),
        model: storable(&head.model),
        upstream_model: None,
        upstream_request_id: None,
        provider: None,
        is_fallback: false,
        fallback_reason: None,
        status: UsageStatus::Interrupted,
        http_status: CLIENT_CLOSED_REQUEST,
        stream: head.stream,
        tokens,
        cost: price.cost(&tokens),
        abandoned: None,
        price_source,
        estimated: true,
        latency_ms: 0,
        ttft_ms: None,
        session_id: head.session_id.clone(),
        agent_id: head.agent_id.clone(),
    }
}

/// The final form of an opened record.
pub(super) fn closed(opened: UsageRecord, outcome: Outcome, pool: &PoolView) -> UsageRecord {
    let (price, price_source) = price(pool, &opened.model, outcome.upstream_model.as_deref());
    let abandoned = outcome.abandoned.map(|attempt| {
        let (price, _) = self::price(pool, &opened.model, attempt.upstream_model.as_deref());
        AbandonedUsage {
            provider: attempt.provider,
            input_tokens: attempt
                .tokens
                .input
                .saturating_add(attempt.tokens.cache_read)
                .saturating_add(attempt.tokens.cache_creation()),
            output_tokens: attempt.tokens.output,
            cost: price.cost(&attempt.tokens),
        }
    });
    UsageRecord {
        upstream_model: outcome.upstream_model,
        upstream_request_id: outcome.upstream_request_id,
        provider: outcome.provider,
        is_fallback: outcome.is_fallback,
        fallback_reason: outcome.fallback_reason,
        status: outcome.status,
        http_status: outcome.http_status,
        tokens: outcome.tokens,
        cost: if outcome.tokens.is_zero() {
            MicroUsd::ZERO
        } else {
            price.cost(&outcome.tokens)
        },
        abandoned,
        price_source,
        estimated: outcome.estimated,
        latency_ms: millis(outcome.latency),
        ttft_ms: outcome.ttft.map(millis),
        ..opened
    }
}

/// A name as Postgres can keep it: without NUL, and not of any length that a client makes up.
fn storable(name: &str) -> String {
    name.chars()
        .take(MAX_MODEL_CHARS)
        .map(|c| {
            if c == '\0' {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        })
        .collect()
}

fn price(pool: &PoolView, model: &str, upstream_model: Option<&str>) -> (Price, PriceSource) {
    let own = pool
        .models
        .iter()
        .find(|mapping| mapping.name.matches(model))
        .and_then(|mapping| mapping.price.as_ref());
    price_of(model, upstream_model, own)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use bytes::Bytes;
    use chrono::{SubsecRound, Utc};
    use http::HeaderMap;
    use spillway_core::domain::models::{BedrockApi, ModelMapping, ModelPattern};
    use spillway_core::domain::usage::Provider;
    use uuid::Uuid;

    use super::*;
    use crate::call::{Abandoned, Admission, Caller, CircuitSettings, RequestHead};

    /// A call of 40 bytes for a model of the table.
    pub(crate) fn call() -> Call {
        Call {
            admission: Arc::new(Admission {
                request_id: Uuid::now_v7(),
                created_at: Utc::now().trunc_subsecs(6),
                caller: Arc::new(Caller {
                    key_id: "0123456789".to_owned(),
                    access_key_id: Uuid::from_u128(1),
                    user_id: Uuid::from_u128(2),
                    namespace: "team".to_owned(),
                    key_name: "laptop".to_owned(),
                    user_name: "alice".to_owned(),
                    plan: None,
                    bedrock: None,
                }),
                pool: Arc::new(pool()),
            }),
            head: RequestHead {
                model: "claude-sonnet-4-5-20250929".to_owned(),
                stream: true,
                max_tokens: Some(64_000),
                session_id: Some("s".to_owned()),
                agent_id: None,
            },
            body: Bytes::from(vec![b'x'; 40]),
            headers: HeaderMap::new(),
            query: None,
            received_at: Instant::now(),
        }
    }

    pub(crate) fn record() -> UsageRecord {
        opened(&call())
    }

    fn pool() -> PoolView {
        PoolView {
            id: Uuid::from_u128(3),
            namespace: "spillway".to_owned(),
            name: "default".to_owned(),
            models: vec![ModelMapping {
                name: ModelPattern::new("own-*").unwrap(),
                bedrock_model_id: None,
                bedrock_api: BedrockApi::Auto,
                price: Some(Price::of(MicroUsd(1_000_000), MicroUsd(2_000_000))),
            }],
            default_model: None,
            plan_url: None,
            circuit: CircuitSettings {
                failure_threshold: 3,
                failure_rate: 50,
                failure_window: Duration::from_mins(1),
                reset_timeout: Duration::from_mins(30),
            },
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            status: UsageStatus::Ok,
            http_status: 200,
            provider: Some(Provider::Plan),
            upstream_model: None,
            upstream_request_id: Some("req_up".to_owned()),
            is_fallback: false,
            fallback_reason: None,
            tokens: TokenUsage {
                input: 1_000_000,
                output: 100_000,
                ..TokenUsage::default()
            },
            estimated: false,
            abandoned: None,
            ttft: Some(Duration::from_millis(300)),
            overhead: Duration::from_micros(80),
            latency: Duration::from_millis(2_500),
        }
    }

    #[test]
    fn an_open_record_is_what_it_becomes_when_the_process_is_killed() {
        let record = record();
        assert_eq!(
            (record.status, record.estimated),
            (UsageStatus::Interrupted, true)
        );
        assert_eq!((record.tokens.input, record.tokens.output), (10, 256));
        // 10 x 3 USD and 256 x 15 USD per million.
        assert_eq!(record.cost, MicroUsd(30 + 3_840));
        assert_eq!(record.pool, "spillway/default");
    }

    #[test]
    fn an_open_records_estimate_is_bounded() {
        let mut call = call();
        call.body = Bytes::from(vec![b'x'; 20_000_000]);
        assert_eq!(opened(&call).tokens.input, 200_000);
    }

    #[test]
    fn a_closed_record_carries_the_upstreams_numbers_and_their_price() {
        let call = call();
        let record = closed(opened(&call), outcome(), &call.admission.pool);
        assert_eq!(
            (record.status, record.http_status, record.estimated),
            (UsageStatus::Ok, 200, false)
        );
        assert_eq!(
            (record.cost, record.price_source),
            (MicroUsd(4_500_000), PriceSource::Table)
        );
        assert_eq!((record.latency_ms, record.ttft_ms), (2_500, Some(300)));
        assert_eq!(
            (record.request_id, record.created_at),
            (call.admission.request_id, call.admission.created_at)
        );
    }

    #[test]
    fn the_pools_own_price_wins() {
        let mut call = call();
        call.head.model = "own-model".to_owned();
        let record = closed(opened(&call), outcome(), &call.admission.pool);
        assert_eq!(
            (record.cost, record.price_source),
            (MicroUsd(1_200_000), PriceSource::Pool)
        );
    }

    #[test]
    fn an_abandoned_attempt_is_priced_apart() {
        let call = call();
        let attempt = Abandoned {
            provider: Provider::Plan,
            upstream_model: None,
            tokens: TokenUsage {
                input: 100,
                cache_read: 1_000,
                output: 2,
                ..TokenUsage::default()
            },
        };
        let record = closed(
            opened(&call),
            Outcome {
                abandoned: Some(attempt),
                ..outcome()
            },
            &call.admission.pool,
        );
        let abandoned = record.abandoned.unwrap();
        assert_eq!(
            (
                abandoned.input_tokens,
                abandoned.output_tokens,
                abandoned.cost
            ),
            (1_100, 2, MicroUsd(300 + 300 + 30))
        );
        assert_eq!(record.cost, MicroUsd(4_500_000));
    }

    #[test]
    fn any_model_name_can_be_stored() {
        let mut call = call();
        call.head.model = format!("a\0b{}", "x".repeat(1_000));
        let model = opened(&call).model;
        assert!(model.starts_with("a\u{fffd}bx"));
        assert_eq!(model.chars().count(), 256);
    }

    #[test]
    fn nothing_used_costs_nothing() {
        let call = call();
        let record = closed(
            opened(&call),
            Outcome {
                tokens: TokenUsage::default(),
                ..outcome()
            },
            &call.admission.pool,
        );
        assert_eq!(record.cost, MicroUsd::ZERO);
    }
}
