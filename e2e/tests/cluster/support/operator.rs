//! The operator's replicas, and which of them leads.

use chrono::{DateTime, TimeDelta, Utc};
use kube::api::DeleteParams;
use serde_json::Value;

use super::objects::name;
use super::tenant::is_available;
use super::wait::eventually;
use super::world::{PLATFORM, World};

impl World {
    /// Name of the pod that holds the Lease.
    pub async fn leader(&self) -> String {
        let lease = self
            .wait("Lease", PLATFORM, "spillway", "is held", |lease| {
                !holder(lease).is_empty()
            })
            .await;
        holder(&lease).to_owned()
    }

    /// Kills the process that leads, which can release nothing, and gives the time until another one leads.
    pub async fn kill_leader(&self) -> TimeDelta {
        let former = self.get("Lease", PLATFORM, "spillway").await;
        let pod = self.get("Pod", PLATFORM, holder(&former)).await;
        self.kill(&pod).await;
        let identity = |lease: &Value| lease["spec"]["holderIdentity"].clone();
        let is_another =
            |lease: &Value| !holder(lease).is_empty() && identity(lease) != identity(&former);
        let lease = self
            .wait(
                "Lease",
                PLATFORM,
                "spillway",
                "is held by another",
                is_another,
            )
            .await;
        let restarted = self.restarted(&pod).await;
        let ended = &restarted["status"]["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!(ended["exitCode"], 137, "it was killed");
        time(&lease["spec"]["acquireTime"]) - time(&ended["finishedAt"])
    }

    /// Pods of the operator.
    pub async fn operator_pods(&self) -> Vec<Value> {
        self.list(
            "Pod",
            PLATFORM,
            "app.kubernetes.io/instance=spillway,app.kubernetes.io/component=operator",
        )
        .await
    }

    /// Replaces every replica by a new one, and gives the name of the one that leads and has its database.
    pub async fn restart_operator(&self) -> String {
        let former = self.operator_pods().await;
        for pod in &former {
            self.delete("Pod", PLATFORM, name(pod), &DeleteParams::default())
                .await;
        }
        for pod in &former {
            self.gone("Pod", PLATFORM, name(pod)).await;
        }
        self.wait(
            "Deployment",
            PLATFORM,
            "spillway",
            "is available",
            is_available,
        )
        .await;
        eventually("a new replica leads", async || {
            let leader = self.leader().await;
            let is_new = former.iter().all(|pod| name(pod) != leader);
            let leads = is_new
                && metric(
                    &self.metrics(&leader).await,
                    "spillway_operator_database_up",
                ) > 0.0;
            if leads {
                Ok(leader)
            } else {
                Err(format!("{leader} holds the lease"))
            }
        })
        .await
    }

    /// What `/metrics` of a pod in the platform's namespace shows; empty where it does not answer.
    pub async fn metrics(&self, pod: &str) -> String {
        let Some(pod) = self.find("Pod", PLATFORM, pod).await else {
            return String::new();
        };
        let url = format!(
            "http://{}:9090/metrics",
            pod["status"]["podIP"].as_str().unwrap_or_default()
        );
        match self.http.get(url).send().await {
            Ok(response) => response.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }
}

fn time(text: &Value) -> DateTime<Utc> {
    text.as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("{text} is no time"))
}

/// The pod that holds a Lease; the identity names the process behind a `_`.
fn holder(lease: &Value) -> &str {
    let identity = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    identity.split('_').next().unwrap_or_default()
}

/// The value of a series that begins with `series`; 0 where there is none.
pub fn metric(metrics: &str, series: &str) -> f64 {
    let line = metrics
        .lines()
        .find(|line| line.starts_with(series) && !line.starts_with('#'));
    line.and_then(|line| line.rsplit(' ').next())
        .and_then(|value| value.parse().ok())
        .unwrap_or_default()
}
