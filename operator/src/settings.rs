//! What `spillway-operator run` is told, from flags and the `PROXY_*` environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::env::{ConfigError, Vars};
use spillway_core::repository::DatabaseUrl;
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use url::Url;

/// The Lease that the replicas elect their leader by, when nothing else is said.
const DEFAULT_LEASE: &str = "spillway-operator";
/// The pool of users that name none, when nothing else is said.
const DEFAULT_POOL: &str = "default";
/// The Secret in each pool namespace that holds the proxies' database URL, when nothing else is said.
const DEFAULT_DATABASE_SECRET: &str = "spillway-database";
/// Its entry, when nothing else is said.
const DEFAULT_DATABASE_SECRET_KEY: &str = "url";

/// Variables of the operator's own environment that its proxies get as they are. A pool's fields win over them. No
/// secrets: those reach a proxy by reference.
const PASSED_ON: &[&str] = &[
    "PROXY_PLAN_API_URL",
    "PROXY_BEDROCK_REGION",
    "PROXY_BEDROCK_DEFAULT_MODEL",
    "PROXY_CIRCUIT_FAILURE_THRESHOLD",
    "PROXY_CIRCUIT_FAILURE_WINDOW",
    "PROXY_CIRCUIT_RESET_TIMEOUT",
    "PROXY_ACCESS_KEY_CACHE_TTL",
    "PROXY_BEDROCK_KEY_CACHE_TTL",
    "PROXY_ALLOWED_UPSTREAMS",
    "PROXY_TRUSTED_PROXIES",
    "PROXY_PLAN_HOLD_BACK",
    "PROXY_PLAN_CONNECT_TIMEOUT",
    "PROXY_PLAN_FIRST_BYTE_TIMEOUT",
    "PROXY_PLAN_REQUEST_TIMEOUT",
    "PROXY_STREAM_IDLE_TIMEOUT",
    "PROXY_KMS_KEY_ID",
    "PROXY_LOG_LEVEL",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_REGION",
];

/// What the controllers need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The operator's own namespace.
    pub namespace: String,
    /// UID of the cluster's kube-system namespace; every row that came from this cluster carries it.
    pub cluster_id: String,
    /// The namespaces in which pools may live.
    pub pool_namespaces: BTreeSet<String>,
    /// The pool of users that name none.
    pub default_pool: PoolName,
    /// The namespaces that are looked after.
    pub watch: WatchScope,
    /// What a proxy Deployment is made of.
    pub proxy: ProxySettings,
}

/// A pool by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PoolName {
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub name: String,
}

/// Which namespaces the operator looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchScope {
    /// Every one.
    All,
    /// These, among them every pool namespace.
    Named(BTreeSet<String>),
}

impl WatchScope {
    /// Whether `namespace` is looked after.
    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Named(names) => names.contains(namespace),
        }
    }
}

/// What a proxy Deployment is made of, apart from its pool.
#[derive(Debug, Clone)]
pub struct ProxySettings {
    /// The image of pools that name none.
    pub image: String,
    /// Secrets, in the pool's namespace, that the image is pulled with.
    pub image_pull_secrets: Vec<String>,
    /// The Secret, in the pool's namespace, that holds the proxies' `PROXY_DATABASE_URL`.
    pub database_secret: SecretKey,
    /// The Secret, in the pool's namespace, that holds their `PROXY_DATABASE_LISTEN_URL`, if they need one.
    pub database_listen_secret: Option<SecretKey>,
    /// The AWS KMS key that credentials are sealed with, if any.
    pub kms_key_id: Option<String>,
    /// The upstreams that the proxies may reach; what a pool names is checked against it.
    pub allowed_upstreams: AllowedUpstreams,
    /// Variables that every proxy gets, by name.
    pub environment: BTreeMap<String, String>,
}

/// An entry of a Secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// The Secret's name.
    pub name: String,
    /// The entry of its data.
    pub key: String,
}

/// Master secrets that the installation brings along, instead of those that the operator makes.
#[derive(Debug, Clone, Default)]
pub struct GivenSecrets {
    /// `PROXY_KEY_HASHER_SECRET`.
    pub hasher: Option<SecretString>,
    /// `PROXY_LOCAL_ENCRYPTION_KEY`.
    pub encryption: Option<SecretString>,
}

