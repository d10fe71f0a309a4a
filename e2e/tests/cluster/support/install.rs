//! Installs Spillway with helm, and removes it.

use std::io::Write as _;

use serde_json::json;

use super::commands::root;
use super::tenant::upstream_urls;
use super::world::{PLATFORM, World};

/// References of the images that run.
pub struct Images {
    operator: String,
    proxy: String,
    postgres: String,
    /// Of the fake upstreams.
    pub fake_upstream: String,
}

impl Images {
    /// As `hack/with-cluster.sh node` names them.
    pub fn from_environment() -> Self {
        let named = |name: &str| {
            let variable = format!("SPILLWAY_IMAGE_{name}");
            std::env::var(&variable).unwrap_or_else(|_| {
                panic!("{variable} names no image: run this by hack/test.sh cluster")
            })
        };
        Self {
            operator: named("OPERATOR"),
            proxy: named("PROXY"),
            postgres: named("POSTGRES"),
            fake_upstream: named("FAKE_UPSTREAM"),
        }
    }

    /// One that has a shell, for clean-up and signals.
    pub fn shell(&self) -> &str {
        &self.postgres
    }
}

/// `registry/spillway/name:tag` as values of the chart.
fn image(reference: &str) -> serde_json::Value {
    let (path, tag) = reference.rsplit_once(':').expect("a tag");
    let (registry, repository) = path.split_once('/').expect("a registry");
    json!({ "registry": registry, "repository": repository, "tag": tag })
}

pub(super) async fn install(world: &World) {
    let operator = image(&world.images.operator);
    let proxy = image(&world.images.proxy);
    let upstreams = world
        .tenants
        .iter()
        .flat_map(|tenant| upstream_urls(tenant));
    // The quickstart says nothing of upstreams, as a user of the real ones need not.
    let [plan, bedrock] = upstream_urls("team-a");
    let values = json!({
        "imageRegistry": operator["registry"],
        "operator": {
            "image": { "tag": operator["tag"] },
            "extraEnv": [
                { "name": "PROXY_PLAN_API_URL", "value": plan },
                { "name": "AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "value": bedrock },
            ],
        },
        "proxy": { "image": { "tag": proxy["tag"] } },
        "allowedUpstreams": upstreams.collect::<Vec<_>>(),
        "postgresql": { "enabled": true, "image": image(&world.images.postgres) },
        "defaultPool": { "enabled": false },
    });
    let mut file = tempfile::NamedTempFile::new().expect("a file for values");
    file.write_all(values.to_string().as_bytes())
        .expect("values are written");
    let chart = root().join("charts/spillway");
    let (chart, file) = (
        chart.to_str().expect("a path"),
        file.path().to_str().expect("a path"),
    );
    world
        .helm(&[
            "upgrade",
            "--install",
            "spillway",
            chart,
            "--namespace",
            PLATFORM,
            "--create-namespace",
            "--values",
            file,
            "--wait",
            "--timeout",
            "5m",
        ])
        .await;
}

pub(super) async fn remove(world: &World) {
    let releases = world
        .helm(&["list", "--namespace", PLATFORM, "--short"])
        .await;
    if releases.lines().any(|name| name == "spillway") {
        world
            .helm(&[
                "uninstall",
                "spillway",
                "--namespace",
                PLATFORM,
                "--wait",
                "--timeout",
                "4m",
            ])
            .await;
    }
    let definitions = [
        "proxypools",
        "proxyusers",
        "accesskeys",
        "bedrockcredentials",
    ]
    .map(|plural| format!("crd/{plural}.spillway.dev"));
    let mut arguments = vec!["delete", "--ignore-not-found", "--timeout=120s"];
    arguments.extend(definitions.iter().map(String::as_str));
    world.kubectl(&arguments).await;
    // A namespace waits half the grace period of the pods that it finds, and proxies have a long one.
    world
        .kubectl(&["delete", "deployments", "--all", "--namespace", PLATFORM])
        .await;
    world
        .kubectl(&[
            "delete",
            "pods",
            "--all",
            "--namespace",
            PLATFORM,
            "--timeout=120s",
        ])
        .await;
    let mut arguments = vec![
        "delete",
        "--ignore-not-found",
        "--timeout=120s",
        "namespace",
        PLATFORM,
    ];
    arguments.extend(&world.tenants);
    world.kubectl(&arguments).await;
}
