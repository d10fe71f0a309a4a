//! Opens and closes the usage records of calls.

use std::sync::Arc;
use std::time::Duration;

use spillway_core::domain::usage::{Provider, UsageRecord, UsageStatus};
use tokio_util::sync::CancellationToken;

use crate::call::{Call, Closing, Ticket};
use crate::http::error::Refusal;
use crate::http::route::Route;
use crate::metering::record;
use crate::metering::spool::{Spool, SpoolError};
use crate::metrics::Metrics;

/// Seconds after which a client may try a pod again whose spool takes nothing.
const RETRY_AFTER: u32 = 5;

/// Writes a record for every call before an upstream is asked, and its final form before the answer ends.
#[derive(Debug, Clone)]
pub struct Meter {
    spool: Arc<Spool>,
    metrics: Arc<Metrics>,
    cut: CancellationToken,
}

impl Meter {
    /// A meter that writes to `spool`. Once `cut` is cancelled, calls that are dropped were interrupted, and not left by their
    /// clients.
    pub fn new(spool: Arc<Spool>, metrics: Arc<Metrics>, cut: CancellationToken) -> Self {
        Self {
            spool,
            metrics,
            cut,
        }
    }

    /// Opens the record of `call`, which came by `route`. When this resolves, the record survives a killed process.
    ///
    /// # Errors
    /// 503: the spool is full or cannot be written, and a request that could be forgotten is not served.
    pub async fn open(&self, call: &Call, route: Route) -> Result<Ticket, Refusal> {
        let opened = record::opened(call);
        let slot = self
            .spool
            .begin(&opened)
            .await
            .map_err(|error| refusal(&error))?;
        let (spool, metrics, pool, cut) = (
            Arc::clone(&self.spool),
            Arc::clone(&self.metrics),
            Arc::clone(&call.admission.pool),
            self.cut.clone(),
        );
        Ok(Ticket::new(call.received_at, move |mut outcome| {
            if outcome.status == UsageStatus::ClientAborted && cut.is_cancelled() {
                outcome.status = UsageStatus::Interrupted;
            }
            let times = Times {
                latency: outcome.latency,
                ttft: outcome.ttft,
                overhead: outcome.overhead,
            };
            let closed = record::closed(opened, outcome, &pool);
            observe(&metrics, &closed, &times, route);
            let request_id = closed.request_id;
            spool.close(&slot, closed).unwrap_or_else(|error| {
                tracing::error!(%request_id, error = %error, "usage record cannot be closed");
                Closing::done()
            })
        }))
    }
}

struct Times {
    latency: Duration,
    ttft: Option<Duration>,
    overhead: Duration,
}

fn refusal(error: &SpoolError) -> Refusal {
    match error {
        SpoolError::Full => Refusal::unavailable(
            "spool_full",
            "Usage cannot be recorded at the moment; try again shortly",
            RETRY_AFTER,
        ),
        error => {
            tracing::error!(error = %error, "usage record cannot be opened");
            Refusal::unavailable(
                "spool_unwritable",
                "Usage cannot be recorded at the moment; try again shortly",
                RETRY_AFTER,
            )
        }
    }
}

fn observe(metrics: &Metrics, record: &UsageRecord, times: &Times, route: Route) {
    // Refusals are counted where they are made.
    if record.status == UsageStatus::Blocked {
        return;
    }
    let route = route.label();
    let provider = record.provider.map_or("none", Provider::as_str);
    let mut code = [0; 3];
    metrics
        .requests
        .with_label_values(&[route, code_text(record.http_status, &mut code), provider])
        .inc();
    metrics
        .duration
        .with_label_values(&[route, provider])
        .observe(times.latency.as_secs_f64());
    metrics.overhead.observe(times.overhead.as_secs_f64());
    if let Some(ttft) = times.ttft {
        metrics
            .time_to_first_token
            .with_label_values(&[provider])
            .observe(ttft.as_secs_f64());
    }
    let tokens = &record.tokens;
    for (kind, count) in [
        ("input", tokens.input),
        ("output", tokens.output),
        ("cache_read", tokens.cache_read),
        ("cache_creation", tokens.cache_creation()),
    ] {
        if count > 0 {
            metrics
                .tokens
                .with_label_values(&[kind, provider])
                .inc_by(count);
        }
    }
    metrics
        .cost
        .with_label_values(&[provider])
        .inc_by(usd(record.cost.0));
    if let Some(abandoned) = &record.abandoned {
        metrics
            .cost
            .with_label_values(&[abandoned.provider.as_str()])
            .inc_by(usd(abandoned.cost.0));
    }
    if let Some(reason) = record.fallback_reason {
        metrics
            .fallbacks
            .with_label_values(&[reason.as_str()])
            .inc();
    }
    tracing::debug!(
        request_id = %record.request_id,
        route,
        key_id = %record.key_id,
        status = record.status.as_str(),
        http_status = record.http_status,
        provider,
        is_fallback = record.is_fallback,
        latency_ms = record.latency_ms,
        "served"
    );
}

/// The three digits of a status code, without allocating. Anything else is `000`.
fn code_text(code: u16, buffer: &mut [u8; 3]) -> &str {
    for (at, divisor) in [100, 10, 1].into_iter().enumerate() {
        buffer[at] = b'0' + u8::try_from(code / divisor % 10).unwrap_or_default();
    }
    std::str::from_utf8(buffer).unwrap_or("000")
}

/// Micro-USD as a metric's US dollars. What is beyond a double's exactness is beyond anybody's bill.
#[allow(clippy::cast_precision_loss)]
fn usd(micros: i64) -> f64 {
    micros as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use spillway_core::domain::money::MicroUsd;
    use spillway_core::domain::usage::AbandonedUsage;

    use super::*;

    #[test]
    fn an_abandoned_attempt_costs_at_whom_it_was_made() {
        let metrics = Metrics::new().unwrap();
        let mut record = record::tests::record();
        record.provider = Some(Provider::Bedrock);
        record.cost = MicroUsd(2_000_000);
        record.abandoned = Some(AbandonedUsage {
            provider: Provider::Plan,
            input_tokens: 1,
            output_tokens: 0,
            cost: MicroUsd(1_000_000),
        });
        let times = Times {
            latency: Duration::ZERO,
            ttft: None,
            overhead: Duration::ZERO,
        };
        observe(&metrics, &record, &times, Route::Messages);
        let cost = |provider: &str| metrics.cost.with_label_values(&[provider]).get();
        assert!((cost("bedrock") - 2.0).abs() < 1e-9);
        assert!((cost("plan") - 1.0).abs() < 1e-9);
    }
}