/// Where the database is.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// `PROXY_DATABASE_URL`.
    pub url: DatabaseUrl,
    /// `PROXY_DATABASE_LISTEN_URL`: a direct connection where the other leads to a pooler.
    pub listen_url: Option<DatabaseUrl>,
}

impl DatabaseSettings {
    /// Where migrations go.
    pub fn direct_url(&self) -> &DatabaseUrl {
        self.listen_url.as_ref().unwrap_or(&self.url)
    }
}

/// Everything that `run` is told; the cluster's id is learned from the cluster.
#[derive(Debug, Clone)]
pub struct RunSettings {
    /// Where the database is.
    pub database: DatabaseSettings,
    /// Master secrets that are given.
    pub given: GivenSecrets,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub admin_addr: SocketAddr,
    /// Name of the Lease, in the operator's namespace.
    pub lease: String,
    /// This replica's name in the Lease and in Events: the pod's.
    pub replica: String,
    /// The file with the default pool's manifest.
    pub default_pool_file: Option<PathBuf>,
    settings: Settings,
}

impl RunSettings {
    /// Reads the settings from `lookup`, which is asked with a variable's whole name. `own_namespace` is what the
    /// service account or the kubeconfig says.
    ///
    /// # Errors
    /// One that names every wrong variable.
    pub fn read<F: Fn(&str) -> Option<String>>(
        lookup: F,
        own_namespace: &str,
    ) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(&lookup);
        let namespace = vars
            .optional("NAMESPACE")
            .unwrap_or_else(|| DnsLabel(own_namespace.to_owned()))
            .0;
        let mut listed: Vec<String> = vars
            .list::<DnsLabel>("POOL_NAMESPACES")
            .into_iter()
            .map(|label| label.0)
            .collect();
        if listed.is_empty() {
            listed.push(namespace.clone());
        }
        let default_pool = default_pool(&mut vars, &listed);
        let pool_namespaces: BTreeSet<String> = listed.into_iter().collect();
        let watch = watch_scope(&mut vars, &pool_namespaces);
        let proxy = proxy_settings(&mut vars, &lookup);
        let database = DatabaseSettings::read(&mut vars);
        let read = database.map(|database| Self {
            database,
            given: GivenSecrets::read(&mut vars),
            admin_addr: vars.parsed("ADMIN_ADDR", SocketAddr::from(([0, 0, 0, 0], 9090))),
            lease: lease_name(&mut vars),
            replica: vars.text("REPLICA").unwrap_or_else(replica_name),
            default_pool_file: vars.text("DEFAULT_POOL_FILE").map(PathBuf::from),
            settings: Settings {
                namespace,
                cluster_id: String::new(),
                pool_namespaces,
                default_pool,
                watch,
                proxy,
            },
        });
        vars.finish_some(read)
    }

    /// The operator's own namespace.
    pub fn namespace(&self) -> &str {
        &self.settings.namespace
    }

    /// The pool of users that name none.
    pub fn default_pool(&self) -> &PoolName {
        &self.settings.default_pool
    }

    /// What the controllers need to know, in the cluster with the id `cluster_id`.
    pub fn into_settings(self, cluster_id: String) -> Settings {
        Settings {
            cluster_id,
            ..self.settings
        }
    }
}

impl DatabaseSettings {
    /// Reads where the database is; `None` when it cannot be read, which `vars` then remembers.
    pub fn read<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> Option<Self> {
        let url = vars.required_secret(
            "DATABASE_URL",
            "give the URL of a PostgreSQL database: postgres://user:password@host/name",
        );
        let listen_url = vars
            .secret("DATABASE_LISTEN_URL")
            .map(|url| database_url(vars, "DATABASE_LISTEN_URL", &url));
        let url = database_url(vars, "DATABASE_URL", &url)?;
        Some(Self {
            url,
            listen_url: listen_url.flatten(),
        })
    }
}

fn database_url<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    name: &str,
    url: &SecretString,
) -> Option<DatabaseUrl> {
    DatabaseUrl::parse(url)
        .map_err(|error| vars.problem(name, error.to_string()))
        .ok()
}

