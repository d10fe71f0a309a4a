//! The programs that stories are about, and how they are run.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::LIMIT;

/// A program of this workspace, where cargo puts it beside the tests.
pub fn own(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let program = tests.ancestors().nth(2).unwrap().join(name);
    assert!(
        program.exists(),
        "{} is not built: run `hack/test.sh clients`",
        program.display()
    );
    program
}

/// What `hack/test.sh clients` says of where it put a client.
pub fn brought(variable: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(
        || panic!("{variable} is not set: run `hack/test.sh clients`"),
        PathBuf::from,
    )
}

/// A client that talks to this machine only.
pub fn http() -> reqwest::Client {
    // Already installed where another story of this process came first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}

/// What a program wrote.
#[derive(Debug)]
pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    /// For whoever reads why a story failed.
    #[expect(dead_code, reason = "shown with the rest")]
    pub stderr: String,
}

/// Runs a program to its end; it is killed when it takes longer than `limit`.
pub async fn run(command: &mut Command, limit: Duration) -> Output {
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap_or_else(|error| panic!("{:?}: {error}", command.as_std()));
    let output = timeout(limit, child.wait_with_output()).await;
    let output = output
        .unwrap_or_else(|_| panic!("{:?} took longer than {limit:?}", command.as_std()))
        .unwrap();
    Output {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Runs a program that must succeed.
pub async fn succeed(command: &mut Command) -> Output {
    let output = run(command, LIMIT).await;
    assert_eq!(output.code, Some(0), "{:?}: {output:?}", command.as_std());
    output
}

/// A running `spillway-proxy`. Dropping it kills it.
pub struct Proxy {
    process: Child,
    admin: SocketAddr,
    log: PathBuf,
}

impl Proxy {
    /// Starts it with these variables and waits until it is ready.
    pub async fn start(environment: &[(&str, String)], admin: SocketAddr, dir: &Path) -> Self {
        let log = dir.join("proxy.log");
        let output = File::create(&log).unwrap();
        let process = Command::new(own("spillway-proxy"))
            .env_clear()
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .env("PROXY_ADMIN_ADDR", admin.to_string())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut proxy = Self {
            process,
            admin,
            log,
        };
        timeout(LIMIT, proxy.ready())
            .await
            .unwrap_or_else(|_| panic!("the proxy is not ready: {}", proxy.log()));
        proxy
    }

    async fn ready(&mut self) {
        let url = format!("http://{}/readyz", self.admin);
        while !http()
            .get(&url)
            .send()
            .await
            .is_ok_and(|answer| answer.status() == 200)
        {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the proxy ended with {status}: {}", self.log());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}
