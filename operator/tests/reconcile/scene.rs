//! A running operator with a namespace and a database of its own, and words to say what happens there.
#![allow(unreachable_pub, reason = "the modules beside use it")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use spillway_core::repository::PgPool;
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser, VersionState};
use tokio::time::{Duration, sleep};

use crate::support::{Gate, OperatorProcess, World, eventually, within};

/// A kind of the test's namespace.
pub trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + Debug
    + DeserializeOwned
    + Serialize
{
}
impl<
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
> Kind for K
{
}

/// The tables whose rows the operator's controllers write.
const TABLES: [&str; 6] = [
    "pools",
    "model_mappings",
    "plan_keys",
    "bedrock_keys",
    "users",
    "access_keys",
];

/// A running operator.
pub struct Scene {
    pub world: World,
    pub pool: PgPool,
    pub operator: Arc<OperatorProcess>,
    args: Vec<String>,
    gate: Option<Gate>,
}

impl Scene {
    /// An operator that leads, for its own namespace alone.
    pub async fn new() -> Self {
        let (world, pool) = World::migrated().await;
        Self::in_world(world, pool, &[]).await
    }

    /// As [`new`](Self::new), with a database that can go away.
    pub async fn gated() -> Self {
        let (world, pool) = World::migrated().await;
        let gate = Gate::before(&world.database.url()).await;
        Self::started(world, pool, &[], Some(gate)).await
    }

    /// An operator in a world that is there, with further arguments.
    pub async fn in_world(world: World, pool: PgPool, args: &[&str]) -> Self {
        Self::started(world, pool, args, None).await
    }

    async fn started(world: World, pool: PgPool, args: &[&str], gate: Option<Gate>) -> Self {
        let args: Vec<_> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let operator = Arc::new(start(&world, &args, gate.as_ref()).await);
        Self {
            world,
            pool,
            operator,
            args,
            gate,
        }
    }

    /// What the same operator does in the namespace of another world.
    pub fn elsewhere(&self, world: World) -> Self {
        Self {
            world,
            pool: self.pool.clone(),
            operator: Arc::clone(&self.operator),
            args: Vec::new(),
            gate: None,
        }
    }

    /// Asks the operator to end and starts another.
    pub async fn restart(&mut self) {
        self.end("TERM").await;
    }

    /// Kills the operator and starts another.
    pub async fn kill(&mut self) {
        self.end("KILL").await;
    }

    async fn end(&mut self, signal: &str) {
        self.operator.signal(signal).await;
        let operator = Arc::get_mut(&mut self.operator).expect("nobody else looks at the operator");
        operator.ended().await;
        self.operator = Arc::new(start(&self.world, &self.args, self.gate.as_ref()).await);
    }

    /// Takes Postgres away from the operator.
    pub fn shut_database(&self) {
        self.gate.as_ref().expect("a gated scene").shut();
    }

    /// Gives Postgres back.
    pub fn open_database(&self) {
        self.gate.as_ref().expect("a gated scene").open();
    }

    /// A pool, a credential, a user and a key that refer to each other, with the Secrets they need.
    pub async fn everything(&self) {
        self.secret("plan", &[("API_KEY", "plan-key-of-the-test")])
            .await;
        self.secret(
            "aws",
            &[
                ("AWS_ACCESS_KEY_ID", "AKIATEST"),
                ("AWS_SECRET_ACCESS_KEY", "aws-secret-of-the-test"),
            ],
        )
        .await;
        self.create::<AccessKey>(
            "laptop",
            json!({ "userRef": { "name": "alice" }, "secretName": "laptop-key" }),
        )
        .await;
        self.create::<ProxyUser>(
            "alice",
            json!({ "email": "alice@example.com", "allowedModels": ["claude-*"] }),
        )
        .await;
        let pool = json!({
            "plan": { "apiKeySecretRef": { "name": "plan", "key": "API_KEY" } },
            "fallback": { "bedrock": { "region": "us-east-1", "credentialRef": { "name": "main" } } },
            "models": [{ "name": "claude-*", "bedrockModelId": "m", "price": { "input": "3", "output": "15" } }],
        });
        self.create::<ProxyPool>("default", pool).await;
        self.create::<BedrockCredential>(
            "main",
            json!({ "region": "us-east-1", "auth": { "secretRef": { "name": "aws" } } }),
        )
        .await;
    }

    pub async fn create<K: Kind>(&self, name: &str, spec: Value) -> K {
        self.try_create(name, spec)
            .await
            .expect("the resource is accepted")
    }

    pub async fn try_create<K: Kind>(&self, name: &str, spec: Value) -> Result<K, kube::Error> {
        let manifest = json!({ "apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": { "name": name }, "spec": spec });
        let resource: K = serde_json::from_value(manifest).expect("a manifest of the kind");
        self.world
            .api::<K>()
            .create(&PostParams::default(), &resource)
            .await
    }