impl GivenSecrets {
    /// Reads the master secrets that are given, and checks their form.
    pub fn read<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> Self {
        let hasher = vars.secret("KEY_HASHER_SECRET");
        if let Some(Err(error)) = hasher.as_ref().map(KeyHasher::from_config) {
            vars.problem("KEY_HASHER_SECRET", error.to_string());
        }
        let encryption = vars.secret("LOCAL_ENCRYPTION_KEY");
        if let Some(Err(error)) = encryption.as_ref().map(Envelope::local) {
            vars.problem("LOCAL_ENCRYPTION_KEY", error.to_string());
        }
        Self { hasher, encryption }
    }
}

/// The Lease's name, for `run` and for `release`.
pub fn lease_name<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> String {
    vars.optional("LEASE_NAME")
        .unwrap_or_else(|| DnsLabel(DEFAULT_LEASE.to_owned()))
        .0
}

/// The pod's name: Kubernetes sets it as the host name.
pub fn replica_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| DEFAULT_LEASE.to_owned())
}

fn default_pool<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    pool_namespaces: &[String],
) -> PoolName {
    let text = vars
        .text("DEFAULT_POOL")
        .unwrap_or_else(|| DEFAULT_POOL.to_owned());
    let (namespace, name) = match text.trim().split_once('/') {
        Some((namespace, name)) => (namespace, name),
        None => (
            pool_namespaces.first().map_or("", String::as_str),
            text.trim(),
        ),
    };
    if let Err(error) = name.parse::<DnsLabel>() {
        vars.problem("DEFAULT_POOL", error.to_string());
    } else if !pool_namespaces.iter().any(|pool| pool == namespace) {
        vars.problem(
            "DEFAULT_POOL",
            format!("`{namespace}` is no pool namespace: add it to PROXY_POOL_NAMESPACES"),
        );
    }
    PoolName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn watch_scope<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    pool_namespaces: &BTreeSet<String>,
) -> WatchScope {
    let named: BTreeSet<String> = vars
        .list::<DnsLabel>("WATCH_NAMESPACES")
        .into_iter()
        .map(|n| n.0)
        .collect();
    if named.is_empty() {
        WatchScope::All
    } else {
        WatchScope::Named(named.union(pool_namespaces).cloned().collect())
    }
}

fn proxy_settings<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    lookup: &impl Fn(&str) -> Option<String>,
) -> ProxySettings {
    let image = vars.text("IMAGE").unwrap_or_else(|| {
        vars.problem(
            "IMAGE",
            "is not set: name the container image of the proxies",
        );
        String::new()
    });
    let entry = |vars: &Vars<F>, name: &str| {
        vars.text(name)
            .unwrap_or_else(|| DEFAULT_DATABASE_SECRET_KEY.to_owned())
    };
    ProxySettings {
        image,
        image_pull_secrets: vars.list("IMAGE_PULL_SECRETS"),
        database_secret: SecretKey {
            name: vars
                .text("DATABASE_SECRET")
                .unwrap_or_else(|| DEFAULT_DATABASE_SECRET.to_owned()),
            key: entry(vars, "DATABASE_SECRET_KEY"),
        },
        database_listen_secret: vars.text("DATABASE_LISTEN_SECRET").map(|name| SecretKey {
            name,
            key: entry(vars, "DATABASE_LISTEN_SECRET_KEY"),
        }),
        kms_key_id: vars.text("KMS_KEY_ID"),
        allowed_upstreams: allowed_upstreams(vars, lookup),
        environment: PASSED_ON
            .iter()
            .filter_map(|name| {
                Some((
                    (*name).to_owned(),
                    lookup(name).filter(|value| !value.trim().is_empty())?,
                ))
            })
            .collect(),
    }
}

