//! The product's database, as an administrator looks into it.

use std::str::FromStr as _;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use super::tenant::Tenant;
use super::wait::eventually;
use super::world::{PLATFORM, World};

/// What a usage row says.
#[derive(Debug, Clone, sqlx::FromRow)]
pub struct UsageRow {
    pub key_name: String,
    pub user_name: String,
    pub upstream_request_id: Option<String>,
    pub provider: Option<String>,
    pub is_fallback: bool,
    pub status: String,
    pub http_status: i32,
    pub stream: bool,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cost_micro_usd: i64,
    pub estimated: bool,
}

impl World {
    /// A connection to Postgres, or to the next one after it was away.
    pub async fn database(&self) -> &PgPool {
        let connect = async || {
            let url = self
                .secret_entry(PLATFORM, "spillway-postgresql", "url")
                .await;
            let service = self.get("Service", PLATFORM, "spillway-postgresql").await;
            let address = service["spec"]["clusterIP"].as_str().expect("an address");
            let options = PgConnectOptions::from_str(&url)
                .expect("a database URL")
                .host(address);
            PgPoolOptions::new()
                .max_connections(4)
                .min_connections(0)
                .connect_lazy_with(options)
        };
        self.database.get_or_init(connect).await
    }

    /// Usage rows of a namespace since these tests began, oldest first: a former run's are kept, as history is.
    pub async fn usage(&self, namespace: &str) -> Vec<UsageRow> {
        let query = "SELECT key_name, user_name, upstream_request_id, provider, is_fallback, status, http_status, stream, input_tokens, \
                     output_tokens, cost_micro_usd, estimated FROM token_usages WHERE namespace = $1 AND created_at >= $2 ORDER BY created_at";
        let rows = sqlx::query_as(query)
            .bind(namespace)
            .bind(self.begin)
            .fetch_all(self.database().await)
            .await;
        rows.expect("usage rows can be read")
    }
}

impl Tenant {
    /// Usage rows, once there are so many.
    pub async fn usage(&self, at_least: usize) -> Vec<UsageRow> {
        eventually("usage is written", async || {
            let rows = self.world.usage(self.name).await;
            if rows.len() < at_least {
                Err(format!("{} of {at_least} rows", rows.len()))
            } else {
                Ok(rows)
            }
        })
        .await
    }
}
