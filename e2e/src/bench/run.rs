//! Rounds that take turns.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::client::Timing;
use super::load::{self, Connections, Load};
use super::memory::open_streams;
use super::plan::{self, Scenario};
use super::report::{Memory, Report, Round, Rounds, percentile, to_f64};
use super::subject::{Setup, Subject};
use super::{process, upstream};

/// What is measured, and with what.
#[derive(Debug, Clone)]
pub struct Options {
    /// nginx's program.
    pub nginx: PathBuf,
    /// The proxy's program.
    pub proxy: PathBuf,
    /// The core that subjects are bound to; this process and the database should be on others.
    pub core: u32,
    /// Turns that each takes in each scenario.
    pub rounds: u32,
    /// Seconds of each turn.
    pub seconds: u32,
    /// An access key of the pool that the proxy's environment names.
    pub access_key: String,
    /// Where subjects keep their files.
    pub dir: PathBuf,
    /// Scenarios to leave out all but: their names' beginnings. Empty for all, memory and starts included.
    pub only: Vec<String>,
}

/// Why there are no results.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Something could not be started, or a request failed.
    #[error("{during}: {source}")]
    Failed {
        /// What was being done.
        during: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The results could not be written as JSON.
    #[error("the results cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

fn during<T>(what: impl Into<String>, result: io::Result<T>) -> Result<T, BenchError> {
    result.map_err(|source| BenchError::Failed {
        during: what.into(),
        source,
    })
}

/// Measures and returns the table and the JSON of the results. Must run in a `LocalSet`.
///
/// # Errors
/// A subject did not start, or did not answer a request.
pub async fn run(options: &Options) -> Result<(String, String), BenchError> {
    let upstream = during("starting the upstream", upstream::start().await)?;
    let setup = Setup {
        core: options.core,
        nginx: &options.nginx,
        proxy: &options.proxy,
        upstream,
        dir: &options.dir,
    };
    let own_path = format!("/ak/{}/v1/messages", options.access_key);
    let mut report = Report {
        rounds: options.rounds,
        ..Report::default()
    };
    {
        let nginx = during(
            "starting nginx",
            Subject::nginx(&setup, &plan::first(PATH)).await,
        )?;
        let own = during(
            "starting the proxy",
            Subject::proxy(&setup, &plan::first(&own_path)).await,
        )?;
        for scenario in Scenario::ALL
            .into_iter()
            .filter(|scenario| options.wants(scenario.name()))
        {
            let measured =
                scenario_rounds(scenario, options, upstream, &nginx, &own, &own_path).await;
            report.scenarios.push(during(scenario.name(), measured)?);
        }
    }
    if options.wants("memory") {
        for _ in 0..options.rounds {
            let nginx = during(
                "starting nginx",
                Subject::nginx(&setup, &plan::first(PATH)).await,
            )?;
            report
                .nginx_first_answer_ms
                .push(millis(nginx.first_answer));
            let own = during(
                "starting the proxy",
                Subject::proxy(&setup, &plan::first(&own_path)).await,
            )?;
            report
                .spillway_first_answer_ms
                .push(millis(own.first_answer));
        }
        let nginx = during(
            "starting nginx",
            Subject::nginx(&setup, &plan::first(PATH)).await,
        )?;
        report.nginx_memory = during("open streams of nginx", memory(&nginx, PATH).await)?;
        drop(nginx);
        let own = during(
            "starting the proxy",
            Subject::proxy(&setup, &plan::first(&own_path)).await,
        )?;
        report.spillway_memory =
            during("open streams of the proxy", memory(&own, &own_path).await)?;
    }
    Ok((report.table(), serde_json::to_string_pretty(&report)?))
}

/// What clients without a proxy call.
const PATH: &str = "/v1/messages";

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.starts_with(only.as_str()))
    }
}

async fn scenario_rounds(
    scenario: Scenario,
    options: &Options,
    upstream: SocketAddr,
    nginx: &Subject,
    own: &Subject,
    own_path: &str,
) -> io::Result<Rounds> {
    let (plain, with_key) = (
        scenario.load(PATH, options.seconds),
        scenario.load(own_path, options.seconds),
    );
    let direct = Connections::new(upstream);
    let through_nginx = Connections::new(nginx.address);
    let through_own = Connections::new(own.address);
    for (connections, load) in [
        (&direct, &plain),
        (&through_nginx, &plain),
        (&through_own, &with_key),
    ] {
        let warm = Load {
            count: load.rate,
            ..load.clone()
        };
        load::run(connections, &warm).await?;
    }
    let mut rounds = Rounds {
        scenario: scenario.name(),
        rate_per_second: plain.rate,
        requests_per_round: plain.count,
        ..Rounds::default()
    };
    for number in 0..options.rounds {
        eprintln!(
            "{}: round {} of {}",
            scenario.name(),
            number + 1,
            options.rounds
        );
        rounds.direct.push(round(&direct, &plain, None).await?);
        rounds
            .nginx
            .push(round(&through_nginx, &plain, Some(nginx.pid())).await?);
        rounds
            .spillway
            .push(round(&through_own, &with_key, Some(own.pid())).await?);
    }
    Ok(rounds)
}

async fn round(connections: &Connections, load: &Load, pid: Option<u32>) -> io::Result<Round> {
    let before = pid.map(process::cpu).transpose()?;
    let timings = load::run(connections, load).await?;
    let after = pid.map(process::cpu).transpose()?;
    let used = after
        .unwrap_or_default()
        .saturating_sub(before.unwrap_or_default());
    let sorted = |figure: &dyn Fn(&Timing) -> Vec<Duration>| {
        let mut values: Vec<f64> = timings.iter().flat_map(figure).map(millis).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let whole = sorted(&|timing| vec![timing.whole]);
    let first = sorted(&|timing| vec![timing.first]);
    let gaps = sorted(&|timing| timing.gaps.clone());
    Ok(Round {
        cpu_us: used.as_secs_f64() * 1e6 / f64::from(load.count),
        p50_ms: percentile(&whole, 50),
        p99_ms: percentile(&whole, 99),
        first_ms: percentile(&first, 50),
        gap_p50_ms: percentile(&gaps, 50),
        gap_p99_ms: percentile(&gaps, 99),
    })
}

async fn memory(subject: &Subject, path: &str) -> io::Result<Memory> {
    let idle = process::resident(subject.pid())?;
    let request = plan::open_stream(path);
    let mut memory = Memory {
        idle,
        ..Memory::default()
    };
    let (first, at_1000) = open_streams(subject.address, &request, 1000, subject.pid()).await?;
    memory.per_stream_at_1000 = at_1000.saturating_sub(idle) / 1000;
    let (rest, at_5000) = open_streams(subject.address, &request, 4000, subject.pid()).await?;
    memory.per_stream_at_5000 = at_5000.saturating_sub(idle) / 5000;
    drop((first, rest));
    Ok(memory)
}

fn millis(duration: Duration) -> f64 {
    to_f64(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)) / 1e6
}
