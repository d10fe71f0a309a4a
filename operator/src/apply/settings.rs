//! What `apply` reads from the environment.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use secrecy::SecretString;
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::env::{ConfigError, Vars};
use spillway_core::repository::DatabaseUrl;

use crate::controllers::outcome::Rules;
use crate::settings::{
    DatabaseSettings, GivenSecrets, LogLevel, Lookup, PoolName, allowed_upstreams,
};

/// The namespace, and the pool, of what names none.
const DEFAULT: &str = "default";
/// The cluster of rows that came from no cluster.
const DEFAULT_CLUSTER: &str = "local";

/// What `apply` reads from the environment.
#[derive(Debug, Clone)]
pub(super) struct ApplySettings {
    pub(super) log_level: LogLevel,
    pub(super) database_url: DatabaseUrl,
    pub(super) hasher: SecretString,
    pub(super) encryption: Option<SecretString>,
    pub(super) kms_key_id: Option<String>,
    pub(super) cluster_id: String,
    pub(super) namespace: String,
    /// Where a proxy on this machine listens.
    pub(super) base_url: String,
    pool: String,
    allowed_upstreams: AllowedUpstreams,
}

impl ApplySettings {
    pub(super) fn read(lookup: impl Lookup) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(&lookup);
        let log_level = LogLevel::read(&mut vars);
        let database = DatabaseSettings::read(&mut vars);
        let given = GivenSecrets::read(&mut vars);
        let kms_key_id = vars.text("KMS_KEY_ID");
        let hint = "give the secret that the proxies hash keys with: 32 random characters or more";
        let hasher = vars.required_secret("KEY_HASHER_SECRET", hint);
        if given.encryption.is_none()
            && kms_key_id.is_none()
            && vars.text("LOCAL_ENCRYPTION_KEY").is_none()
        {
            vars.problem("LOCAL_ENCRYPTION_KEY", "is not set: give the key that the proxies decrypt with (32 bytes or their base64), or PROXY_KMS_KEY_ID");
        }
        let listen: SocketAddr = vars.parsed("LISTEN_ADDR", SocketAddr::from(([0, 0, 0, 0], 8080)));
        let settings = database.map(|database| Self {
            log_level,
            database_url: database.url,
            hasher,
            encryption: given.encryption,
            kms_key_id,
            cluster_id: vars
                .text("CLUSTER_ID")
                .unwrap_or_else(|| DEFAULT_CLUSTER.to_owned()),
            namespace: vars.text("NAMESPACE").unwrap_or_else(|| DEFAULT.to_owned()),
            base_url: base_url(listen),
            pool: vars.text("POOL").unwrap_or_else(|| DEFAULT.to_owned()),
            allowed_upstreams: allowed_upstreams(&mut vars, &lookup),
        });
        vars.finish_some(settings)
    }

    /// The rules for a file whose pools live in `pool_namespaces`: whoever writes the file is the platform.
    pub(super) fn rules(&self, mut pool_namespaces: BTreeSet<String>) -> Rules {
        pool_namespaces.insert(self.namespace.clone());
        Rules {
            pool_namespaces,
            default_pool: PoolName {
                namespace: self.namespace.clone(),
                name: self.pool.clone(),
            },
            allowed_upstreams: self.allowed_upstreams.clone(),
            // Its Secrets are the file's.
            database_secrets: BTreeSet::new(),
        }
    }
}

/// Where a client on this machine reaches a proxy that listens at `listen`.
fn base_url(listen: SocketAddr) -> String {
    let ip = match listen.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    format!("http://{}", SocketAddr::new(ip, listen.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &'static [(&'static str, &'static str)]) -> Result<ApplySettings, ConfigError> {
        let lookup = move |name: &str| {
            pairs
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        };
        ApplySettings::read(lookup)
    }

    #[test]
    fn every_wrong_variable_is_named() {
        let message = read(&[("PROXY_LISTEN_ADDR", "here")])
            .unwrap_err()
            .to_string();
        for name in [
            "PROXY_DATABASE_URL",
            "PROXY_KEY_HASHER_SECRET",
            "PROXY_LOCAL_ENCRYPTION_KEY",
            "PROXY_LISTEN_ADDR",
        ] {
            assert!(message.contains(name), "{message}");
        }
    }

    #[test]
    fn what_is_left_out_is_local_and_default() {
        let settings = read(&[
            ("PROXY_DATABASE_URL", "postgres://localhost/x"),
            (
                "PROXY_KEY_HASHER_SECRET",
                "a-hasher-secret-of-32-characters",
            ),
            (
                "PROXY_LOCAL_ENCRYPTION_KEY",
                "0123456789abcdef0123456789abcdef",
            ),
        ])
        .unwrap();
        assert_eq!(
            (settings.cluster_id.as_str(), settings.namespace.as_str()),
            ("local", "default")
        );
        assert_eq!(settings.base_url, "http://127.0.0.1:8080");
        assert_eq!(
            settings.rules(BTreeSet::new()).default_pool.to_string(),
            "default/default"
        );
    }

    #[test]
    fn a_url_leads_to_where_the_proxy_listens() {
        assert_eq!(
            base_url(SocketAddr::from(([192, 0, 2, 1], 80))),
            "http://192.0.2.1:80"
        );
        assert_eq!(base_url("[::]:8080".parse().unwrap()), "http://[::1]:8080");
    }
}
