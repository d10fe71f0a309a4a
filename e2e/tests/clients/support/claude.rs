//! The real Claude Code, without a terminal.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;

use super::programs::{Output, brought, run};
use super::world::World;

/// A task of four turns takes it about three seconds.
const LIMIT: Duration = Duration::from_secs(120);

/// A session that is yet to be started.
pub struct Claude {
    command: Command,
}

/// What a session wrote.
pub struct Told {
    pub output: Output,
    pub events: Vec<Value>,
}

impl Claude {
    /// With the key's Secret as its environment, the way a pod mounts it.
    pub fn new(world: &World) -> Self {
        Self::bare(world)
            .env("ANTHROPIC_BASE_URL", &world.secret.base_url)
            .env("ANTHROPIC_AUTH_TOKEN", &world.secret.auth_token)
    }

    /// With nothing that tells it where to ask.
    pub fn bare(world: &World) -> Self {
        let (home, work) = (world.dir.path().join("home"), work(world));
        for dir in [&home, &work] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let mut command = Command::new(brought("SPILLWAY_TEST_CLAUDE"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            // It asks nobody but the gateway.
            .env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1")
            .env("DISABLE_AUTOUPDATER", "1")
            .env("DISABLE_TELEMETRY", "1")
            // Root may use it without asking in a sandbox only.
            .env("IS_SANDBOX", "1")
            .current_dir(work)
            .args(["--output-format", "stream-json", "--verbose"])
            .arg("--dangerously-skip-permissions");
        Self { command }
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    /// Asks, and waits for the end of the session.
    pub async fn ask(mut self, prompt: &str) -> Told {
        self.command.args(["-p", prompt]);
        let output = run(&mut self.command, LIMIT).await;
        let events = output
            .stdout
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect();
        Told { output, events }
    }
}

/// Where it works.
pub fn work(world: &World) -> PathBuf {
    world.dir.path().join("work")
}

impl Told {
    /// The event that ends a session.
    pub fn result(&self) -> &Value {
        let last = self.events.iter().rfind(|event| event["type"] == "result");
        last.unwrap_or_else(|| panic!("no result: {:?}", self.output))
    }

    /// What it told its user at the end of a session that went well.
    pub fn answer(&self) -> &str {
        let result = self.result();
        assert_eq!(self.output.code, Some(0), "{:?}", self.output);
        assert_eq!(result["subtype"], "success", "{result}");
        assert_eq!(result["is_error"], false, "{result}");
        result["result"].as_str().unwrap()
    }

    /// Id of the session.
    pub fn session(&self) -> &str {
        self.result()["session_id"].as_str().unwrap()
    }

    /// How often it said that it tries again.
    pub fn retries(&self) -> usize {
        self.events
            .iter()
            .filter(|event| event["type"] == "system" && event["subtype"] == "api_retry")
            .count()
    }
}
