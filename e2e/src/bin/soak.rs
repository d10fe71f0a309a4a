//! Runs the proxy under a steady load while everything fails in turn: `make soak MINUTES=30`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use spillway_e2e::soak::{Options, run};

/// Checks that memory stays flat and that every request has its usage row. The proxy's own environment (`PROXY_DATABASE_URL`
/// and so on) is passed on to it.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The proxy's program.
    #[arg(long)]
    proxy: PathBuf,
    /// Minutes.
    #[arg(long, default_value_t = 30)]
    minutes: u64,
    /// Requests a second.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// An access key of the pool.
    #[arg(long, env = "BENCH_ACCESS_KEY", hide_env_values = true)]
    access_key: String,
    /// The proxy's database.
    #[arg(long, env = "PROXY_DATABASE_URL", hide_env_values = true)]
    database_url: String,
    /// A folder for the proxy's spool and log.
    #[arg(long)]
    dir: PathBuf,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        proxy: args.proxy,
        duration: Duration::from_secs(args.minutes * 60),
        rate: args.rate,
        access_key: args.access_key,
        database_url: args.database_url,
        dir: args.dir,
    };
    match run(&options).await {
        Ok(report) => {
            print!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
