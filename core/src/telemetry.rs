//! Structured logs, the same in every binary.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Starts logging to standard error as JSON, one object a line. `level` is a level or a filter such as
/// `info,spillway_proxy=debug`; without one it is `info`.
pub fn init(level: Option<&str>) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(level.unwrap_or("info"))?;
    // A second start in one process (tests) keeps the first one's output.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .json()
        .flatten_event(true)
        .try_init();
    Ok(())
}

/// Installs the process's TLS provider. Crates disagree about the default, so each binary says it once, first thing.
pub fn install_tls_provider() {
    // An error says that one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
