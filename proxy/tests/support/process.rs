//! The proxy's real binary, as a process that tests kill, stop and read the log of.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::tenant::{ENCRYPTION_KEY, HASHER_SECRET};
use super::{free_port, within};

/// A running proxy. Dropping it kills it.
pub struct Proxy {
    process: Child,
    port: u16,
    admin_port: u16,
    log: PathBuf,
}

/// What a proxy is started with.
pub struct Settings<'a> {
    pub database_url: &'a str,
    pub plan_url: &'a str,
    pub bedrock_url: &'a str,
    pub dir: &'a Path,
    pub extra: &'a [(&'a str, &'a str)],
}

impl Proxy {
    /// Starts the binary; it may not be ready yet.
    pub fn spawn(settings: &Settings<'_>) -> Self {
        let port = free_port();
        let admin_port = std::iter::repeat_with(free_port)
            .find(|other| *other != port)
            .unwrap();
        let log = settings.dir.join("proxy.log");
        let output = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_spillway-proxy"))
            .env_clear()
            .env("PROXY_DATABASE_URL", settings.database_url)
            .env("PROXY_KEY_HASHER_SECRET", HASHER_SECRET)
            .env("PROXY_LOCAL_ENCRYPTION_KEY", ENCRYPTION_KEY)
            .env("PROXY_LISTEN_ADDR", format!("127.0.0.1:{port}"))
            .env("PROXY_ADMIN_ADDR", format!("127.0.0.1:{admin_port}"))
            .env(
                "PROXY_ALLOWED_UPSTREAMS",
                format!("{},{}", settings.plan_url, settings.bedrock_url),
            )
            .env("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", settings.bedrock_url)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("PROXY_SPOOL_DIR", settings.dir.join("spool"))
            .env("PROXY_DRAIN_DELAY", "0")
            .env("PROXY_LOG_LEVEL", "trace")
            .envs(settings.extra.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Self {
            process,
            port,
            admin_port,
            log,
        }
    }

    /// Waits until `/readyz` says yes.
    pub async fn ready(&mut self) {
        let until = Instant::now() + within();
        while self
            .admin("/readyz")
            .await
            .is_none_or(|(status, _)| status != 200)
        {
            if let Some(status) = self.process.try_wait().unwrap() {
                panic!("the proxy ended with {status}: {}", self.log());
            }
            assert!(
                Instant::now() < until,
                "the proxy is not ready: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Base URL of the public listener.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Address of the public listener.
    pub fn address(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    /// Status and text of a route of the admin listener; `None` when nobody listens.
    pub async fn admin(&self, path: &str) -> Option<(u16, String)> {
        let response = super::client()
            .get(format!("http://127.0.0.1:{}{path}", self.admin_port))
            .send()
            .await
            .ok()?;
        Some((response.status().as_u16(), response.text().await.ok()?))
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, text) = self.admin("/metrics").await?;
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// Forgets how much memory it ever used.
    pub fn reset_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.process.id()), "5").unwrap();
    }

    /// The most memory it has used since, in megabytes.
    pub fn peak_mb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap_or_else(|| panic!("the proxy is gone: {}", self.log()));
        let kilobytes: u64 = line.trim_end_matches("kB").trim().parse().unwrap();
        kilobytes / 1024
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        let sent = Command::new("kill")
            .args(["-TERM", &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + within();
        loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < until,
                "the proxy does not end: {}",
                self.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
