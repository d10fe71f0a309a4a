//! The real binary as a process.

use std::net::{SocketAddr, TcpListener};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{World, eventually, kubeconfig_path};

/// A running `spillway-operator`, killed when dropped.
pub struct OperatorProcess {
    child: Child,
    admin: SocketAddr,
    log: watch::Receiver<String>,
}

impl OperatorProcess {
    /// The binary with `args`, the test cluster's kubeconfig and no `PROXY_*` but those of `env`.
    pub fn command(args: &[&str], env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_spillway-operator"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PROXY_")) {
            command.env_remove(name);
        }
        command
            .args(args)
            .env("KUBECONFIG", kubeconfig_path())
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// `spillway-operator run` for the namespace of `world` alone, unless `args` name others to watch, with further
    /// arguments and environment.
    pub fn run(world: &World, database_url: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let admin = free_address();
        let mut all = vec!["run", "--namespace", &world.namespace];
        if !args.contains(&"--watch-namespaces") {
            all.extend(["--watch-namespaces", &world.namespace]);
        }
        all.extend(["--proxy-image", "example.org/spillway-proxy:test"]);
        all.extend(args);
        let mut command = Self::command(&all, env);
        command
            .env("PROXY_DATABASE_URL", database_url)
            .env("PROXY_ADMIN_ADDR", admin.to_string());
        let mut child = command.spawn().expect("the operator starts");
        let (log, received) = watch::channel(String::new());
        let log = std::sync::Arc::new(log);
        collect(child.stdout.take().expect("its stdout"), log.clone());
        collect(child.stderr.take().expect("its stderr"), log);
        Self {
            child,
            admin,
            log: received,
        }
    }

    /// Everything it wrote so far.
    pub fn log(&self) -> String {
        self.log.borrow().clone()
    }

    /// Waits until it wrote `text`.
    pub async fn logged(&self, text: &str) {
        eventually(&format!("the log has {text:?}"), async || {
            if self.log.borrow().contains(text) {
                Ok(())
            } else {
                Err(self.log())
            }
        })
        .await;
    }

    /// Answer of its admin listener: status and body.
    pub async fn admin(&self, path: &str) -> Result<(u16, String), std::io::Error> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: operator\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        Ok((status.unwrap_or_default(), body.unwrap_or_default()))
    }

    /// The value of a metric without labels, while it answers.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let (_, page) = self.admin("/metrics").await.ok()?;
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Whether it leads, by its own word.
    pub async fn leads(&self) -> bool {
        self.metric("spillway_operator_leader").await == Some(1.0)
    }

    /// Waits until it leads and can write to Postgres.
    pub async fn ready_leader(&self) {
        eventually("the operator leads and is ready", async || {
            match self.admin("/readyz").await {
                Ok((200, body)) if body.contains("leader") => Ok(()),
                answer => Err(format!("{answer:?}\n{}", self.log())),
            }
        })
        .await;
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the operator runs")
    }

    /// Sends a signal: `TERM`, `KILL`, `STOP`, `CONT`.
    pub async fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .args(["-s", signal, &self.pid().to_string()])
            .status()
            .await;
        assert!(
            sent.is_ok_and(|status| status.success()),
            "kill -s {signal}"
        );
    }

    /// Waits for its end.
    pub async fn ended(&mut self) -> ExitStatus {
        let ended = timeout(Duration::from_mins(1), self.child.wait()).await;
        ended
            .unwrap_or_else(|_| panic!("the operator did not end:\n{}", self.log.borrow().clone()))
            .expect("its status")
    }
}

fn collect(
    output: impl tokio::io::AsyncRead + Unpin + Send + 'static,
    log: std::sync::Arc<watch::Sender<String>>,
) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.send_modify(|log| {
                log.push_str(&line);
                log.push('\n');
            });
        }
    });
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port")
}
