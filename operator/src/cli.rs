//! The command line.
//!
//! Every flag is a `PROXY_*` variable too; a flag wins. Nothing is parsed here, so that one message can name everything
//! that is wrong, wherever it came from.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::check::CheckFlags;
use crate::database_secret::DatabaseSecretFlags;

const AFTER_HELP: &str = "\
Every option can be given as an environment variable of the name that its help shows; an option wins over the variable.
Secrets are read from the environment alone.

Environment:
  PROXY_DATABASE_URL          postgres://user:password@host:5432/name; TLS is verify-full unless ?sslmode says otherwise
  PROXY_DATABASE_LISTEN_URL   a direct connection, where PROXY_DATABASE_URL leads to a pooler
  PROXY_KEY_HASHER_SECRET     secret that access keys are hashed with: `secret` or `id:secret,id:secret`, newest first
                              [default: made once, kept in Secret spillway-key-hasher]
  PROXY_LOCAL_ENCRYPTION_KEY  key that credentials are encrypted with: 32 bytes or their base64, or `id:key,id:key`
                              [default: made once, kept in Secret spillway-local-encryption]
  PROXY_KMS_KEY_ID            AWS KMS key to encrypt credentials with instead
  PROXY_ALLOWED_UPSTREAMS     hosts, patterns or origins that keys and credentials may be sent to
                              [default: api.anthropic.com,*.amazonaws.com]
  PROXY_ADMIN_ADDR            /metrics, /healthz and /readyz of `run` [default: 0.0.0.0:9090]
  PROXY_LOG_LEVEL             error, warn, info, debug, trace, or a filter such as info,spillway_operator=debug

Exit codes: 0 done, 1 failed, 2 the configuration is wrong (every wrong variable is named).";

/// Spillway's operator: custom resources become keys, database rows and proxies.
#[derive(Debug, Parser)]
#[command(name = "spillway-operator", version, about, after_help = AFTER_HELP, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the operator can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch the cluster's Spillway resources and make them so; one replica leads, the others stand by
    Run(Box<RunFlags>),
    /// Bring the database to this version's schema (the leader of `run` does so by itself)
    Migrate,
    /// Reconcile a YAML file of Spillway resources and Secrets into the database once, without a cluster
    Apply(ApplyFlags),
    /// Print the custom resource definitions as YAML
    Crds,
    /// Remove Spillway's finalizers from every resource and stop the leader, before an uninstall
    Release(ReleaseFlags),
    /// Make the Secret of the chart's evaluation database, unless it is there
    DatabaseSecret(DatabaseSecretFlags),
    /// Ask URLs until they answer with success
    Check(CheckFlags),
}

/// What `apply` is told.
#[derive(Debug, Args)]
pub struct ApplyFlags {
    /// YAML file with Spillway resources and v1 Secrets; `-` is the standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Directory that each key's Secret is kept in, as <secretName>.yaml
    #[arg(long, value_name = "DIR")]
    pub secrets_dir: PathBuf,
}

/// What `run` can be told.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "they are the help's text")]
pub struct RunFlags {
    #[command(flatten)]
    lease: ReleaseFlags,
    /// Namespaces that pools may live in and their proxies run in, separated by commas [PROXY_POOL_NAMESPACES] [default: the operator's own]
    #[arg(long, value_name = "NAMESPACES")]
    pool_namespaces: Option<String>,
    /// Namespaces whose resources count, separated by commas [PROXY_WATCH_NAMESPACES] [default: all]
    #[arg(long, value_name = "NAMESPACES")]
    watch_namespaces: Option<String>,
    /// The pool of users that name none [PROXY_DEFAULT_POOL] [default: `default` in the first pool namespace]
    #[arg(long, value_name = "[NAMESPACE/]NAME")]
    default_pool: Option<String>,
    /// Manifest of the default pool, made when there is no pool of that name [PROXY_DEFAULT_POOL_FILE]
    #[arg(long, value_name = "FILE")]
    default_pool_file: Option<String>,
    /// Container image of the proxies of pools that name none [PROXY_IMAGE]
    #[arg(long, value_name = "IMAGE")]
    proxy_image: Option<String>,
    /// Secrets that the proxies' image is pulled with, separated by commas [PROXY_IMAGE_PULL_SECRETS]
    #[arg(long, value_name = "SECRETS")]
    image_pull_secrets: Option<String>,
    /// Secret in each pool namespace with the proxies' database URL [PROXY_DATABASE_SECRET] [default: spillway-database]
    #[arg(long, value_name = "SECRET")]
    database_secret: Option<String>,
    /// Its entry [PROXY_DATABASE_SECRET_KEY] [default: url]
    #[arg(long, value_name = "KEY")]
    database_secret_key: Option<String>,
    /// Secret in each pool namespace with a URL that leads past a pooler [PROXY_DATABASE_LISTEN_SECRET]
    #[arg(long, value_name = "SECRET")]
    database_listen_secret: Option<String>,
    /// Its entry [PROXY_DATABASE_LISTEN_SECRET_KEY] [default: url]
    #[arg(long, value_name = "KEY")]
    database_listen_secret_key: Option<String>,
    /// Secret in each pool namespace with what requests must have in x-origin-verify [PROXY_ORIGIN_VERIFY_SECRET_NAME]
    #[arg(long, value_name = "SECRET")]
    origin_verify_secret_name: Option<String>,
    /// Its entry [PROXY_ORIGIN_VERIFY_SECRET_KEY] [default: secret]
    #[arg(long, value_name = "KEY")]
    origin_verify_secret_key: Option<String>,
    /// Name of this replica, in the Lease and in Events [PROXY_REPLICA] [default: the host name, which is the pod's]
    #[arg(long, value_name = "NAME")]
    replica: Option<String>,
}

