//! Reading the settings. Every problem is noted, so that one message names all of them.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

use secrecy::SecretString;
use spillway_core::env::{ConfigError, Vars};
use spillway_core::repository::DatabaseUrl;
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;

use super::words::{DnsLabel, LogLevel, Lookup};
use super::{
    DatabaseSettings, GivenSecrets, PoolName, ProxySettings, ReleaseSettings, RunSettings,
    WatchScope,
};

/// The Lease that the replicas elect their leader by, when nothing else is said.
const DEFAULT_LEASE: &str = "spillway-operator";
/// The pool of users that name none, when nothing else is said.
const DEFAULT_POOL: &str = "default";

impl RunSettings {
    /// Reads the settings from `lookup`. `own_namespace` is what the service account or the kubeconfig says.
    ///
    /// # Errors
    /// One that names every wrong variable.
    pub fn read(lookup: impl Lookup, own_namespace: &str) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(&lookup);
        let namespace = namespace(&mut vars, own_namespace);
        let mut listed: Vec<String> = vars
            .list::<DnsLabel>("POOL_NAMESPACES")
            .into_iter()
            .map(|label| label.0)
            .collect();
        if listed.is_empty() {
            listed.push(namespace.clone());
        }
        let default_pool = default_pool(&mut vars, &listed);
        let pool_namespaces = listed.into_iter().collect();
        let watch = watch_scope(&mut vars, &pool_namespaces);
        let log_level = LogLevel::read(&mut vars);
        let database = DatabaseSettings::read(&mut vars);
        let given = GivenSecrets::read(&mut vars);
        let admin_addr = vars.parsed("ADMIN_ADDR", SocketAddr::from(([0, 0, 0, 0], 9090)));
        let lease = lease_name(&mut vars);
        let replica = vars.text("REPLICA").unwrap_or_else(host_name);
        let default_pool_file = vars.text("DEFAULT_POOL_FILE").map(PathBuf::from);
        let proxy = ProxySettings::read(&mut vars, &lookup);
        vars.finish_some(database.map(|database| Self {
            log_level,
            database,
            given,
            admin_addr,
            lease,
            replica,
            default_pool_file,
            namespace,
            pool_namespaces,
            default_pool,
            watch,
            proxy,
        }))
    }
}

impl ReleaseSettings {
    /// Reads the settings from `lookup`. `own_namespace` is what the service account or the kubeconfig says.
    ///
    /// # Errors
    /// One that names every wrong variable.
    pub fn read(lookup: impl Lookup, own_namespace: &str) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(&lookup);
        let log_level = LogLevel::read(&mut vars);
        let namespace = namespace(&mut vars, own_namespace);
        let lease = lease_name(&mut vars);
        vars.finish(Self {
            log_level,
            namespace,
            lease,
        })
    }
}

impl DatabaseSettings {
    /// Reads where the database is; `None` when it cannot be read, which `vars` then remembers.
    pub fn read<F: Lookup>(vars: &mut Vars<F>) -> Option<Self> {
        let hint = "give the URL of a PostgreSQL database: postgres://user:password@host/name";
        let url = vars.required_secret("DATABASE_URL", hint);
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

impl GivenSecrets {
    /// Reads the master secrets that are given, and checks their form.
    pub fn read<F: Lookup>(vars: &mut Vars<F>) -> Self {
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

fn database_url<F: Lookup>(
    vars: &mut Vars<F>,
    name: &str,
    url: &SecretString,
) -> Option<DatabaseUrl> {
    DatabaseUrl::parse(url)
        .map_err(|error| vars.problem(name, error.to_string()))
        .ok()
}

fn namespace<F: Lookup>(vars: &mut Vars<F>, own: &str) -> String {
    vars.optional("NAMESPACE")
        .unwrap_or_else(|| DnsLabel(own.to_owned()))
        .0
}

fn lease_name<F: Lookup>(vars: &mut Vars<F>) -> String {
    vars.optional("LEASE_NAME")
        .unwrap_or_else(|| DnsLabel(DEFAULT_LEASE.to_owned()))
        .0
}

/// The host name: Kubernetes makes it the pod's name.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| DEFAULT_LEASE.to_owned())
}

fn default_pool<F: Lookup>(vars: &mut Vars<F>, pool_namespaces: &[String]) -> PoolName {
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

fn watch_scope<F: Lookup>(vars: &mut Vars<F>, pool_namespaces: &BTreeSet<String>) -> WatchScope {
    let named: BTreeSet<String> = vars
        .list::<DnsLabel>("WATCH_NAMESPACES")
        .into_iter()
        .map(|label| label.0)
        .collect();
    if named.is_empty() {
        WatchScope::All
    } else {
        WatchScope::Named(named.union(pool_namespaces).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::SecretKey;

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
        let settings = read(&MINIMUM).unwrap();
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
        let settings = read(&[&MINIMUM[..], &watched].concat()).unwrap();
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
            ("PROXY_SHUTDOWN_GRACE", "30"),
            ("PROXY_ORIGIN_VERIFY_SECRET", "swordfish"),
            ("PROXY_ORIGIN_VERIFY_SECRET_NAME", "front-door"),
            ("PROXY_PLAN_API_KEY", "sk-ant-api03-x"),
            ("AWS_REGION", "eu-west-1"),
        ];
        let settings = read(&[&MINIMUM[..], &more].concat()).unwrap();
        let names: Vec<_> = settings
            .proxy
            .environment
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(names, ["AWS_REGION", "PROXY_SHUTDOWN_GRACE"]);
        assert_eq!(settings.proxy.end.as_secs(), 32);
        assert_eq!(
            settings.proxy.origin_verify_secret,
            Some(SecretKey {
                name: "front-door".to_owned(),
                key: "secret".to_owned(),
            })
        );
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
