//! The cluster and the one installation of Spillway on it that all tests share.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use parking_lot::Mutex;
use sqlx::PgPool;
use tokio::sync::OnceCell;

use super::install::{self, Images};

/// Where Spillway is installed and its pools live.
pub const PLATFORM: &str = "spillway";

/// The cluster with Spillway on it.
pub struct World {
    /// An administrator of the cluster.
    pub client: Client,
    /// The file that the client was made from.
    pub kubeconfig: PathBuf,
    /// Keeps no connection, so that every request may meet another pod of a Service.
    pub http: reqwest::Client,
    /// When the tests began.
    pub begin: DateTime<Utc>,
    /// What runs.
    pub images: Images,
    /// What must be nowhere but in its Secret: what it is, and its text.
    confidential: Mutex<Vec<(String, String)>>,
    pub(super) database: OnceCell<PgPool>,
    /// Namespaces of the tenants.
    pub tenants: Vec<&'static str>,
}

impl World {
    /// Installs Spillway for these tenants, or finds it installed by a run that was told to keep it.
    pub async fn install(tenants: &[&'static str]) -> Arc<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig =
            std::env::var_os("SPILLWAY_TEST_KUBECONFIG").or_else(|| std::env::var_os("KUBECONFIG"));
        let kubeconfig =
            PathBuf::from(kubeconfig.expect("set KUBECONFIG, or run this by hack/test.sh cluster"));
        let config = Kubeconfig::read_from(&kubeconfig).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default())
            .await
            .expect("a usable kubeconfig");
        let world = Self {
            client: Client::try_from(config).expect("a client"),
            kubeconfig,
            http: reqwest::Client::builder()
                .pool_max_idle_per_host(0)
                .no_proxy()
                .build()
                .expect("an HTTP client"),
            begin: Utc::now(),
            images: Images::from_environment(),
            confidential: Mutex::default(),
            database: OnceCell::new(),
            tenants: tenants.to_vec(),
        };
        install::install(&world).await;
        Arc::new(world)
    }

    /// Removes everything that the tests made, unless told to keep it.
    pub async fn remove(self: Arc<Self>) {
        if std::env::var_os("SPILLWAY_TEST_KEEP").is_none() {
            install::remove(&self).await;
        }
    }

    /// Remembers a text that the leak scan looks for.
    pub fn keep_secret(&self, what: impl Into<String>, text: impl Into<String>) {
        self.confidential.lock().push((what.into(), text.into()));
    }

    /// Everything that the leak scan looks for.
    pub fn confidential(&self) -> Vec<(String, String)> {
        self.confidential.lock().clone()
    }
}

/// A text nobody else has.
pub fn random() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
