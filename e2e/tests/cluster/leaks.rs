//! Keys and credentials are in the Secrets meant to hold them, and nowhere else that anybody can look.

use std::fmt::Write as _;
use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, Engine as _};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DynamicObject, ListParams, LogParams};
use kube::discovery::{Discovery, verbs};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use spillway_e2e::upstream::{Failure, Kind, Mode, Rule};

use crate::support::objects::decoded;
use crate::support::tenant::Key;
use crate::support::{PLATFORM, Tenant, World};

/// Secrets that hold what is searched for: the users' own, and the operator's master secrets. Those with access keys are
/// told by their annotation.
const MEANT: [&str; 7] = [
    "fakes",
    "aws",
    "anthropic",
    "spillway-key-hasher",
    "spillway-local-encryption",
    "spillway-postgresql",
    "sh.helm.release.v1.spillway.v1",
];

pub async fn run(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "leaks", 1).await;
    traffic_of_every_kind(&world, &tenant, &key).await;
    remember_master_secrets(&world).await;

    let needles = needles(&world);
    let mut scanned = Scan {
        needles,
        found: Vec::new(),
        bytes: 0,
        places: 0,
    };
    logs(&world, &mut scanned).await;
    let objects = objects(&world.client, &mut scanned).await;
    metrics(&world, &mut scanned).await;
    scanned.look("a dump of the database", &dump(&world).await);
    let release = world
        .helm(&["get", "all", "spillway", "--namespace", PLATFORM])
        .await;
    scanned.look("the helm release", &release);

    println!(
        "    {} texts searched for in {} places, {} KiB, {objects} objects",
        scanned.needles.len(),
        scanned.places,
        scanned.bytes / 1024
    );
    assert!(scanned.found.is_empty(), "{:#?}", scanned.found);
    assert!(
        objects > 100 && scanned.bytes > 1 << 20,
        "there was something to search"
    );
}

/// Served and failed calls, and requests with the key where none belongs.
async fn traffic_of_every_kind(world: &World, tenant: &Tenant, key: &Key) {
    let Key { token, base } = key;
    world.served(key, "hello", false).await;
    world.served(key, "hello", true).await;
    tenant.fakes.plan(Mode::down()).await;
    world.served(key, "hello", false).await;
    tenant.fakes.bedrock(Mode::down()).await;
    assert!(world.ask(key, "nobody is there", true).await.status >= 500);
    tenant.fakes.plan(Mode::Refusing).await;
    world.ask(key, "nothing listens", false).await;
    tenant.fakes.plan(Mode::Up).await;
    // An upstream that tells what it was sent.
    let told = format!("invalid x-api-key {}", tenant.credentials.plan_key);
    tenant
        .fakes
        .push(Rule::once(Failure::status(401).message(told)))
        .await;
    world.ask(key, "the account is refused", false).await;
    tenant.fakes.bedrock(Mode::Up).await;

    let mistyped = format!("{}x", &token[..token.len() - 1]);
    let post = |path: String| {
        world
            .http
            .post(format!("{base}{path}"))
            .header("content-type", "application/json")
    };
    let wrong = [
        post(format!("/ak/{token}/v1/nonsense")),
        post(format!("/ak/{token}/v1/messages")).body("{ this is no JSON"),
        post(format!("/ak/{token}/v1/messages?key={token}"))
            .body(json!({ "model": "m" }).to_string()),
        post(format!("/v1/messages?key={token}")).body("{}"),
        post(format!("/{token}/v1/messages")).body("{}"),
        post(format!("/ak/{mistyped}/v1/messages")).body("{}"),
        post("/v1/messages".to_owned())
            .header("authorization", format!("Basic {token}"))
            .body("{}"),
        post("/v1/messages".to_owned())
            .header("x-api-key", &mistyped)
            .body("{}"),
        world.http.get(format!("{base}/ak/{token}/v1/messages")),
        world.http.get(format!("{base}/ak/{token}")),
    ];
    world.keep_secret("mistyped key of leaks", mistyped.clone());
    for request in wrong {
        let answer = world.send(request).await.expect("an answer");
        assert!(
            !answer.body.contains(token) && !answer.body.contains(&mistyped),
            "{}",
            answer.body
        );
    }
    tenant
        .usage(tenant.fakes.generated(Kind::Plan).await.len().min(5))
        .await;
}

