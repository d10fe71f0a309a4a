//! A database of a story's own, on the server that `DATABASE_URL` names.

use std::str::FromStr as _;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio::time::Instant;

use super::LIMIT;

/// What a usage row says.
#[derive(Debug, Clone, PartialEq, Eq, sqlx::FromRow)]
pub struct UsageRow {
    pub upstream_request_id: Option<String>,
    pub model: String,
    pub provider: Option<String>,
    pub is_fallback: bool,
    pub fallback_reason: Option<String>,
    pub status: String,
    pub http_status: i32,
    pub stream: bool,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cache_read_input_tokens: i64,
    pub cache_creation_5m_tokens: i64,
    pub cache_creation_1h_tokens: i64,
    pub cost_micro_usd: i64,
    pub estimated: bool,
    pub session_id: Option<String>,
}

/// A database.
pub struct Database {
    pub url: String,
    pool: PgPool,
}

impl Database {
    /// Makes an empty one.
    pub async fn create() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL names a PostgreSQL: run `hack/test.sh clients`");
        let name = format!("story_{}", uuid::Uuid::new_v4().simple());
        let mut connection = PgConnection::connect(&server).await.unwrap();
        let query = sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::raw_sql(query).execute(&mut connection).await.unwrap();
        let (before, options) = server.split_once('?').unwrap_or((&server, ""));
        let (host, _) = before.rsplit_once('/').unwrap();
        let url = format!("{host}/{name}?{options}");
        let options = PgConnectOptions::from_str(&url).unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(2)
            .connect_lazy_with(options);
        Self { url, pool }
    }

    /// All usage rows, oldest first, once there are as many as expected; more than those fail the story.
    pub async fn usage(&self, expected: usize) -> Vec<UsageRow> {
        let query = "SELECT upstream_request_id, model, provider, is_fallback, fallback_reason, status, http_status, stream, input_tokens, \
                     output_tokens, cache_read_input_tokens, cache_creation_5m_tokens, cache_creation_1h_tokens, cost_micro_usd, \
                     estimated, session_id FROM token_usages ORDER BY created_at";
        let until = Instant::now() + LIMIT;
        loop {
            let rows: Vec<UsageRow> = sqlx::query_as(query).fetch_all(&self.pool).await.unwrap();
            if rows.len() >= expected || Instant::now() > until {
                assert_eq!(rows.len(), expected, "usage rows: {rows:#?}");
                return rows;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
