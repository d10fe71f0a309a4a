//! Spillway's Kubernetes operator.

use std::process::ExitCode;

use clap::Parser;
use spillway_core::telemetry;
use spillway_operator::cli::Cli;
use spillway_operator::commands;

fn main() -> ExitCode {
    let cli = Cli::parse();
    telemetry::install_tls_provider();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("spillway-operator: the runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(commands::execute(cli.command));
    // A leader that lost its Lease must not wait for anything.
    runtime.shutdown_background();
    code
}
