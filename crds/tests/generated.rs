//! The committed definitions are those that the types generate.

use std::path::Path;
use std::process::Command;

#[test]
fn committed_definitions_are_current() {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let directory = Path::new(&package).join("generated");
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen"))
        .arg("--check")
        .arg(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn a_stale_definition_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let crdgen = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_crdgen"))
            .args(arguments)
            .arg(directory.path())
            .output()
            .unwrap()
    };
    assert!(crdgen(&[]).status.success());
    assert!(crdgen(&["--check"]).status.success());
    std::fs::write(directory.path().join("accesskeys.yaml"), "stale").unwrap();
    let output = crdgen(&["--check"]);
    assert!(!output.status.success());
    let message = String::from_utf8(output.stderr).unwrap();
    assert!(
        message.contains("accesskeys.yaml") && !message.contains("proxypools.yaml"),
        "{message}"
    );
}
