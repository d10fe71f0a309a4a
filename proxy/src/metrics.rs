//! What `/metrics` shows. Labels are bounded: never a key, an email, a model name a client made up, or an error text.

use std::time::Instant;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    CounterVec, Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};
use spillway_core::domain::pricing::table_name;

use crate::routing::OpenCircuit;

/// Every metric of the proxy. Cheap to share: wrap it in an `Arc`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Answered requests by `route`, `code` (of the response) and `provider` (`plan`, `bedrock`, `none`).
    pub requests: IntCounterVec,
    /// Seconds from receipt to the end of the answer, by `route` and `provider`.
    pub duration: HistogramVec,
    /// Seconds from receipt to the first content that left for the client, by `provider`.
    pub time_to_first_token: HistogramVec,
    /// Seconds from receipt to the first request sent upstream: the proxy's own work.
    pub overhead: Histogram,
    /// Tokens by `kind` (`input`, `output`, `cache_read`, `cache_creation`) and `provider`.
    pub tokens: IntCounterVec,
    /// US dollars by `provider`.
    pub cost: CounterVec,
    /// Calls that Bedrock was asked to serve instead of Plan, by `reason`.
    pub fallbacks: IntCounterVec,
    /// Open circuits by `credential` (row id) and `model` (one of the price table, else `other`; `all` for a
    /// credential as such): 2 while open, 1 while half-open, absent when closed.
    pub circuit_state: IntGaugeVec,
    /// Requests refused before an upstream was asked, by `reason`.
    pub refused: IntCounterVec,
    /// Usage records in the spool, open and closed.
    pub spool_records: IntGauge,
    /// Usage records that the spool may hold.
    pub spool_capacity: IntGauge,
    /// 1 while the spool takes no new records: it is full or its disk fails.
    pub spool_blocked: IntGauge,
    /// Usage rows written to Postgres.
    pub usage_rows: IntCounter,
    /// Usage rows that Postgres never accepts and that were moved to `usage_rejects`.
    pub usage_rejects: IntCounter,
    /// Batches that could not be written because Postgres did not answer.
    pub flush_failures: IntCounter,
    /// Living keys in memory.
    pub directory_keys: IntGauge,
    /// 1 while the listener proves that the keys in memory are current.
    pub directory_current: IntGauge,
    /// Loads of keys and configuration by `result` (`installed`, `superseded`, `failed`).
    pub directory_loads: IntCounterVec,
    /// Credentials in memory that could not be decrypted.
    pub directory_unreadable_credentials: IntGauge,
    /// Bytes of request bodies held in memory.
    pub body_bytes: IntGauge,
}

/// From half a millisecond (a refusal) to the ten minutes a long answer takes.
const DURATION_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0, 120.0, 300.0, 600.0,
];
/// The proxy's own work: tens of microseconds when all is well.
const OVERHEAD_BUCKETS: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.00075, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5,
    1.0, 5.0,
];

