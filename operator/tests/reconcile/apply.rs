//! `spillway-operator apply`, the binary, with a real Postgres and no cluster.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use spillway_core::repository::PgPool;
use tempfile::TempDir;

use crate::support::{OperatorProcess, TestDatabase};

const PLAN_KEY: &str = "sk-ant-api03-plan-key-of-the-test";

/// A database, a file of manifests and a directory for Secrets.
struct Desk {
    database: TestDatabase,
    pool: PgPool,
    directory: TempDir,
}

/// How the command ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Desk {
    async fn new() -> Self {
        let database = TestDatabase::create().await;
        let pool = database.migrate().await;
        Self {
            database,
            pool,
            directory: tempfile::tempdir().unwrap(),
        }
    }

    async fn apply(&self, documents: &[Value]) -> Ended {
        let text: Vec<_> = documents.iter().map(Value::to_string).collect();
        self.apply_text(&text.join("\n---\n"), &[]).await
    }

    async fn apply_text(&self, text: &str, env: &[(&str, &str)]) -> Ended {
        let file = self.directory.path().join("resources.yaml");
        std::fs::write(&file, text).unwrap();
        let url = self.database.url();
        let mut all = vec![
            ("PROXY_DATABASE_URL", url.as_str()),
            ("PROXY_KEY_HASHER_SECRET", "hasher-secret-of-the-apply-test"),
            (
                "PROXY_LOCAL_ENCRYPTION_KEY",
                "0123456789abcdef0123456789abcdef",
            ),
            ("PROXY_LISTEN_ADDR", "127.0.0.1:8123"),
        ];
        all.extend(env);
        let secrets = self.directory.path().join("secrets");
        let args = [
            "apply",
            "-f",
            file.to_str().unwrap(),
            "--secrets-dir",
            secrets.to_str().unwrap(),
        ];
        let output = OperatorProcess::command(&args, &all)
            .output()
            .await
            .unwrap();
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    fn secret_file(&self, name: &str) -> PathBuf {
        self.directory
            .path()
            .join("secrets")
            .join(format!("{name}.yaml"))
    }

    fn key(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.secret_file(name)).unwrap();
        let secret: Value = serde_yaml::from_str(&text).unwrap();
        secret["stringData"]["ACCESS_KEY"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Which transaction wrote each row.
    async fn written(&self) -> Vec<String> {
        let mut written = Vec::new();
        for table in [
            "pools",
            "model_mappings",
            "plan_keys",
            "bedrock_keys",
            "users",
            "access_keys",
            "access_key_versions",
        ] {
            let rows = format!(
                "SELECT coalesce(string_agg(xmin::text, ',' ORDER BY id), '') FROM {table}"
            );
            let xmins: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows))
                .fetch_one(&self.pool)
                .await
                .unwrap();
            written.push(format!("{table} {xmins}"));
        }
        written
    }
}

fn resource(kind: &str, name: &str, spec: &Value) -> Value {
    json!({ "apiVersion": "spillway.dev/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec })
}

fn secret(name: &str, entries: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name }, "stringData": entries })
}

