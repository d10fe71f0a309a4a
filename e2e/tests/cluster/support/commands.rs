//! Programs that a user would run.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::process::Command;

use super::world::World;

/// Runs a program and gives its standard output; panics with what it wrote when it fails.
pub async fn run(command: &mut Command) -> Vec<u8> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output
        .unwrap_or_else(|error| panic!("{}: {error}", command.as_std().get_program().display()));
    let written = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{:?} ended with {}:\n{written}\n{}",
        command.as_std(),
        output.status,
        String::from_utf8_lossy(&output.stdout)
    );
    output.stdout
}

impl World {
    /// `kubectl` on the tests' cluster.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        let output = run(Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments))
        .await;
        String::from_utf8_lossy(&output).into_owned()
    }

    /// `helm` on the tests' cluster.
    pub async fn helm(&self, arguments: &[&str]) -> String {
        let output = run(Command::new("helm")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments))
        .await;
        String::from_utf8_lossy(&output).into_owned()
    }
}

/// The project's root.
pub fn root() -> PathBuf {
    PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("..")
}