/// The listed upstreams and those that the environment's own URLs name.
fn allowed_upstreams<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    lookup: &impl Fn(&str) -> Option<String>,
) -> AllowedUpstreams {
    let listed: AllowedUpstreams = vars.optional("ALLOWED_UPSTREAMS").unwrap_or_default();
    let bedrock =
        lookup("AWS_ENDPOINT_URL_BEDROCK_RUNTIME").and_then(|url| Url::parse(url.trim()).ok());
    let named = vars
        .optional::<Url>("PLAN_API_URL")
        .into_iter()
        .chain(bedrock);
    named.fold(listed, |allowed, url| allowed.with_origin_of(&url))
}

/// A name that Kubernetes takes for a namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DnsLabel(String);

/// The text is no such name.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no name: use up to 63 of a-z 0-9 -, beginning and ending with a letter or digit")]
struct NotALabel(String);

impl FromStr for DnsLabel {
    type Err = NotALabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let good = (1..=63).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        if good {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotALabel(text.to_owned()))
        }
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<RunSettings, ConfigError> {
        let lookup = |name: &str| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        };
        RunSettings::read(lookup, "spillway")
    }

    const MINIMUM: [(&str, &str); 2] = [
        ("PROXY_DATABASE_URL", "postgres://u:hunter2@db/spillway"),
        ("PROXY_IMAGE", "example.org/proxy:1"),
    ];

    #[test]
    fn little_is_needed_and_pools_live_in_the_own_namespace() {
        let settings = read(&MINIMUM).unwrap().into_settings("cluster".into());
        assert_eq!(settings.namespace, "spillway");
        assert_eq!(
            settings.pool_namespaces,
            BTreeSet::from(["spillway".to_owned()])
        );
        assert_eq!(settings.default_pool.to_string(), "spillway/default");
        assert_eq!(settings.watch, WatchScope::All);
        assert_eq!(
            settings.proxy.database_secret,
            SecretKey {
                name: "spillway-database".into(),
                key: "url".into()
            }
        );
    }

    #[test]
    fn watching_some_namespaces_includes_those_of_the_pools() {
        let watched = [
            ("PROXY_WATCH_NAMESPACES", "team-a,team-b"),
            ("PROXY_POOL_NAMESPACES", "pools,more"),
        ];
        let settings = read(&[&MINIMUM[..], &watched].concat())
            .unwrap()
            .into_settings("cluster".into());
        assert!(
            ["team-a", "team-b", "pools", "more"]
                .iter()
                .all(|name| settings.watch.includes(name))
        );
        assert!(!settings.watch.includes("spillway"));
        assert_eq!(
            settings.default_pool.to_string(),
            "pools/default",
            "the first one listed"
        );
    }

    #[test]
    fn proxies_inherit_what_concerns_them_and_no_secret() {
        let more = [
            ("PROXY_TRUSTED_PROXIES", "10.0.0.0/8"),
            ("PROXY_PLAN_API_KEY", "sk-ant-api03-x"),
            ("AWS_REGION", "eu-west-1"),
        ];
        let settings = read(&[&MINIMUM[..], &more].concat())
            .unwrap()
            .into_settings("cluster".into());
        let names: Vec<_> = settings
            .proxy
            .environment
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(names, ["AWS_REGION", "PROXY_TRUSTED_PROXIES"]);
    }

    #[test]
    fn one_message_names_every_wrong_variable_and_no_secret() {
        let message = read(&[
            ("PROXY_DATABASE_URL", "mysql://u:hunter2@db/spillway"),
            ("PROXY_POOL_NAMESPACES", "Pools"),
            ("PROXY_DEFAULT_POOL", "elsewhere/default"),
            ("PROXY_ADMIN_ADDR", "9090"),
            ("PROXY_KEY_HASHER_SECRET", "swordfish"),
            ("PROXY_ALLOWED_UPSTREAMS", "http://a b"),
        ])
        .unwrap_err()
        .to_string();
        for name in [
            "DATABASE_URL",
            "POOL_NAMESPACES",
            "DEFAULT_POOL",
            "ADMIN_ADDR",
            "KEY_HASHER_SECRET",
            "ALLOWED_UPSTREAMS",
            "IMAGE",
        ] {
            assert!(
                message.contains(&format!("PROXY_{name}: ")),
                "PROXY_{name} is missing in\n{message}"
            );
        }
        assert!(
            !message.contains("hunter2") && !message.contains("swordfish"),
            "{message}"
        );
    }
}
