//! A PostgreSQL of a test's own, to be stopped and started again.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::{Connection as _, PgConnection};
use tempfile::TempDir;

use super::free_port;

/// A server on a port of its own, with its data in a temporary folder. Dropping it stops it.
pub struct Postgres {
    bin: PathBuf,
    dir: TempDir,
    port: u16,
    server: Option<Child>,
}

impl Postgres {
    /// Makes and starts a server.
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("spillway-pg-")
            .tempdir()
            .unwrap();
        let mut postgres = Self {
            bin: binaries(),
            dir,
            port: free_port(),
            server: None,
        };
        if let Some((uid, gid)) = server_user() {
            std::os::unix::fs::chown(postgres.dir.path(), Some(uid), Some(gid)).unwrap();
        }
        let data = postgres.data();
        let made = postgres
            .command("initdb")
            .args([
                "-U",
                "postgres",
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--no-sync",
                "--locale=C",
                "-D",
            ])
            .arg(data)
            .output()
            .unwrap();
        assert!(
            made.status.success(),
            "{}",
            String::from_utf8_lossy(&made.stderr)
        );
        postgres.resume().await;
        postgres
    }

    /// Where it is; also while it is stopped.
    pub fn url(&self) -> String {
        format!(
            "postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// Starts it again, and waits until it answers.
    pub async fn resume(&mut self) {
        let (data, dir) = (self.data(), self.dir.path().to_owned());
        let server = self
            .command("postgres")
            .arg("-D")
            .arg(data)
            .arg("-k")
            .arg(dir)
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-c",
                "fsync=off",
                "-c",
                "max_connections=100",
            ])
            .spawn()
            .unwrap();
        self.server = Some(server);
        let until = Instant::now() + Duration::from_secs(30);
        while let Err(error) = PgConnection::connect(&self.url()).await {
            assert!(
                Instant::now() < until,
                "PostgreSQL does not answer: {error}"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops it as a crash would.
    pub fn stop(&mut self) {
        let Some(mut server) = self.server.take() else {
            return;
        };
        let data = self.data();
        let _ = self
            .command("pg_ctl")
            .args(["-m", "immediate", "-w", "stop", "-D"])
            .arg(data)
            .output();
        let _ = server.kill();
        let _ = server.wait();
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A tool of PostgreSQL, as its own user where this is root, which it refuses to run as.
    fn command(&self, tool: &str) -> Command {
        use std::os::unix::process::CommandExt as _;
        let mut command = Command::new(self.bin.join(tool));
        command
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if let Some((uid, gid)) = server_user() {
            command.uid(uid).gid(gid);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

fn binaries() -> PathBuf {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| {
            versions
                .filter_map(|entry| Some(entry.ok()?.path().join("bin")))
                .filter(|bin| bin.join("initdb").exists())
                .collect()
        })
        .unwrap_or_default();
    versions.sort();
    versions
        .pop()
        .expect("PostgreSQL's server is not installed: apt-get install postgresql")
}

fn server_user() -> Option<(u32, u32)> {
    let id = |flag: &str, user: &[&str]| -> u32 {
        let output = Command::new("id").arg(flag).args(user).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    (id("-u", &[]) == 0).then(|| (id("-u", &["postgres"]), id("-g", &["postgres"])))
}
