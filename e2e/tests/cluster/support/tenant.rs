//! A tenant: a namespace with a user, a key and credentials, a pool of its own, and upstreams of its own.

use std::sync::Arc;

use kube::api::DeleteParams;
use serde_json::Value;

use super::fakes::Fakes;
use super::objects::{decoded, name};
use super::wait::eventually;
use super::world::{PLATFORM, World, random};

/// A model that the pool maps to Bedrock.
pub const MODEL: &str = "claude-sonnet-4-5";

/// The URLs of a tenant's Plan and Bedrock.
pub fn upstream_urls(tenant: &str) -> [String; 2] {
    [8081, 8082].map(|port| format!("http://fakes.{tenant}.svc:{port}"))
}

/// Credentials that this tenant's upstreams take, and nobody else's.
pub struct Credentials {
    pub plan_key: String,
    pub aws_id: String,
    pub aws_secret: String,
}

impl Credentials {
    fn new(world: &World, tenant: &str) -> Self {
        let credentials = Self {
            plan_key: format!("sk-ant-api03-{}", random()),
            aws_id: format!("AKIA{}", random()[..16].to_uppercase()),
            aws_secret: format!("{}/+{}", &random()[..19], &random()[..19]),
        };
        world.keep_secret(format!("Plan key of {tenant}"), &credentials.plan_key);
        world.keep_secret(
            format!("AWS access key id of {tenant}"),
            &credentials.aws_id,
        );
        world.keep_secret(format!("AWS secret of {tenant}"), &credentials.aws_secret);
        credentials
    }
}

/// A key as a client has it.
#[derive(Clone)]
pub struct Key {
    /// The key.
    pub token: String,
    /// Where the pool's Service is, by its address: this machine does not ask the cluster's DNS.
    pub base: String,
}

/// A tenant.
pub struct Tenant {
    pub world: Arc<World>,
    /// Name of the namespace and of the pool.
    pub name: &'static str,
    pub fakes: Fakes,
    pub credentials: Credentials,
}

