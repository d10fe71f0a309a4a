//! The two that are compared, each as a process of its own on the subject's core.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::client::Connection;

/// How long a subject may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How the subjects are started.
#[derive(Debug, Clone)]
pub(super) struct Setup<'a> {
    /// The core that subjects are bound to.
    pub(super) core: u32,
    pub(super) nginx: &'a Path,
    pub(super) proxy: &'a Path,
    /// Whom both ask.
    pub(super) upstream: SocketAddr,
    /// Where a subject may keep what it likes.
    pub(super) dir: &'a Path,
}

/// A running subject. Dropping it ends it.
pub(super) struct Subject {
    process: Child,
    pub(super) address: SocketAddr,
    /// From the start of the process to the end of its first answer.
    pub(super) first_answer: Duration,
}

impl Subject {
    /// nginx as a plain reverse proxy: connections to the upstream kept open, answers passed on as they come.
    pub(super) async fn nginx(setup: &Setup<'_>, request: &[u8]) -> io::Result<Self> {
        let address = free_address()?;
        let dir = tempfile_in(setup.dir, "nginx")?;
        let config = dir.join("nginx.conf");
        std::fs::File::create(&config)?
            .write_all(nginx_config(address, setup.upstream, &dir).as_bytes())?;
        let mut command = bound(setup.core, setup.nginx);
        command
            .arg("-c")
            .arg(&config)
            .arg("-p")
            .arg(&dir)
            .arg("-e")
            .arg(dir.join("error.log"));
        Self::start(command, address, request).await
    }

    /// The proxy with everything on. Its database, secrets and pool come from this process's environment.
    pub(super) async fn proxy(setup: &Setup<'_>, request: &[u8]) -> io::Result<Self> {
        let (address, admin) = (free_address()?, free_address()?);
        let upstream = format!("http://{}", setup.upstream);
        let dir = tempfile_in(setup.dir, "spillway")?;
        let mut command = bound(setup.core, setup.proxy);
        command
            .env("PROXY_LISTEN_ADDR", address.to_string())
            .env("PROXY_ADMIN_ADDR", admin.to_string())
            .env("PROXY_PLAN_API_URL", &upstream)
            .env("PROXY_ALLOWED_UPSTREAMS", &upstream)
            .env("PROXY_SPOOL_DIR", dir.join("spool"))
            .env("PROXY_DRAIN_DELAY", "0");
        Self::start(command, address, request).await
    }

    async fn start(mut command: Command, address: SocketAddr, request: &[u8]) -> io::Result<Self> {
        let begun = Instant::now();
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
        let mut subject = Self {
            process,
            address,
            first_answer: Duration::ZERO,
        };
        loop {
            if let Ok(mut connection) = Connection::open(address).await
                && connection.exchange(request).await.is_ok()
            {
                subject.first_answer = begun.elapsed();
                return Ok(subject);
            }
            if let Some(status) = subject.process.try_wait()? {
                return Err(io::Error::other(format!("{command:?} ended with {status}")));
            }
            if begun.elapsed() > START_LIMIT {
                return Err(io::Error::other(format!("{command:?} does not answer")));
            }
            sleep(Duration::from_millis(1)).await;
        }
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `taskset` becomes the program, so that the process's id is the subject's.
fn bound(core: u32, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("--cpu-list").arg(core.to_string()).arg(program);
    command
}

fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

fn tempfile_in(dir: &Path, name: &str) -> io::Result<std::path::PathBuf> {
    let path = (0..u32::MAX)
        .map(|number| dir.join(format!("{name}-{number}")))
        .find(|path| !path.exists())
        .ok_or_else(|| io::Error::other("no free name"))?;
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

fn nginx_config(listen: SocketAddr, upstream: SocketAddr, dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "daemon off;
master_process off;
worker_processes 1;
worker_rlimit_nofile 60000;
pid {dir}/nginx.pid;
events {{ worker_connections 30000; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  client_max_body_size 32m;
  client_body_buffer_size 256k;
  keepalive_requests 1000000000;
  upstream plan {{
    server {upstream};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {listen} backlog=4096;
    location / {{
      proxy_pass http://plan;
      proxy_http_version 1.1;
      proxy_set_header Connection \"\";
      proxy_buffering off;
      proxy_read_timeout 300s;
    }}
  }}
}}
"
    )
}