    pub async fn patch<K: Kind>(&self, name: &str, patch: Value) {
        self.try_patch::<K>(name, patch)
            .await
            .expect("the change is accepted");
    }

    pub async fn try_patch<K: Kind>(&self, name: &str, patch: Value) -> Result<K, kube::Error> {
        self.world
            .api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    }

    pub async fn get<K: Kind>(&self, name: &str) -> K {
        self.world
            .api::<K>()
            .get(name)
            .await
            .expect("the resource is there")
    }

    pub async fn delete<K: Kind>(&self, name: &str) {
        self.world
            .api::<K>()
            .delete(name, &DeleteParams::default())
            .await
            .expect("the resource can be deleted");
    }

    pub async fn gone<K: Kind>(&self, name: &str) {
        eventually(
            &format!("{} {name} is gone", K::kind(&())),
            async || match self.world.api::<K>().get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
    }

    /// As [`gone`](Self::gone), for what waits a minute first.
    pub async fn gone_slowly<K: Kind>(&self, name: &str) {
        let limit = Duration::from_mins(2);
        within(
            limit,
            &format!("{} {name} is gone", K::kind(&())),
            async || match self.world.api::<K>().get_opt(name).await {
                Ok(None) => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
    }

    pub async fn secret(&self, name: &str, entries: &[(&str, &str)]) {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name },
            "stringData": entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect::<BTreeMap<_, _>>(),
        });
        let secret: Secret = serde_json::from_value(manifest).unwrap();
        self.world
            .api::<Secret>()
            .create(&PostParams::default(), &secret)
            .await
            .expect("the Secret is accepted");
    }

    /// Replaces what a Secret holds and leaves its metadata alone.
    pub async fn replace_secret(&self, name: &str, entries: &[(&str, &str)]) {
        let mut secret: Secret = self.get(name).await;
        secret.data = None;
        secret.string_data = Some(
            entries
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        );
        self.world
            .api::<Secret>()
            .replace(name, &PostParams::default(), &secret)
            .await
            .expect("the Secret is accepted");
    }

    /// Waits until `Ready` is true for this reason, and gives the resource.
    pub async fn ready<K: Kind>(&self, name: &str, reason: &str) -> K {
        self.condition::<K>(name, "Ready", "True", reason).await;
        self.get(name).await
    }

