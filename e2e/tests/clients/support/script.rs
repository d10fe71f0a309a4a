//! The official SDKs, as the scripts in `e2e/clients` use them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::programs::{brought, run};
use super::world::World;

/// Python reads its modules for a second, and a busy machine for long.
const LIMIT: Duration = Duration::from_mins(5);

/// An SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    Python,
    TypeScript,
}

/// One task, from the user's words to the last answer.
#[derive(Debug, Deserialize)]
pub struct Run {
    /// `whole` or `streamed`.
    pub how: String,
    /// Every message as the SDK gave it.
    pub answers: Vec<Value>,
    /// What was in the file at the end.
    pub file: String,
}

/// Runs a script of `e2e/clients` and reads the JSON that it prints.
pub async fn json<T: for<'a> Deserialize<'a>>(
    world: &World,
    sdk: Sdk,
    script: &str,
    variables: &BTreeMap<&str, String>,
) -> T {
    let dir = world.dir.path().join("sdk");
    std::fs::create_dir_all(&dir).unwrap();
    let mut command = match sdk {
        Sdk::Python => {
            let mut command = Command::new(brought("SPILLWAY_TEST_PYTHON"));
            command.arg(source(&format!("{script}.py")));
            command
        }
        Sdk::TypeScript => {
            let mut command = Command::new(brought("SPILLWAY_TEST_NODE"));
            command.arg(beside_modules(&dir, &format!("{script}.mjs")));
            command
        }
    };
    let output = run(
        command
            .env_clear()
            .env("HOME", &dir)
            .env("DIR", &dir)
            .envs(variables),
        LIMIT,
    )
    .await;
    assert_eq!(output.code, Some(0), "{sdk:?} {variables:?}: {output:#?}");
    serde_json::from_str(&output.stdout).unwrap()
}

fn source(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap())
        .join("clients")
        .join(name)
}

/// Node looks for packages beside the script: a copy of it where they are linked to.
fn beside_modules(dir: &Path, name: &str) -> PathBuf {
    let (script, modules) = (dir.join(name), dir.join("node_modules"));
    std::fs::copy(source(name), &script).unwrap();
    if !modules.exists() {
        std::os::unix::fs::symlink(brought("SPILLWAY_TEST_NODE_MODULES"), &modules).unwrap();
    }
    script
}
