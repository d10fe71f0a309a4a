//! A database per test.

use secrecy::SecretString;
use spillway_core::repository::PgPool;
use sqlx::{Connection, PgConnection};
use url::Url;

use super::in_own_runtime;

/// A database that only one test uses; dropped with it.
pub struct TestDatabase {
    url: Url,
}

impl TestDatabase {
    /// Makes an empty database on the server of `DATABASE_URL`.
    pub async fn create() -> Self {
        let name = format!("spillway_test_{}", uuid::Uuid::new_v4().simple());
        let mut server = PgConnection::connect(server_url().as_str())
            .await
            .expect("the Postgres of DATABASE_URL");
        sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE {name}")))
            .execute(&mut server)
            .await
            .expect("a fresh database");
        let mut url = server_url();
        url.set_path(&name);
        Self { url }
    }

    /// Its URL.
    pub fn url(&self) -> Url {
        self.url.clone()
    }

    /// Its URL as the operator and the proxy take it.
    pub fn secret_url(&self) -> SecretString {
        SecretString::from(self.url.as_str())
    }

    /// A pool of connections to it.
    pub async fn pool(&self) -> PgPool {
        PgPool::connect(self.url.as_str())
            .await
            .expect("a connection to the test's database")
    }

    /// Brings it to the current schema.
    pub async fn migrate(&self) -> PgPool {
        let pool = self.pool().await;
        spillway_core::repository::migrate(&pool)
            .await
            .expect("the migrations");
        pool
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let name = self.url.path().trim_start_matches('/').to_owned();
        in_own_runtime(async move {
            if let Ok(mut server) = PgConnection::connect(server_url().as_str()).await {
                let drop = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                let _ = sqlx::query(sqlx::AssertSqlSafe(drop))
                    .execute(&mut server)
                    .await;
            }
        });
    }
}

fn server_url() -> Url {
    let url = std::env::var("DATABASE_URL")
        .expect("set DATABASE_URL to a Postgres where the tests may create databases");
    Url::parse(&url).expect("DATABASE_URL is a URL")
}