    /// Waits until a condition is so, for the current generation, and gives its message.
    pub async fn condition<K: Kind>(
        &self,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> String {
        let what = format!("{} {name}: {type_} is {status}, {reason}", K::kind(&()));
        eventually(&what, async || {
            let resource: K = self.get(name).await;
            let generation = resource.meta().generation;
            let value = serde_json::to_value(&resource).unwrap();
            let conditions: Vec<Condition> =
                serde_json::from_value(value["status"]["conditions"].clone()).unwrap_or_default();
            let found = conditions.iter().find(|condition| condition.type_ == type_);
            match found {
                Some(found)
                    if found.status == status
                        && found.reason == reason
                        && found.observed_generation == generation =>
                {
                    Ok(found.message.clone())
                }
                _ => Err(format!("{}\n{}", value["status"], self.operator.log())),
            }
        })
        .await
    }

    /// Plays the kubelet: says that the pool's proxies are ready.
    pub async fn proxies_are_ready(&self, count: i32) {
        let deployments = self.world.api::<Deployment>();
        let live = eventually("the Deployment is there", async || {
            deployments.get("spillway-default").await
        })
        .await;
        let status = json!({ "status": {
            "observedGeneration": live.metadata.generation, "replicas": count, "readyReplicas": count,
            "updatedReplicas": count, "availableReplicas": count,
        } });
        deployments
            .patch_status(
                "spillway-default",
                &PatchParams::default(),
                &Patch::Merge(&status),
            )
            .await
            .expect("the status is accepted");
    }

    /// Waits for an Event with this reason.
    pub async fn event(&self, reason: &str) -> String {
        eventually(&format!("an Event {reason}"), async || {
            let events = self
                .world
                .api::<Event>()
                .list(&ListParams::default())
                .await
                .unwrap();
            let found = events
                .items
                .into_iter()
                .find(|event| event.reason.as_deref() == Some(reason));
            found.and_then(|event| event.note).ok_or("not yet")
        })
        .await
    }

    /// Waits until nothing has been written for a second.
    pub async fn settled(&self) {
        let mut before = self.versions().await;
        eventually("nothing is written any more", async || {
            sleep(Duration::from_secs(1)).await;
            let now = self.versions().await;
            let is_settled = now == before;
            before = now;
            if is_settled {
                Ok(())
            } else {
                Err("still being written")
            }
        })
        .await;
    }

    /// Waits until that many reconciliations were counted since the operator started.
    pub async fn reconciled_at_least(&self, count: usize) {
        eventually("every kind was reconciled", async || {
            let (_, page) = self
                .operator
                .admin("/metrics")
                .await
                .map_err(|error| error.to_string())?;
            let kinds = page
                .lines()
                .filter(|line| line.starts_with("spillway_reconcile_duration_seconds_count"))
                .count();
            if kinds >= count { Ok(()) } else { Err(page) }
        })
        .await;
    }

    /// Versions of everything that the controllers write: of objects, and of rows.
    pub async fn versions(&self) -> BTreeMap<String, String> {
        let mut versions = BTreeMap::new();
        self.versions_of::<ProxyPool>(&mut versions).await;
        self.versions_of::<ProxyUser>(&mut versions).await;
        self.versions_of::<AccessKey>(&mut versions).await;
        self.versions_of::<BedrockCredential>(&mut versions).await;
        self.versions_of::<Secret>(&mut versions).await;
        self.versions_of::<Deployment>(&mut versions).await;
        self.versions_of::<Service>(&mut versions).await;
        self.versions_of::<ServiceAccount>(&mut versions).await;
        for table in TABLES.into_iter().chain(["access_key_versions"]) {
            let rows = format!(
                "SELECT coalesce(string_agg(xmin::text || '/' || xmax::text, ',' ORDER BY id), '') FROM {table}"
            );
            let written: String = sqlx::query_scalar(sqlx::AssertSqlSafe(rows))
                .fetch_one(&self.pool)
                .await
                .unwrap();
            versions.insert(table.to_owned(), written);
        }
        versions
    }

    async fn versions_of<K: Kind>(&self, versions: &mut BTreeMap<String, String>) {
        for object in self
            .world
            .api::<K>()
            .list(&ListParams::default())
            .await
            .unwrap()
        {
            let name = format!("{} {}", K::kind(&()), object.name_any());
            versions.insert(name, object.resource_version().unwrap_or_default());
        }
    }

    /// The versions of a key as its status shows them.
    pub async fn key_versions(&self, name: &str) -> Vec<(String, VersionState)> {
        let status = self.get::<AccessKey>(name).await.status.unwrap_or_default();
        status
            .versions
            .into_iter()
            .map(|version| (version.key_id, version.state))
            .collect()
    }

    /// Living rows of a table.
    pub async fn living(&self, table: &str) -> i64 {
        self.count(&format!(
            "SELECT count(*) FROM {table} WHERE deleted_at IS NULL"
        ))
        .await
    }

    /// All rows of a table.
    pub async fn rows(&self, table: &str) -> i64 {
        self.count(&format!("SELECT count(*) FROM {table}")).await
    }

    pub async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(sqlx::AssertSqlSafe(query.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    /// None of these texts is anywhere but in Secrets: not in the log, in Events, in resources, in Postgres.
    pub async fn nowhere(&self, secrets: &[&str]) {
        let mut places = vec![("the log", self.operator.log())];
        let events = self
            .world
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap();
        places.push(("Events", serde_json::to_string(&events).unwrap()));
        places.push((
            "pools",
            serde_json::to_string(
                &self
                    .world
                    .api::<ProxyPool>()
                    .list(&ListParams::default())
                    .await
                    .unwrap(),
            )
            .unwrap(),
        ));
        places.push((
            "keys",
            serde_json::to_string(
                &self
                    .world
                    .api::<AccessKey>()
                    .list(&ListParams::default())
                    .await
                    .unwrap(),
            )
            .unwrap(),
        ));
        places.push((
            "Deployments",
            serde_json::to_string(
                &self
                    .world
                    .api::<Deployment>()
                    .list(&ListParams::default())
                    .await
                    .unwrap(),
            )
            .unwrap(),
        ));
        for table in TABLES.into_iter().chain(["access_key_versions"]) {
            let rows = format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t");
            places.push((
                table,
                sqlx::query_scalar(sqlx::AssertSqlSafe(rows))
                    .fetch_one(&self.pool)
                    .await
                    .unwrap(),
            ));
        }
        for (place, text) in places {
            assert!(
                secrets.iter().all(|secret| !text.contains(secret)),
                "a secret is in {place}"
            );
        }
    }
}

async fn start(world: &World, args: &[String], gate: Option<&Gate>) -> OperatorProcess {
    let url = gate.map_or_else(
        || world.database.url(),
        |gate| gate.through(&world.database.url()),
    );
    let args: Vec<_> = args.iter().map(String::as_str).collect();
    let operator = OperatorProcess::run(world, url.as_str(), &args, &[]);
    operator.ready_leader().await;
    operator
}

/// An entry of a Secret as text; empty when it is not there.
pub fn entry(secret: &Secret, key: &str) -> String {
    let bytes = secret.data.as_ref().and_then(|data| data.get(key));
    bytes
        .map(|bytes| String::from_utf8(bytes.0.clone()).unwrap())
        .unwrap_or_default()
}
