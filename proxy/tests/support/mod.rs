//! What the proxy's tests run on: a PostgreSQL of their own, fake upstreams, and the real binary.

// Each test file uses a part of it, and what fails here fails the test.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::doc_markdown
)]

pub mod postgres;
pub mod process;
pub mod tenant;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::{Config, FakeUpstreams};
use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tempfile::TempDir;

pub use postgres::Postgres;
pub use process::{Proxy, Settings};
pub use tenant::{MODEL, Tenant};

/// One pool with its user, a key, the upstreams and a database.
pub struct World {
    pub postgres: Postgres,
    pub fakes: FakeUpstreams,
    pub tenant: Tenant,
    pub key: AccessKeyToken,
    pub dir: TempDir,
}

impl World {
    pub async fn create() -> Self {
        Self::create_with(|_| {}).await
    }

    /// A world whose pool is told of other upstreams than the fake ones: `change` their URLs.
    pub async fn create_with(change: impl FnOnce(&mut FakeUpstreams)) -> Self {
        Self::with(Config::default(), change).await
    }

    /// A world whose upstreams are configured so.
    pub async fn with_upstreams(config: Config) -> Self {
        Self::with(config, |_| {}).await
    }

    async fn with(config: Config, change: impl FnOnce(&mut FakeUpstreams)) -> Self {
        let postgres = Postgres::start().await;
        let mut fakes = FakeUpstreams::start_with(config).await.unwrap();
        change(&mut fakes);
        let database = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy(&postgres.url())
            .unwrap();
        let tenant = Tenant::create(database, &fakes).await;
        let key = tenant.mint("laptop").await;
        Self {
            postgres,
            fakes,
            tenant,
            key,
            dir: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts a proxy that may not be ready yet.
    pub fn spawn(&self, extra: &[(&str, &str)]) -> Proxy {
        Proxy::spawn(&Settings {
            database_url: &self.postgres.url(),
            plan_url: &self.fakes.plan_url,
            bedrock_url: &self.fakes.bedrock_url,
            dir: self.dir.path(),
            extra,
        })
    }

    /// Starts a proxy and waits until it is ready.
    pub async fn start(&self) -> Proxy {
        self.start_with(&[]).await
    }

    /// As [`start`](Self::start), with these variables too.
    pub async fn start_with(&self, extra: &[(&str, &str)]) -> Proxy {
        let mut proxy = self.spawn(extra);
        proxy.ready().await;
        proxy
    }

    /// The usage rows when everything is written that will be: there is no row for what was asked before this.
    pub async fn rows_after_a_message(&self, proxy: &Proxy, count: usize) -> Vec<Row> {
        let response = send(proxy, self.key.expose(), &message("the last", false)).await;
        response.bytes().await.unwrap();
        let mut rows = self.rows(count + 1).await;
        assert_eq!(rows.len(), count + 1, "{rows:?}");
        rows.truncate(count);
        rows
    }

    /// Waits until there are `count` usage rows, and returns their request ids and statuses.
    pub async fn rows(&self, count: usize) -> Vec<Row> {
        let until = Instant::now() + within();
        loop {
            let rows = rows(&self.tenant.database).await;
            if rows.len() >= count {
                return rows;
            }
            assert!(
                Instant::now() < until,
                "{} of {count} rows: {rows:?}",
                rows.len()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A usage row.
#[derive(Debug, sqlx::FromRow)]
pub struct Row {
    pub upstream_request_id: Option<String>,
    pub model: String,
    pub upstream_model: Option<String>,
    pub is_fallback: bool,
    pub stream: bool,
    pub status: String,
    pub http_status: i32,
    pub estimated: bool,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cost_micro_usd: i64,
    pub provider: Option<String>,
    pub key_name: String,
}

async fn rows(database: &PgPool) -> Vec<Row> {
    sqlx::query_as(
        "SELECT upstream_request_id, model, upstream_model, is_fallback, stream, status, http_status::int, estimated, input_tokens, output_tokens, cost_micro_usd, provider,
         key_name FROM token_usages ORDER BY created_at",
    )
    .fetch_all(database)
    .await
    .unwrap_or_default()
}

/// How long a test waits for what must come.
pub fn within() -> Duration {
    Duration::from_secs(30)
}

/// One client for all: connections are kept.
pub fn client() -> &'static reqwest::Client {
    static CLIENT: OnceLock<()> = OnceLock::new();
    CLIENT.get_or_init(|| {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    });
    thread_local! {
        // A connection belongs to the runtime of the test that made it, and each test has a runtime of its own.
        static OWN: &'static reqwest::Client = Box::leak(Box::new(client_builder().build().unwrap()));
    }
    OWN.with(|client| *client)
}

/// A client that says what every SDK says.
pub fn client_builder() -> reqwest::ClientBuilder {
    let headers = HeaderMap::from_iter([(
        HeaderName::from_static("anthropic-version"),
        HeaderValue::from_static("2023-06-01"),
    )]);
    reqwest::Client::builder()
        .no_proxy()
        .default_headers(headers)
}

/// A messages request.
pub fn message(text: &str, stream: bool) -> Value {
    json!({"model": MODEL, "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": text}]})
}

/// Sends a messages request with `x-api-key`.
pub async fn send(proxy: &Proxy, key: &str, body: &Value) -> reqwest::Response {
    try_send(proxy, key, body).await.unwrap()
}

/// As [`send`], where the proxy may be gone.
pub async fn try_send(
    proxy: &Proxy,
    key: &str,
    body: &Value,
) -> reqwest::Result<reqwest::Response> {
    client()
        .post(format!("{}/v1/messages", proxy.url()))
        .header("x-api-key", key)
        .json(body)
        .send()
        .await
}

/// Asks again until the status is `wanted`, and says how long that took.
pub async fn until_status(proxy: &Proxy, key: &str, wanted: u16) -> (Duration, Value) {
    let began = Instant::now();
    loop {
        let response = send(proxy, key, &message("again", false)).await;
        if response.status() == wanted {
            return (began.elapsed(), response.json().await.unwrap());
        }
        assert!(
            began.elapsed() < within(),
            "still {} instead of {wanted}",
            response.status()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}