impl Tenant {
    /// Namespace, upstreams, and the Secrets that only the user has.
    pub async fn new(world: &Arc<World>, tenant: &'static str) -> Self {
        assert!(
            world.tenants.contains(&tenant),
            "{tenant} is no tenant of a test"
        );
        if world.find("Namespace", "", tenant).await.is_some() {
            remove(world, tenant).await;
        }
        let credentials = Credentials::new(world, tenant);
        let Credentials {
            plan_key,
            aws_id,
            aws_secret,
        } = &credentials;
        let image = &world.images.fake_upstream;
        world
            .apply(&format!(
                r"
apiVersion: v1
kind: Namespace
metadata: {{name: {tenant}, labels: {{spillway.dev/pool: {tenant}}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: fakes, namespace: {tenant}}}
stringData: {{FAKE_PLAN_API_KEYS: '{plan_key}', FAKE_AWS_ACCESS_KEY_ID: '{aws_id}', FAKE_AWS_SECRET_ACCESS_KEY: '{aws_secret}'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: aws, namespace: {tenant}}}
stringData: {{AWS_ACCESS_KEY_ID: '{aws_id}', AWS_SECRET_ACCESS_KEY: '{aws_secret}'}}
---
apiVersion: v1
kind: Secret
metadata: {{name: {tenant}-plan, namespace: {PLATFORM}}}
stringData: {{key: '{plan_key}'}}
---
apiVersion: v1
kind: Service
metadata: {{name: fakes, namespace: {tenant}}}
spec:
  selector: {{app: fakes}}
  ports: [{{name: plan, port: 8081}}, {{name: bedrock, port: 8082}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: fakes, namespace: {tenant}}}
spec:
  selector: {{matchLabels: {{app: fakes}}}}
  template:
    metadata: {{labels: {{app: fakes}}}}
    spec:
      containers:
        - name: fake-upstream
          image: {image}
          args: [--plan-listen=0.0.0.0:8081, --bedrock-listen=0.0.0.0:8082]
          envFrom: [{{secretRef: {{name: fakes}}}}]
          readinessProbe: {{httpGet: {{path: /__control, port: 8082}}, periodSeconds: 1}}
          resources: {{requests: {{cpu: 1m, memory: 16Mi}}}}
"
            ))
            .await;
        let service = world.get("Service", tenant, "fakes").await;
        let host = service["spec"]["clusterIP"]
            .as_str()
            .expect("an address")
            .to_owned();
        let fakes = Fakes::at(world.http.clone(), &host);
        let tenant = Self {
            world: Arc::clone(world),
            name: tenant,
            fakes,
            credentials,
        };
        tenant
            .world
            .wait(
                "Deployment",
                tenant.name,
                "fakes",
                "is available",
                is_available,
            )
            .await;
        tenant
    }

    /// As [`new`](Self::new), with a pool of so many proxies, a credential `aws`, a user `alice` and a key `laptop`, all ready.
    pub async fn serving(world: &Arc<World>, tenant: &'static str, replicas: u32) -> (Self, Key) {
        let tenant = Self::new(world, tenant).await;
        tenant.pool(replicas).await;
        world.apply(&tenant.alice()).await;
        world.apply(&tenant.access_key("laptop")).await;
        for (kind, name) in [
            ("BedrockCredential", "aws"),
            ("ProxyUser", "alice"),
            ("AccessKey", "laptop"),
        ] {
            world.ready(kind, tenant.name, name).await;
        }
        world.ready("ProxyPool", PLATFORM, tenant.name).await;
        let key = tenant.key("laptop").await;
        tenant.knows(&key).await;
        (tenant, key)
    }

    /// Waits until every proxy of the pool knows a key. What is asked is refused for its body and leaves no trace.
    pub async fn knows(&self, key: &Key) {
        for proxy in self.proxies().await {
            eventually("the proxy knows the key", async || {
                let request = self
                    .world
                    .http
                    .post(format!("{proxy}/v1/messages"))
                    .header("x-api-key", &key.token)
                    .body("{");
                let answer = self
                    .world
                    .send(request)
                    .await
                    .map_err(|error| error.to_string())?;
                if answer.status == 400 {
                    Ok(())
                } else {
                    Err(answer.body)
                }
            })
            .await;
        }
    }

    /// Applies the pool. Its circuit stays closed, so that each request tells of the upstreams as they are.
    pub async fn pool(&self, replicas: u32) {
        let (tenant, [plan, _]) = (self.name, upstream_urls(self.name));
        let yaml = format!(
            r"
apiVersion: spillway.dev/v1alpha1
kind: ProxyPool
metadata: {{name: {tenant}, namespace: {PLATFORM}}}
spec:
  allowedNamespaces: {{from: Selector, selector: {{matchLabels: {{spillway.dev/pool: {tenant}}}}}}}
  replicas: {replicas}
  resources: {{requests: {{cpu: 10m, memory: 32Mi}}}}
  plan: {{apiUrl: '{plan}', apiKeySecretRef: {{name: {tenant}-plan, key: key}}}}
  fallback: {{bedrock: {{defaultModel: us.anthropic.claude-sonnet-4-5-20250929-v1:0}}}}
  circuitBreaker: {{failureThreshold: 1000}}
  usageReportInterval: 5s
"
        );
        self.world.apply(&yaml).await;
    }

    /// The user and the credential that pays for the fallback.
    pub fn alice(&self) -> String {
        let (tenant, [_, bedrock]) = (self.name, upstream_urls(self.name));
        format!(
            r"
apiVersion: spillway.dev/v1alpha1
kind: BedrockCredential
metadata: {{name: aws, namespace: {tenant}}}
spec: {{region: us-east-1, endpointUrl: '{bedrock}', auth: {{secretRef: {{name: aws}}}}}}
---
apiVersion: spillway.dev/v1alpha1
kind: ProxyUser
metadata: {{name: alice, namespace: {tenant}}}
spec:
  email: alice@example.com
  poolRef: {{name: {tenant}, namespace: {PLATFORM}}}
  bedrockCredentialRef: {{name: aws}}
"
        )
    }

    /// A key of hers, in the Secret of the same name.
    pub fn access_key(&self, key: &str) -> String {
        let tenant = self.name;
        format!(
            r"
apiVersion: spillway.dev/v1alpha1
kind: AccessKey
metadata: {{name: {key}, namespace: {tenant}}}
spec: {{userRef: {{name: alice}}, secretName: {key}}}
"
        )
    }

    /// The key in a Secret.
    pub async fn key(&self, secret: &str) -> Key {
        key(&self.world, self.name, secret).await
    }

    /// URLs of the pool's proxies, each by its pod's address.
    pub async fn proxies(&self) -> Vec<String> {
        self.proxy_pods()
            .await
            .iter()
            .map(|pod| {
                format!(
                    "http://{}:8080",
                    pod["status"]["podIP"].as_str().unwrap_or_default()
                )
            })
            .collect()
    }

    /// Pods of the pool's proxies that are not about to end.
    pub async fn proxy_pods(&self) -> Vec<Value> {
        let labels = format!(
            "app.kubernetes.io/name=spillway-proxy,app.kubernetes.io/instance={}",
            self.name
        );
        let pods = self.world.list("Pod", PLATFORM, &labels).await;
        pods.into_iter()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .collect()
    }
}

/// The key in a Secret that the operator wrote.
pub async fn key(world: &World, namespace: &str, secret: &str) -> Key {
    let secret = world.get("Secret", namespace, secret).await;
    let entry = |key: &str| {
        decoded(&secret["data"][key])
            .unwrap_or_else(|| panic!("no entry {key} in {namespace}/{}", name(&secret)))
    };
    let token = entry("ACCESS_KEY");
    world.keep_secret(format!("access key {namespace}/{}", name(&secret)), &token);
    Key {
        token,
        base: reachable(world, &entry("ANTHROPIC_BASE_URL")).await,
    }
}

/// A Service's URL with its address in place of its name.
pub async fn reachable(world: &World, url: &str) -> String {
    let host = url
        .strip_prefix("http://")
        .expect("plain http within the cluster");
    let mut parts = host.split('.');
    let (service, namespace) = (
        parts.next().expect("a Service"),
        parts.next().expect("its namespace"),
    );
    let service = world.get("Service", namespace, service).await;
    format!(
        "http://{}",
        service["spec"]["clusterIP"].as_str().expect("an address")
    )
}

/// Whether as many pods of a Deployment as wanted serve, all of the newest template.
pub fn is_available(deployment: &Value) -> bool {
    let (spec, status) = (&deployment["spec"], &deployment["status"]);
    status["observedGeneration"] == deployment["metadata"]["generation"]
        && ["updatedReplicas", "availableReplicas", "replicas"]
            .iter()
            .all(|count| status[count] == spec["replicas"])
}

async fn remove(world: &World, tenant: &str) {
    for kind in ["AccessKey", "ProxyUser", "BedrockCredential"] {
        for object in world.list(kind, tenant, "").await {
            world
                .delete(kind, tenant, name(&object), &DeleteParams::default())
                .await;
            world.gone(kind, tenant, name(&object)).await;
        }
    }
    world
        .delete("ProxyPool", PLATFORM, tenant, &DeleteParams::default())
        .await;
    world
        .delete("Namespace", "", tenant, &DeleteParams::default())
        .await;
    world.gone("ProxyPool", PLATFORM, tenant).await;
    world.gone("Namespace", "", tenant).await;
}
