//! The official Anthropic Python SDK, in virtual environments that are kept between runs.

use std::path::PathBuf;

use tokio::process::Command;

use super::commands::run;

/// The interpreter of an environment with this release of the SDK, installed once from `PyPI`.
pub async fn with_sdk(release: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .expect("HOME is set");
    let environment = cache.join("spillway").join(format!("anthropic-{release}"));
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    if !complete.exists() {
        run(Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(&environment))
        .await;
        let install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
        ];
        run(Command::new(&python)
            .args(install)
            .arg(format!("anthropic=={release}")))
        .await;
        std::fs::write(&complete, "").expect("the environment is marked as complete");
    }
    python
}
