//! Figures of many rounds as one table, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

/// What one subject was measured to be in one round of one scenario.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Round {
    /// CPU time of each request, in microseconds; 0 where nobody stands between.
    pub(super) cpu_us: f64,
    /// From the request to the end of the answer, in milliseconds.
    pub(super) p50_ms: f64,
    /// The same, for the slowest of a hundred.
    pub(super) p99_ms: f64,
    /// From the request to the first byte of the answer's body, in milliseconds.
    pub(super) first_ms: f64,
    /// Between two chunks, in milliseconds.
    pub(super) gap_p50_ms: f64,
    /// The same, for the slowest of a hundred.
    pub(super) gap_p99_ms: f64,
}

/// The rounds of one scenario: nobody between, nginx, the proxy.
#[derive(Debug, Default, Serialize)]
pub(super) struct Rounds {
    pub(super) scenario: &'static str,
    pub(super) rate_per_second: u32,
    pub(super) requests_per_round: u32,
    pub(super) direct: Vec<Round>,
    pub(super) nginx: Vec<Round>,
    pub(super) spillway: Vec<Round>,
}

/// What a subject holds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(super) struct Memory {
    /// Resident bytes after the first answer.
    pub(super) idle: u64,
    /// More than that for each stream, with so many open.
    pub(super) per_stream_at_1000: u64,
    pub(super) per_stream_at_5000: u64,
}

/// Everything that was measured.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) rounds: u32,
    pub(super) scenarios: Vec<Rounds>,
    pub(super) nginx_memory: Memory,
    pub(super) spillway_memory: Memory,
    /// From the start of the process to the end of its first answer, in milliseconds.
    pub(super) nginx_first_answer_ms: Vec<f64>,
    pub(super) spillway_first_answer_ms: Vec<f64>,
}

/// The middle of `values`, or the mean of the two in the middle.
pub(super) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => 0.0,
        (length, middle) if length % 2 == 1 => sorted[middle],
        (_, middle) => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// The value that so many of a hundred are not above.
pub(super) fn percentile(sorted: &[f64], of_hundred: usize) -> f64 {
    let at = (sorted.len() * of_hundred).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

impl Report {
    /// The table, as Markdown.
    pub(super) fn table(&self) -> String {
        let mut out = String::from("| | nginx | Spillway | |\n| --- | ---: | ---: | ---: |\n");
        for rounds in &self.scenarios {
            let name = rounds.scenario;
            let of =
                |rounds: &[Round], figure: fn(&Round) -> f64| median(rounds.iter().map(figure));
            // Pairs of the same round: what the machine did meanwhile is in both.
            let ratio = median(
                rounds
                    .nginx
                    .iter()
                    .zip(&rounds.spillway)
                    .map(|(nginx, own)| own.cpu_us / nginx.cpu_us),
            );
            row(
                &mut out,
                &format!("{name}: CPU, µs"),
                of(&rounds.nginx, |r| r.cpu_us),
                of(&rounds.spillway, |r| r.cpu_us),
                &format!("{ratio:.2}x"),
            );
            let mut added = |what: &str, figure: fn(&Round) -> f64| {
                let over = |subject: &[Round]| {
                    median(
                        subject
                            .iter()
                            .zip(&rounds.direct)
                            .map(|(own, direct)| figure(own) - figure(direct)),
                    )
                };
                let between = median(
                    rounds
                        .nginx
                        .iter()
                        .zip(&rounds.spillway)
                        .map(|(nginx, own)| figure(own) - figure(nginx)),
                );
                row(
                    &mut out,
                    &format!("{name}: added {what}, ms"),
                    over(&rounds.nginx),
                    over(&rounds.spillway),
                    &format!("{between:+.3} ms"),
                );
            };
            added("time to first byte p50", |r| r.first_ms);
            if rounds.direct.iter().any(|round| round.gap_p50_ms > 0.0) {
                added("gap between chunks p50", |r| r.gap_p50_ms);
                added("gap between chunks p99", |r| r.gap_p99_ms);
            } else {
                added("latency p50", |r| r.p50_ms);
                added("latency p99", |r| r.p99_ms);
            }
        }
        let mut memory = |what: &str, unit: f64, figure: fn(&Memory) -> u64| {
            let show = |memory: &Memory| to_f64(figure(memory)) / unit;
            row(
                &mut out,
                what,
                show(&self.nginx_memory),
                show(&self.spillway_memory),
                "",
            );
        };
        memory("idle memory, MB", 1024.0 * 1024.0, |memory| memory.idle);
        memory(
            "memory for each of 1,000 open streams, KB",
            1024.0,
            |memory| memory.per_stream_at_1000,
        );
        memory(
            "memory for each of 5,000 open streams, KB",
            1024.0,
            |memory| memory.per_stream_at_5000,
        );
        row(
            &mut out,
            "start to first answer, ms",
            median(self.nginx_first_answer_ms.iter().copied()),
            median(self.spillway_first_answer_ms.iter().copied()),
            "",
        );
        out
    }
}

fn row(out: &mut String, what: &str, nginx: f64, own: f64, compared: &str) {
    let _ = writeln!(out, "| {what} | {nginx:.3} | {own:.3} | {compared} |");
}

/// Exact as long as nobody has petabytes.
#[expect(clippy::cast_precision_loss, reason = "shown with three digits")]
pub(super) fn to_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_of_sorted_values() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0]) - 2.5).abs() < f64::EPSILON);
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert!((percentile(&hundred, 99) - 99.0).abs() < f64::EPSILON);
        assert!((percentile(&[7.0], 50) - 7.0).abs() < f64::EPSILON);
    }
}
