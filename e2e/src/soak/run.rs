//! The soak from its start to its verdict.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use super::faults::inject;
use super::load::{Ending, Sender};
use super::memory::{early_and_late, watch};
use super::rows::compare;
use crate::upstream::{Config, FakeUpstreams, StartError};

/// How long the proxy may take to listen, and to end.
const LIMIT: Duration = Duration::from_secs(30);
/// Growth that is none: what an allocator keeps differs from one time to the next.
const TOLERATED_PERCENT: u64 = 10;

/// What is done.
#[derive(Debug, Clone)]
pub struct Options {
    /// The proxy's program. Its environment is this process's.
    pub proxy: PathBuf,
    /// How long.
    pub duration: Duration,
    /// Requests a second.
    pub rate: u32,
    /// An access key of the pool that the environment names.
    pub access_key: String,
    /// The proxy's database.
    pub database_url: String,
    /// Where the proxy keeps its spool and its log.
    pub dir: PathBuf,
}

/// Why there is no verdict, or a bad one.
#[derive(Debug, thiserror::Error)]
pub enum SoakError {
    /// The fakes did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// A process or file could not be used.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The promise does not hold.
    #[error("{0}")]
    Broken(String),
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs the soak and returns its report.
///
/// # Errors
/// Memory grew, a usage row is missing or there twice, a request ended as no fault explains, or nothing could be measured.
pub async fn run(options: &Options) -> Result<String, SoakError> {
    let fakes = FakeUpstreams::start_with(Config {
        journal_bytes: 0,
        ..Config::default()
    })
    .await?;
    let (mut proxy, address) = start(options, &fakes).await?;
    let sender = Sender::new(&format!(
        "http://{address}/ak/{}/v1/messages",
        options.access_key
    ));
    let mut samples = Vec::new();
    tokio::select! {
        () = sender.run(options.rate, options.duration) => {}
        () = inject(&fakes, &options.database_url) => {}
        error = watch(proxy.0.id(), &mut samples) => return Err(error.into()),
    }
    let sent = sender.sent();
    let compared = compare(&options.database_url, &sent).await?;
    let (early, late) = early_and_late(&samples);
    let mut report = format!(
        "{} requests in {} minutes, {} a second\n",
        sent.len(),
        options.duration.as_secs() / 60,
        options.rate
    );
    let mut endings: BTreeMap<Ending, usize> = BTreeMap::new();
    for sent in &sent {
        *endings.entry(sent.ending.clone()).or_default() += 1;
    }
    for (ending, count) in &endings {
        let _ = writeln!(report, "  {count:>8}  {ending:?}");
    }
    let megabytes = |bytes: u64| bytes / 1024 / 1024;
    let most = samples
        .iter()
        .map(|sample| sample.bytes)
        .max()
        .unwrap_or_default();
    let _ = writeln!(
        report,
        "usage rows: {}, missing {}, twice {}\nmemory: {} MB after warming up, {} MB at the end, {} MB at most",
        compared.rows,
        compared.lost.len(),
        compared.twice.len(),
        megabytes(early),
        megabytes(late),
        megabytes(most)
    );
    let _ = writeln!(report, "memory by the minute, MB:{}", by_minute(&samples));
    stop(&mut proxy).await?;
    let verdicts = [
        (!compared.lost.is_empty(), "usage rows are missing"),
        (!compared.twice.is_empty(), "usage rows are there twice"),
        (
            endings.keys().any(|ending| !ending.is_explained()),
            "requests ended as no fault explains",
        ),
        (
            late * 100 > early * (100 + TOLERATED_PERCENT),
            "memory grows",
        ),
    ];
    match verdicts.iter().find(|(broken, _)| *broken) {
        Some((_, what)) => Err(SoakError::Broken(format!("{report}{what}"))),
        None => Ok(report),
    }
}

fn by_minute(samples: &[super::memory::Sample]) -> String {
    let mut line = String::new();
    let mut minute = 0;
    for sample in samples {
        if sample.at.as_secs() / 60 >= minute {
            let _ = write!(line, " {}", sample.bytes / 1024 / 1024);
            minute = sample.at.as_secs() / 60 + 1;
        }
    }
    line
}

async fn start(options: &Options, fakes: &FakeUpstreams) -> Result<(Proxy, SocketAddr), SoakError> {
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let (address, admin) = (free()?, free()?);
    let log = std::fs::File::create(options.dir.join("proxy.log"))?;
    let process = Command::new(&options.proxy)
        .env("PROXY_LISTEN_ADDR", address.to_string())
        .env("PROXY_ADMIN_ADDR", admin.to_string())
        .env("PROXY_PLAN_API_URL", &fakes.plan_url)
        .env(
            "PROXY_ALLOWED_UPSTREAMS",
            format!("{},{}", fakes.plan_url, fakes.bedrock_url),
        )
        .env("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", &fakes.bedrock_url)
        .env("PROXY_SPOOL_DIR", options.dir.join("spool"))
        .env("PROXY_CIRCUIT_RESET_TIMEOUT", "5")
        .env("PROXY_PLAN_FIRST_BYTE_TIMEOUT", "2")
        .env("PROXY_DRAIN_DELAY", "0")
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let mut proxy = Proxy(process);
    let until = Instant::now() + LIMIT;
    while TcpStream::connect(address).await.is_err() {
        if let Some(status) = proxy.0.try_wait()? {
            return Err(SoakError::Broken(format!("the proxy ended with {status}")));
        }
        if Instant::now() > until {
            return Err(SoakError::Broken("the proxy does not listen".to_owned()));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok((proxy, address))
}

/// Asks the proxy to end and waits for it, for its last words are worth reading in its log.
async fn stop(proxy: &mut Proxy) -> Result<(), SoakError> {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(proxy.0.id()).map_err(io::Error::other)?);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).map_err(io::Error::from)?;
    let until = Instant::now() + LIMIT;
    while Instant::now() < until {
        if let Some(status) = proxy.0.try_wait()? {
            return if status.success() {
                Ok(())
            } else {
                Err(SoakError::Broken(format!("the proxy ended with {status}")))
            };
        }
        sleep(Duration::from_millis(50)).await;
    }
    Err(SoakError::Broken("the proxy does not end".to_owned()))
}