async fn remember_master_secrets(world: &World) {
    for secret in [
        "spillway-key-hasher",
        "spillway-local-encryption",
        "spillway-postgresql",
    ] {
        let object = world.get("Secret", PLATFORM, secret).await;
        for (entry, value) in object["data"].as_object().expect("entries") {
            let text = decoded(value).expect("text");
            // A list of `id:secret`; of a URL the password is an entry of its own.
            for part in text
                .split(',')
                .map(|part| part.rsplit(':').next().unwrap_or(part))
            {
                if part.len() >= 16 && entry != "url" {
                    world.keep_secret(format!("{entry} of Secret {secret}"), part);
                }
            }
        }
    }
}

struct Scan {
    /// What it is, and a form of it.
    needles: Vec<(String, String)>,
    found: Vec<String>,
    bytes: usize,
    places: usize,
}

impl Scan {
    fn look(&mut self, place: &str, text: &str) {
        self.places += 1;
        self.bytes += text.len();
        let found = self.needles.iter().filter(|(_, form)| text.contains(form));
        self.found
            .extend(found.map(|(what, _)| format!("{what} is in {place}")));
    }
}

/// Every secret as it is, in base64 as Kubernetes shows it, and in hex as Postgres does.
fn needles(world: &World) -> Vec<(String, String)> {
    let mut needles = Vec::new();
    for (what, text) in world.confidential() {
        needles.push((
            format!("{what}, in base64,"),
            BASE64_STANDARD_NO_PAD.encode(&text),
        ));
        needles.push((format!("{what}, in hex,"), hex(text.as_bytes())));
        if let Ok(bytes) = BASE64_STANDARD.decode(&text) {
            needles.push((format!("{what}, decoded,"), hex(&bytes)));
        }
        needles.push((what, text));
    }
    needles
}

/// As Postgres shows bytes.
fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// Logs of every container of every pod, of the one before as well.
async fn logs(world: &World, scan: &mut Scan) {
    for namespace in world.tenants.iter().copied().chain([PLATFORM]) {
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), namespace);
        for pod in pods
            .list(&ListParams::default())
            .await
            .expect("pods are listed")
        {
            let spec = pod.spec.as_ref().expect("a spec");
            for container in spec
                .containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
            {
                for previous in [false, true] {
                    let parameters = LogParams {
                        container: Some(container.name.clone()),
                        previous,
                        ..LogParams::default()
                    };
                    if let Ok(text) = pods.logs(&pod.name_any(), &parameters).await {
                        scan.look(
                            &format!(
                                "the log of {namespace}/{} {} (previous: {previous})",
                                pod.name_any(),
                                container.name
                            ),
                            &text,
                        );
                    }
                }
            }
        }
    }
}

/// Every object of every kind, events among them; gives their number.
async fn objects(client: &Client, scan: &mut Scan) -> usize {
    let discovery = Discovery::new(client.clone())
        .run()
        .await
        .expect("the API server tells its kinds");
    let mut count = 0;
    for (resource, capabilities) in discovery
        .groups()
        .flat_map(kube::discovery::ApiGroup::recommended_resources)
    {
        if !capabilities.supports_operation(verbs::LIST) {
            continue;
        }
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let Ok(listed) = api.list(&ListParams::default()).await else {
            continue;
        };
        for object in listed {
            count += 1;
            let place = format!(
                "{} {}/{}",
                resource.kind,
                object.namespace().unwrap_or_default(),
                object.name_any()
            );
            let mut json = serde_json::to_value(&object).expect("objects are JSON");
            if resource.kind == "Secret" && is_meant(&object) {
                json["data"] = Value::Null;
            }
            scan.look(&place, &json.to_string());
        }
    }
    count
}

fn is_meant(secret: &DynamicObject) -> bool {
    let name = secret.name_any();
    MEANT.contains(&name.as_str())
        || name.ends_with("-plan")
        || secret.annotations().contains_key("spillway.dev/access-key")
}

async fn metrics(world: &World, scan: &mut Scan) {
    let mut pods = world.operator_pods().await;
    pods.extend(
        world
            .list("Pod", PLATFORM, "app.kubernetes.io/name=spillway-proxy")
            .await,
    );
    assert!(pods.len() > 2);
    for pod in pods {
        let name = crate::support::objects::name(&pod);
        let metrics = world.metrics(name).await;
        assert!(metrics.contains("spillway_"), "{name} has metrics");
        scan.look(&format!("the metrics of {name}"), &metrics);
    }
}

async fn dump(world: &World) -> String {
    let pod = ["exec", "-n", PLATFORM, "spillway-postgresql-0", "--"];
    let dump = ["pg_dump", "--username", "spillway", "--dbname", "spillway"];
    let dump = world
        .kubectl(&[pod.as_slice(), dump.as_slice()].concat())
        .await;
    assert!(
        dump.contains("COPY public.token_usages"),
        "it holds the tables"
    );
    dump
}