impl Metrics {
    /// Makes and registers them all.
    ///
    /// # Errors
    /// Two metrics have one name: a mistake in this file.
    #[expect(clippy::too_many_lines, reason = "one entry for each metric")]
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(ProcessCollector::for_self()))?;
        let r = &registry;
        Ok(Self {
            requests: counters(
                r,
                "spillway_requests_total",
                "answered requests",
                &["route", "code", "provider"],
            )?,
            duration: histograms(
                r,
                "spillway_request_duration_seconds",
                "from receipt to the end of the answer",
                DURATION_BUCKETS,
                &["route", "provider"],
            )?,
            time_to_first_token: histograms(
                r,
                "spillway_time_to_first_token_seconds",
                "from receipt to the first content that left for the client",
                DURATION_BUCKETS,
                &["provider"],
            )?,
            overhead: registered(
                r,
                Histogram::with_opts(
                    HistogramOpts::new(
                        "spillway_overhead_seconds",
                        "from receipt to the first request sent upstream",
                    )
                    .buckets(OVERHEAD_BUCKETS.to_vec()),
                )?,
            )?,
            tokens: counters(
                r,
                "spillway_tokens_total",
                "tokens by kind",
                &["kind", "provider"],
            )?,
            cost: registered(
                r,
                CounterVec::new(
                    Opts::new("spillway_cost_usd_total", "cost in US dollars"),
                    &["provider"],
                )?,
            )?,
            fallbacks: counters(
                r,
                "spillway_fallbacks_total",
                "calls that Bedrock was asked to serve",
                &["reason"],
            )?,
            circuit_state: registered(
                r,
                IntGaugeVec::new(
                    Opts::new(
                        "spillway_circuit_state",
                        "2 while open, 1 while half-open, absent when closed",
                    ),
                    &["credential", "model"],
                )?,
            )?,
            refused: counters(
                r,
                "spillway_refused_total",
                "requests refused before an upstream was asked",
                &["reason"],
            )?,
            spool_records: gauge(r, "spillway_spool_records", "usage records in the spool")?,
            spool_capacity: gauge(
                r,
                "spillway_spool_capacity_records",
                "usage records that the spool may hold",
            )?,
            spool_blocked: gauge(
                r,
                "spillway_spool_blocked",
                "1 while the spool takes no new records",
            )?,
            usage_rows: counter(
                r,
                "spillway_usage_rows_total",
                "usage rows written to Postgres",
            )?,
            usage_rejects: counter(
                r,
                "spillway_usage_rejects_total",
                "usage rows that Postgres never accepts",
            )?,
            flush_failures: counter(
                r,
                "spillway_flush_failures_total",
                "usage batches that Postgres did not take",
            )?,
            directory_keys: gauge(r, "spillway_directory_keys", "living keys in memory")?,
            directory_current: gauge(
                r,
                "spillway_directory_current",
                "1 while the keys in memory are proven current",
            )?,
            directory_loads: counters(
                r,
                "spillway_directory_loads_total",
                "loads of keys and configuration",
                &["result"],
            )?,
            directory_unreadable_credentials: gauge(
                r,
                "spillway_directory_unreadable_credentials",
                "credentials that could not be decrypted",
            )?,
            body_bytes: gauge(
                r,
                "spillway_body_bytes",
                "bytes of request bodies held in memory",
            )?,
            registry,
        })
    }

    /// Shows these circuits and no others.
    pub fn show_circuits(&self, open: &[OpenCircuit]) {
        self.circuit_state.reset();
        let now = Instant::now();
        for circuit in open {
            let model = match circuit.model.as_deref() {
                None => "all",
                Some(model) => table_name(model).unwrap_or("other"),
            };
            let gauge = self
                .circuit_state
                .with_label_values(&[&circuit.credential.to_string(), model]);
            // Several models may go by one name.
            gauge.set(gauge.get().max(if now < circuit.until { 2 } else { 1 }));
        }
    }

    /// Everything in Prometheus' text format.
    ///
    /// # Errors
    /// A metric could not be encoded.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut out = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

fn registered<C: prometheus::core::Collector + Clone + 'static>(
    registry: &Registry,
    metric: C,
) -> Result<C, prometheus::Error> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    registered(registry, IntCounter::new(name, help)?)
}

fn counters(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    registered(registry, IntCounterVec::new(Opts::new(name, help), labels)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    registered(registry, IntGauge::new(name, help)?)
}

fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    buckets: &[f64],
    labels: &[&str],
) -> Result<HistogramVec, prometheus::Error> {
    registered(
        registry,
        HistogramVec::new(
            HistogramOpts::new(name, help).buckets(buckets.to_vec()),
            labels,
        )?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circuit_is_shown_under_the_tables_name_of_its_model() {
        let metrics = Metrics::new().unwrap();
        let now = Instant::now();
        let open: Vec<_> = [
            (Some("made-up-claude-opus-4-5-vfirst"), 60),
            (Some("nonsense"), 60),
            (Some("more nonsense"), 0),
            (None, 0),
        ]
        .into_iter()
        .map(|(model, seconds)| OpenCircuit {
            credential: uuid::Uuid::nil(),
            model: model.map(str::to_owned),
            since: now,
            until: now + std::time::Duration::from_secs(seconds),
        })
        .collect();
        metrics.show_circuits(&open);
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        for (model, state) in [("claude-opus-4-5", 2), ("other", 2), ("all", 1)] {
            assert!(
                text.contains(&format!("model=\"{model}\"}} {state}")),
                "{text}"
            );
        }
        assert!(!text.contains("made-up") && !text.contains("nonsense"));
    }

    #[test]
    fn names_are_unique_and_rendered() {
        let metrics = Metrics::new().unwrap();
        metrics
            .requests
            .with_label_values(&["messages", "200", "plan"])
            .inc();
        let text = String::from_utf8(metrics.render().unwrap()).unwrap();
        assert!(
            text.contains(
                r#"spillway_requests_total{code="200",provider="plan",route="messages"} 1"#
            ),
            "{text}"
        );
        assert!(text.contains("process_resident_memory_bytes"), "{text}");
    }
}