/// What names the Lease.
#[derive(Debug, Args)]
#[allow(clippy::doc_markdown, reason = "they are the help's text")]
pub struct ReleaseFlags {
    /// The operator's own namespace [PROXY_NAMESPACE] [default: the service account's, or the kubeconfig's]
    #[arg(long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The Lease by which replicas elect their leader [PROXY_LEASE_NAME] [default: spillway-operator]
    #[arg(long, value_name = "LEASE")]
    lease_name: Option<String>,
}

/// Flags by the variable that each of them stands for.
pub type Given = HashMap<&'static str, String>;

impl RunFlags {
    /// The flags that were given, by variable.
    pub fn given(self) -> Given {
        let mut given = self.lease.given();
        let more = [
            ("PROXY_POOL_NAMESPACES", self.pool_namespaces),
            ("PROXY_WATCH_NAMESPACES", self.watch_namespaces),
            ("PROXY_DEFAULT_POOL", self.default_pool),
            ("PROXY_DEFAULT_POOL_FILE", self.default_pool_file),
            ("PROXY_IMAGE", self.proxy_image),
            ("PROXY_IMAGE_PULL_SECRETS", self.image_pull_secrets),
            ("PROXY_DATABASE_SECRET", self.database_secret),
            ("PROXY_DATABASE_SECRET_KEY", self.database_secret_key),
            ("PROXY_DATABASE_LISTEN_SECRET", self.database_listen_secret),
            (
                "PROXY_DATABASE_LISTEN_SECRET_KEY",
                self.database_listen_secret_key,
            ),
            (
                "PROXY_ORIGIN_VERIFY_SECRET_NAME",
                self.origin_verify_secret_name,
            ),
            (
                "PROXY_ORIGIN_VERIFY_SECRET_KEY",
                self.origin_verify_secret_key,
            ),
            ("PROXY_REPLICA", self.replica),
        ];
        given.extend(
            more.into_iter()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        given
    }
}

impl ReleaseFlags {
    /// The flags that were given, by variable.
    pub fn given(self) -> Given {
        [
            ("PROXY_NAMESPACE", self.namespace),
            ("PROXY_LEASE_NAME", self.lease_name),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect()
    }
}

/// Looks a variable up: among the flags, then in the environment.
pub fn lookup(given: &Given) -> impl Fn(&str) -> Option<String> {
    move |name| {
        given
            .get(name)
            .cloned()
            .or_else(|| std::env::var(name).ok())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_flag_wins_over_the_environment() {
        let cli = Cli::parse_from([
            "spillway-operator",
            "run",
            "--pool-namespaces",
            "a,b",
            "--namespace",
            "own",
        ]);
        let Command::Run(flags) = cli.command else {
            panic!("{cli:?}")
        };
        let given = flags.given();
        assert_eq!(given.len(), 2);
        let lookup = lookup(&given);
        assert_eq!(lookup("PROXY_POOL_NAMESPACES").as_deref(), Some("a,b"));
        assert_eq!(lookup("PROXY_NAMESPACE").as_deref(), Some("own"));
        assert_eq!(lookup("PATH"), std::env::var("PATH").ok());
    }
}
