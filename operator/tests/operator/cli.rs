//! The command line, without a cluster.

use std::path::Path;

use crate::support::{OperatorProcess, TestDatabase};

async fn output(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = OperatorProcess::command(args, env).output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn one_message_names_everything_that_is_wrong_and_the_exit_code_is_2() {
    let env = [
        ("PROXY_ADMIN_ADDR", "nowhere"),
        ("PROXY_DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("PROXY_LOG_LEVEL", "a=b=c"),
    ];
    let (code, stdout, stderr) = output(&["run", "--pool-namespaces", "Not_A_Name"], &env).await;
    assert_eq!(code, Some(2), "{stderr}");
    for name in [
        "ADMIN_ADDR",
        "DATABASE_URL",
        "LOG_LEVEL",
        "POOL_NAMESPACES",
        "IMAGE",
    ] {
        assert!(
            stderr.contains(&format!("PROXY_{name}: ")),
            "PROXY_{name} is missing in {stderr}"
        );
    }
    assert!(stdout.is_empty() && !stderr.contains("hunter2"), "{stderr}");
}

#[tokio::test]
async fn a_missing_database_url_says_what_to_give() {
    let (code, _, stderr) = output(&["migrate"], &[]).await;
    assert_eq!(code, Some(2));
    assert!(
        stderr.contains("PROXY_DATABASE_URL: is not set: give the URL of a PostgreSQL database"),
        "{stderr}"
    );
}

#[tokio::test]
async fn migrate_makes_the_schema_once() {
    let database = TestDatabase::create().await;
    let env = [("PROXY_DATABASE_URL", database.url().as_str().to_owned())];
    let env = env.each_ref().map(|(name, value)| (*name, value.as_str()));
    let (code, stdout, stderr) = output(&["migrate"], &env).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(
        stdout.starts_with("the schema was created at version "),
        "{stdout}"
    );
    let (code, stdout, _) = output(&["migrate"], &env).await;
    assert_eq!(code, Some(0));
    assert!(
        stdout.starts_with("the schema is at version ") && stdout.ends_with(" already\n"),
        "{stdout}"
    );
}

#[tokio::test]
async fn a_database_that_is_away_fails_in_seconds_without_its_password() {
    let env = [(
        "PROXY_DATABASE_URL",
        "postgres://u:hunter2@127.0.0.1:1/spillway?sslmode=disable",
    )];
    let (code, _, stderr) = output(&["migrate"], &env).await;
    assert_eq!(code, Some(1));
    assert!(
        stderr.contains("the database cannot be reached") && !stderr.contains("hunter2"),
        "{stderr}"
    );
}

#[tokio::test]
async fn crds_prints_the_committed_definitions() {
    let (code, stdout, _) = output(&["crds"], &[]).await;
    assert_eq!(code, Some(0));
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    let generated = Path::new(&package).join("../crds/generated");
    for definition in spillway_crds::definitions().unwrap() {
        let file =
            std::fs::read_to_string(generated.join(format!("{}.yaml", definition.plural))).unwrap();
        let body = file
            .lines()
            .filter(|line| !line.starts_with('#') && *line != "---")
            .collect::<Vec<_>>()
            .join("\n");
        assert!(stdout.contains(body.trim()), "{} differs", definition.kind);
    }
}

#[tokio::test]
async fn help_names_every_command_and_the_environment() {
    let (code, stdout, _) = output(&["--help"], &[]).await;
    assert_eq!(code, Some(0));
    for word in [
        "run",
        "migrate",
        "apply",
        "crds",
        "release",
        "PROXY_DATABASE_URL",
        "PROXY_KMS_KEY_ID",
        "Exit codes",
    ] {
        assert!(stdout.contains(word), "{word} is missing in {stdout}");
    }
}
