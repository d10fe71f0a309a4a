//! A story's world: upstreams, database, resources as a user writes them, a proxy, and the tap in front of it.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use serde::Deserialize;
use spillway_e2e::upstream::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, Config, Exchange, FakeUpstreams, Kind, PLAN_API_KEY,
};
use tempfile::TempDir;
use tokio::process::Command;

use super::database::Database;
use super::programs::{Proxy, own, succeed};
use super::tap::Tap;

/// By which of Bedrock's APIs the pool calls its models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    InvokeModel,
    Converse,
}

/// What an AccessKey's Secret holds.
#[derive(Clone, Debug, Deserialize)]
pub struct KeySecret {
    #[serde(rename = "ACCESS_KEY")]
    pub key: String,
    #[serde(rename = "ACCESS_KEY_URL")]
    pub url_with_key: String,
    #[serde(rename = "ANTHROPIC_BASE_URL")]
    pub base_url: String,
    #[serde(rename = "ANTHROPIC_AUTH_TOKEN")]
    pub auth_token: String,
}

/// Everything that a story needs.
pub struct World {
    pub fakes: FakeUpstreams,
    pub database: Database,
    _proxy: Proxy,
    pub tap: Tap,
    pub secret: KeySecret,
    /// The client's working directory and home are in it.
    pub dir: TempDir,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "stringData")]
    data: KeySecret,
}

impl World {
    /// Everything up, with a pool that calls Bedrock by this API.
    pub async fn new(api: Api) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("spillway-story-")
            .tempdir()
            .unwrap();
        let fakes = FakeUpstreams::start_with(Config {
            foreign_signatures: false,
            ..Config::default()
        })
        .await
        .unwrap();
        let database = Database::create().await;
        let listen = free_address();
        let tap = Tap::open(listen).await;
        let upstreams = format!("{},{}", fakes.plan_url, fakes.bedrock_url);
        let environment = [
            ("PROXY_DATABASE_URL", database.url.clone()),
            (
                "PROXY_KEY_HASHER_SECRET",
                "hasher-secret-of-the-clients-stories".to_owned(),
            ),
            (
                "PROXY_LOCAL_ENCRYPTION_KEY",
                "0123456789abcdef0123456789abcdef".to_owned(),
            ),
            ("PROXY_ALLOWED_UPSTREAMS", upstreams),
            (
                "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
                fakes.bedrock_url.clone(),
            ),
            ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
            (
                "PROXY_SPOOL_DIR",
                dir.path().join("spool").display().to_string(),
            ),
            ("PROXY_DRAIN_DELAY", "0".to_owned()),
            ("PROXY_LOG_LEVEL", "debug".to_owned()),
        ];
        // What `apply` takes for the proxy's address goes into the Secret: clients come through the tap.
        let operator = |arguments: &[&str]| {
            let mut command = Command::new(own("spillway-operator"));
            command
                .args(arguments)
                .env_clear()
                .envs(environment.iter().map(|(name, value)| (name, value)))
                .env("PROXY_LISTEN_ADDR", tap.address.to_string());
            command
        };
        let (file, secrets) = (
            dir.path().join("resources.yaml"),
            dir.path().join("secrets"),
        );
        std::fs::write(&file, resources(&fakes, api)).unwrap();
        succeed(&mut operator(&["migrate"])).await;
        let (file, into) = (file.to_str().unwrap(), secrets.to_str().unwrap());
        succeed(&mut operator(&["apply", "-f", file, "--secrets-dir", into])).await;
        let secret = read_secret(&secrets.join("laptop.yaml"));
        let mut environment = environment.to_vec();
        environment.push(("PROXY_LISTEN_ADDR", listen.to_string()));
        let proxy = Proxy::start(&environment, free_address(), dir.path()).await;
        Self {
            fakes,
            database,
            _proxy: proxy,
            tap,
            secret,
            dir,
        }
    }

    /// What an upstream was asked that generates a message, oldest first.
    pub fn generated(&self, kind: Kind) -> Vec<Exchange> {
        let mut exchanges = self.fakes.journal.list(Some(kind));
        exchanges.retain(|exchange| exchange.operation.generates());
        exchanges
    }
}

/// As a platform team and one of its users would write them.
fn resources(fakes: &FakeUpstreams, api: Api) -> String {
    let plan_url = &fakes.plan_url;
    format!(
        "apiVersion: v1
kind: Secret
metadata: {{name: anthropic}}
stringData: {{key: '{PLAN_API_KEY}'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: aws}}
stringData: {{AWS_ACCESS_KEY_ID: '{AWS_ACCESS_KEY_ID}', AWS_SECRET_ACCESS_KEY: '{AWS_SECRET_ACCESS_KEY}'}}
---
apiVersion: spillway.dev/v1alpha1
kind: BedrockCredential
metadata: {{name: aws}}
spec: {{region: us-east-1, auth: {{secretRef: {{name: aws}}}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ProxyPool
metadata: {{name: default}}
spec:
  plan: {{apiUrl: '{plan_url}', apiKeySecretRef: {{name: anthropic, key: key}}}}
  fallback: {{bedrock: {{defaultModel: us.anthropic.claude-sonnet-4-6, credentialRef: {{name: aws}}}}}}
  models:
    - {{name: claude-sonnet-4-6, bedrockModelId: us.anthropic.claude-sonnet-4-6, bedrockApi: {api:?}}}
    - {{name: 'claude-opus-*', bedrockModelId: us.anthropic.claude-opus-5-5, bedrockApi: {api:?}}}
    - {{name: 'claude-*', bedrockModelId: us.anthropic.claude-sonnet-4-6, bedrockApi: {api:?}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ProxyUser
metadata: {{name: alice}}
spec: {{email: alice@example.com}}
---
apiVersion: spillway.dev/v1alpha1
kind: AccessKey
metadata: {{name: laptop}}
spec: {{userRef: {{name: alice}}, secretName: laptop}}
"
    )
}

fn read_secret(path: &Path) -> KeySecret {
    let text = std::fs::read_to_string(path).unwrap();
    serde_yaml::from_str::<Manifest>(&text).unwrap().data
}

/// An address that was free a moment ago.
fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}