fn everything() -> Vec<Value> {
    vec![
        resource(
            "AccessKey",
            "k1",
            &json!({ "userRef": { "name": "alice" }, "secretName": "k1-secret" }),
        ),
        resource(
            "ProxyUser",
            "alice",
            &json!({ "email": "alice@example.com" }),
        ),
        resource(
            "ProxyPool",
            "default",
            &json!({
                "plan": { "apiKeySecretRef": { "name": "plan", "key": "API_KEY" } },
                "fallback": { "bedrock": { "region": "us-east-1", "credentialRef": { "name": "main" } } },
            }),
        ),
        resource(
            "BedrockCredential",
            "main",
            &json!({ "region": "us-east-1", "auth": { "secretRef": { "name": "aws" } } }),
        ),
        secret("plan", &json!({ "API_KEY": PLAN_KEY })),
        secret(
            "aws",
            &json!({ "AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "aws-secret-of-the-test" }),
        ),
    ]
}

#[tokio::test]
async fn a_file_is_applied_once_whatever_its_order() {
    let desk = Desk::new().await;
    let ended = desk.apply(&everything()).await;
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(
        ended.stdout.contains("AccessKey default/k1: Active"),
        "{}",
        ended.stdout
    );
    let key = desk.key("k1-secret");
    let text = std::fs::read_to_string(desk.secret_file("k1-secret")).unwrap();
    assert!(
        text.contains("ANTHROPIC_BASE_URL: http://127.0.0.1:8123\n"),
        "the proxy's address"
    );
    assert_eq!(
        std::fs::metadata(desk.secret_file("k1-secret"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );

    let written = desk.written().await;
    let again = desk.apply(&everything()).await;
    assert_eq!(again.code, Some(0), "{}", again.stderr);
    assert_eq!(
        (desk.key("k1-secret"), desk.written().await),
        (key.clone(), written)
    );
    for output in [ended.stdout, ended.stderr, again.stdout, again.stderr] {
        assert!(
            [key.as_str(), PLAN_KEY, "aws-secret-of-the-test"]
                .iter()
                .all(|secret| !output.contains(secret)),
            "{output}"
        );
    }
}

#[tokio::test]
async fn changes_take_effect_and_a_lost_file_is_a_new_version() {
    let desk = Desk::new().await;
    desk.apply(&everything()).await;
    let key = desk.key("k1-secret");
    let mut changed = everything();
    changed[0]["spec"]["disabled"] = json!(true);
    assert_eq!(desk.apply(&changed).await.code, Some(0));
    let disabled: bool = sqlx::query_scalar("SELECT disabled FROM access_keys")
        .fetch_one(&desk.pool)
        .await
        .unwrap();
    assert!(disabled && desk.key("k1-secret") == key);

    std::fs::remove_file(desk.secret_file("k1-secret")).unwrap();
    assert_eq!(desk.apply(&everything()).await.code, Some(0));
    assert_ne!(desk.key("k1-secret"), key);
    let versions: (i64, i64) =
        sqlx::query_as("SELECT count(*), count(expires_at) FROM access_key_versions")
            .fetch_one(&desk.pool)
            .await
            .unwrap();
    assert_eq!(versions, (2, 1), "the former one ends later");
}

#[tokio::test]
async fn a_malformed_file_is_refused_whole() {
    let desk = Desk::new().await;
    let mut broken = everything();
    broken[1]["spec"] = json!({ "email": "alice", "pool": "x" });
    let ended = desk.apply(&broken).await;
    assert_eq!(ended.code, Some(1));
    assert!(
        ended
            .stderr
            .contains("resources.yaml: document 2: ProxyUser default/alice: spec.pool: is unknown"),
        "{}",
        ended.stderr
    );
    assert_eq!(desk.written().await[0], "pools ", "nothing was written");
    let ended = desk.apply_text("kind: [", &[]).await;
    assert!(
        ended.code == Some(1) && ended.stderr.contains("document 1: this is no YAML"),
        "{}",
        ended.stderr
    );
}

#[tokio::test]
async fn what_cannot_be_resolved_is_named_and_the_rest_applied() {
    let desk = Desk::new().await;
    let mut documents = everything();
    documents[4] = secret("plan", &json!({ "API_KEY": "sk-ant-oat01-somebodys" }));
    documents.push(resource(
        "AccessKey",
        "k2",
        &json!({ "userRef": { "name": "nobody" }, "secretName": "k2-secret" }),
    ));
    let ended = desk.apply(&documents).await;
    assert_eq!(ended.code, Some(1));
    for words in [
        "2 of 5 resources are not ready",
        "ProxyPool default/default: OAuthTokenRefused",
        "AccessKey default/k2: UserNotFound",
    ] {
        assert!(ended.stderr.contains(words), "{}", ended.stderr);
    }
    assert!(
        !ended.stderr.contains("somebodys")
            && ended.stdout.contains("AccessKey default/k1: Active"),
        "{}",
        ended.stdout
    );
}

#[tokio::test]
async fn a_wrong_environment_is_told_before_anything_is_done() {
    let desk = Desk::new().await;
    let ended = desk
        .apply_text(
            "",
            &[
                ("PROXY_KEY_HASHER_SECRET", "short"),
                ("PROXY_DATABASE_URL", "mysql://x"),
            ],
        )
        .await;
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("PROXY_KEY_HASHER_SECRET")
            && ended.stderr.contains("PROXY_DATABASE_URL"),
        "{}",
        ended.stderr
    );

    assert_eq!(desk.apply(&everything()).await.code, Some(0));
    let text: Vec<_> = everything().iter().map(Value::to_string).collect();
    let other = [(
        "PROXY_KEY_HASHER_SECRET",
        "another-secret-under-the-same-id",
    )];
    let ended = desk.apply_text(&text.join("\n---\n"), &other).await;
    assert!(
        ended.code == Some(1) && ended.stderr.contains("secret id 0 is not the one"),
        "{}",
        ended.stderr
    );
}
