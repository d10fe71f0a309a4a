//! The operator's Prometheus metrics. Labels are bounded: kinds, reasons and secrets from fixed lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use prometheus::{
    Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, TextEncoder,
};

/// All metrics of one process; cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    reconcile_duration: HistogramVec,
    reconcile_errors: IntCounterVec,
    reconcile_last_success: GaugeVec,
    leader: IntGauge,
    database_up: IntGauge,
    master_secret_age: GaugeVec,
    /// When Postgres first saw the newest master secret, by purpose; the age is computed when it is asked for.
    master_secret_created: Mutex<BTreeMap<&'static str, DateTime<Utc>>>,
    swept_rows: IntCounter,
    sweep_last_success: Gauge,
    usage_status_writes: IntCounter,
}

impl Metrics {
    /// A registry of its own with every metric in it.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        let reconcile_duration = HistogramVec::new(
            HistogramOpts::new(
                "spillway_reconcile_duration_seconds",
                "Duration of reconciliations by kind of resource.",
            )
            .buckets(vec![
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            ]),
            &["kind"],
        )?;
        let reconcile_errors = IntCounterVec::new(
            Opts::new(
                "spillway_reconcile_errors_total",
                "Failed reconciliations by kind of resource and reason.",
            ),
            &["kind", "reason"],
        )?;
        let reconcile_last_success = GaugeVec::new(
            Opts::new(
                "spillway_reconcile_last_success_timestamp_seconds",
                "When a resource of the kind was last reconciled without an error.",
            ),
            &["kind"],
        )?;
        let leader = IntGauge::new(
            "spillway_operator_leader",
            "1 while this replica leads, else 0.",
        )?;
        let database_up = IntGauge::new(
            "spillway_operator_database_up",
            "1 while the leader can write to Postgres, else 0.",
        )?;
        let master_secret_age = GaugeVec::new(
            Opts::new(
                "spillway_master_secret_age_seconds",
                "Age of the newest master secret of the purpose.",
            ),
            &["purpose"],
        )?;
        let swept_rows = IntCounter::new(
            "spillway_sweep_deleted_rows_total",
            "Rows soft-deleted because their resource was gone.",
        )?;
        let sweep_last_success = Gauge::new(
            "spillway_sweep_last_success_timestamp_seconds",
            "When the last complete sweep ended.",
        )?;
        let usage_status_writes = IntCounter::new(
            "spillway_usage_status_writes_total",
            "Status writes that carried usage.",
        )?;
        for collector in [
            Box::new(reconcile_duration.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(reconcile_errors.clone()),
            Box::new(reconcile_last_success.clone()),
            Box::new(leader.clone()),
            Box::new(database_up.clone()),
            Box::new(master_secret_age.clone()),
            Box::new(swept_rows.clone()),
            Box::new(sweep_last_success.clone()),
            Box::new(usage_status_writes.clone()),
        ] {
            registry.register(collector)?;
        }
        Ok(Self(Arc::new(Inner {
            registry,
            reconcile_duration,
            reconcile_errors,
            reconcile_last_success,
            leader,
            database_up,
            master_secret_age,
            master_secret_created: Mutex::default(),
            swept_rows,
            sweep_last_success,
            usage_status_writes,
        })))
    }

    /// One reconciliation of a resource of `kind` ended; an error carries a reason from a fixed list, never a text.
    pub fn reconciled(&self, kind: &'static str, took: Duration, result: Result<(), &'static str>) {
        self.0
            .reconcile_duration
            .with_label_values(&[kind])
            .observe(took.as_secs_f64());
        match result {
            Ok(()) => self
                .0
                .reconcile_last_success
                .with_label_values(&[kind])
                .set(now()),
            Err(reason) => self
                .0
                .reconcile_errors
                .with_label_values(&[kind, reason])
                .inc(),
        }
    }

    /// Whether this replica leads.
    pub fn leading(&self, leads: bool) {
        self.0.leader.set(leads.into());
    }

    /// Whether the leader can write to Postgres.
    pub fn database(&self, up: bool) {
        self.0.database_up.set(up.into());
    }

    /// The newest master secret of `purpose` is in use since `created`.
    pub fn master_secret(&self, purpose: &'static str, created: DateTime<Utc>) {
        self.0.master_secret_created.lock().insert(purpose, created);
    }

    /// A complete sweep soft-deleted `rows`.
    pub fn swept(&self, rows: u64) {
        self.0.swept_rows.inc_by(rows);
        self.0.sweep_last_success.set(now());
    }

    /// Usage was written to the status of one resource.
    pub fn usage_written(&self) {
        self.0.usage_status_writes.inc();
    }

    /// Everything in Prometheus' text format.
    pub fn render(&self) -> Result<String, prometheus::Error> {
        for (purpose, created) in self.0.master_secret_created.lock().iter() {
            let age = (Utc::now() - created).to_std().unwrap_or_default();
            self.0
                .master_secret_age
                .with_label_values(&[purpose])
                .set(age.as_secs_f64());
        }
        TextEncoder::new().encode_to_string(&self.0.registry.gather())
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_what_was_recorded() {
        let metrics = Metrics::new().unwrap();
        metrics.reconciled("AccessKey", Duration::from_millis(20), Ok(()));
        metrics.reconciled(
            "AccessKey",
            Duration::from_millis(20),
            Err("SecretConflict"),
        );
        metrics.leading(true);
        metrics.master_secret("hasher", Utc::now() - chrono::TimeDelta::seconds(90));
        let page = metrics.render().unwrap();
        for line in [
            "spillway_reconcile_duration_seconds_count{kind=\"AccessKey\"} 2",
            "spillway_reconcile_errors_total{kind=\"AccessKey\",reason=\"SecretConflict\"} 1",
            "spillway_operator_leader 1",
            "spillway_operator_database_up 0",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
        let age = page.lines().find_map(|l| {
            l.strip_prefix("spillway_master_secret_age_seconds{purpose=\"hasher\"} ")
        });
        let age: f64 = age.expect("the age of the secret").parse().unwrap();
        assert!((90.0..120.0).contains(&age), "{age}");
    }
}
