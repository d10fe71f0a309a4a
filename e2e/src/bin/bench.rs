//! Measures the proxy beside nginx: `make bench`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use spillway_e2e::bench::{Options, run};
use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Compares the proxy with nginx as a plain reverse proxy. The proxy's own environment (`PROXY_DATABASE_URL` and so on) is
/// passed on to it.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// nginx's program.
    #[arg(long, default_value = "/usr/sbin/nginx")]
    nginx: PathBuf,
    /// The proxy's program.
    #[arg(long)]
    proxy: PathBuf,
    /// The core that the measured process is bound to.
    #[arg(long, default_value_t = 0)]
    core: u32,
    /// Turns that each takes in each scenario.
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// An access key of the pool.
    #[arg(long, env = "BENCH_ACCESS_KEY", hide_env_values = true)]
    access_key: String,
    /// A folder for what the measured processes keep.
    #[arg(long)]
    dir: PathBuf,
    /// Where the results go as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Only scenarios whose name begins so (`1 KB`, `100 KB`, `stream`, `memory`).
    #[arg(long)]
    only: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let options = Options {
        nginx: args.nginx,
        proxy: args.proxy,
        core: args.core,
        rounds: args.rounds,
        seconds: args.seconds,
        access_key: args.access_key,
        dir: args.dir,
        only: args.only,
    };
    // One thread: what measures must not be what is measured.
    let measured = Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
        .and_then(|runtime| {
            LocalSet::new()
                .block_on(&runtime, run(&options))
                .map_err(|error| error.to_string())
        });
    let written = measured.and_then(|(table, json)| {
        print!("{table}");
        args.json.map_or(Ok(()), |path| {
            std::fs::write(path, json + "\n").map_err(|error| error.to_string())
        })
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
