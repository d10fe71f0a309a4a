//! A time without Postgres.

use serde_json::json;

use super::world::{PLATFORM, World};

const NAME: &str = "spillway-postgresql";

impl World {
    /// Stops Postgres and waits until it is gone.
    pub async fn stop_postgres(&self) {
        self.patch(
            "StatefulSet",
            PLATFORM,
            NAME,
            json!({ "spec": { "replicas": 0 } }),
        )
        .await;
        // Promptly: its data outlives a crash as well.
        self.kubectl(&[
            "delete",
            "pod",
            "-n",
            PLATFORM,
            &format!("{NAME}-0"),
            "--ignore-not-found",
            "--grace-period=0",
            "--force",
        ])
        .await;
        self.wait("StatefulSet", PLATFORM, NAME, "is stopped", |set| {
            set["status"]["replicas"].as_i64().unwrap_or_default() == 0
        })
        .await;
    }

    /// Starts Postgres and waits until it answers.
    pub async fn start_postgres(&self) {
        self.patch(
            "StatefulSet",
            PLATFORM,
            NAME,
            json!({ "spec": { "replicas": 1 } }),
        )
        .await;
        self.wait("StatefulSet", PLATFORM, NAME, "serves", |set| {
            set["status"]["availableReplicas"] == 1
        })
        .await;
    }
}
