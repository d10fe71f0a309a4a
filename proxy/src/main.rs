//! The proxy's binary. Exit codes: 0 drained, 1 it could not go on, 2 the configuration is wrong.

use std::process::ExitCode;

use spillway_core::telemetry;
use spillway_proxy::config::Config;
use spillway_proxy::lifecycle::{self, RunError};

const FAILED: u8 = 1;
const MISCONFIGURED: u8 = 2;

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(MISCONFIGURED);
        }
    };
    if let Err(error) = telemetry::init(Some(&config.log_level)) {
        eprintln!("the configuration is wrong:\n  PROXY_LOG_LEVEL: {error}");
        return ExitCode::from(MISCONFIGURED);
    }
    telemetry::install_tls_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot be started: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(lifecycle::run(config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %error, "proxy cannot go on");
            eprintln!("{error}");
            ExitCode::from(if matches!(error, RunError::Mismatch(_)) {
                MISCONFIGURED
            } else {
                FAILED
            })
        }
    }
}
