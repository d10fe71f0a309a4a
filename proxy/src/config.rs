//! The proxy's environment. What the pool sets wins over it, and it over what is built in.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::env::{ConfigError, Vars};
use spillway_core::repository::DatabaseUrl;
use spillway_core::security::credentials::PlanSecret;
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use url::Url;

use crate::call::CircuitSettings;
use crate::directory::PoolDefaults;
use crate::routing::Timeouts;

/// Where Plan calls go when nothing says otherwise.
const PLAN_API_URL: &str = "https://api.anthropic.com";
/// Variables of the AWS SDK that name Bedrock's endpoint. What the environment itself names is allowed.
const AWS_ENDPOINTS: [&str; 2] = ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"];
/// A budget below the largest request would never serve it.
const MIN_BODY_BUDGET_MB: u64 = 32;

/// Everything that the environment says.
#[derive(Debug)]
pub struct Config {
    /// `PROXY_LISTEN_ADDR`: clients.
    pub listen_addr: SocketAddr,
    /// `PROXY_ADMIN_ADDR`: metrics and health.
    pub admin_addr: SocketAddr,
    /// `PROXY_DATABASE_URL`.
    pub database_url: DatabaseUrl,
    /// `PROXY_DATABASE_LISTEN_URL`, else the database URL.
    pub listen_url: DatabaseUrl,
    /// `PROXY_CLUSTER_ID`, `PROXY_NAMESPACE`, `PROXY_POOL`: which pool this proxy serves.
    pub pool: PoolName,
    /// `PROXY_KEY_HASHER_SECRET`.
    pub hasher: KeyHasher,
    /// `PROXY_LOCAL_ENCRYPTION_KEY` and `PROXY_KMS_KEY_ID`.
    pub encryption: Encryption,
    /// `PROXY_ALLOWED_UPSTREAMS` and what the environment's own URLs name.
    pub allowed_upstreams: AllowedUpstreams,
    /// `PROXY_PLAN_*`, `PROXY_BEDROCK_*`, `PROXY_CIRCUIT_*`.
    pub defaults: PoolDefaults,
    /// `AWS_ENDPOINT_URL_BEDROCK_RUNTIME`, else `AWS_ENDPOINT_URL`: where Bedrock is for credentials that do not say.
    pub bedrock_endpoint: Option<Url>,
    /// `PROXY_PLAN_CONNECT_TIMEOUT`.
    pub connect_timeout: Duration,
    /// How long upstreams may take.
    pub timeouts: Timeouts,
    /// The shorter of `PROXY_ACCESS_KEY_CACHE_TTL` and `PROXY_BEDROCK_KEY_CACHE_TTL`: keys and credentials are read anew at
    /// least this often, whatever was announced.
    pub reload_interval: Duration,
    /// `PROXY_SPOOL_DIR`: usage records and the mirror of keys.
    pub spool_dir: PathBuf,
    /// `PROXY_SPOOL_MAX_RECORDS`: how many usage records may wait for Postgres.
    pub spool_max_records: u64,
    /// `PROXY_BODY_BUDGET_MB`, in bytes: what the bodies of all requests in flight may hold.
    pub body_budget: usize,
    /// `PROXY_ORIGIN_VERIFY_SECRET`.
    pub origin_verify: Option<SecretString>,
    /// `PROXY_DRAIN_DELAY`: how long requests are still accepted after SIGTERM.
    pub drain_delay: Duration,
    /// `PROXY_SHUTDOWN_GRACE`: how long answers in flight may take after that.
    pub shutdown_grace: Duration,
    /// `PROXY_LOG_LEVEL`, with what must stay out of logs kept out.
    pub log_level: String,
}

/// A pool of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolName {
    /// Which cluster's rows.
    pub cluster_id: String,
    /// The pool's namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What credentials are opened with.
#[derive(Debug)]
pub struct Encryption {
    /// An envelope of the local keys.
    pub local: Option<SecretString>,
    /// The KMS key.
    pub kms_key_id: Option<String>,
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// One error that names every wrong variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// Reads variables from `lookup`, which is asked with the whole name.
    ///
    /// # Errors
    /// One error that names every wrong variable.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let mut vars = Vars::new(lookup);
        let bedrock_endpoint = bedrock_endpoint(&mut vars);
        let mut named: Vec<Url> = bedrock_endpoint.clone().into_iter().collect();
        let database_url = database_url(&mut vars, "DATABASE_URL");
        if database_url.is_none() {
            vars.problem(
                "DATABASE_URL",
                "is not set: write postgres://user:password@host:5432/database",
            );
        }
        let listen_url =
            self::database_url(&mut vars, "DATABASE_LISTEN_URL").or_else(|| database_url.clone());
        let hasher = hasher(&mut vars);
        let encryption = encryption(&mut vars);
        let defaults = defaults(&mut vars);
        let mut allowed_upstreams: AllowedUpstreams =
            vars.parsed("ALLOWED_UPSTREAMS", AllowedUpstreams::default());
        if vars.text("PLAN_API_URL").is_some() {
            named.push(defaults.plan_api_url.clone());
        }
        for url in &named {
            allowed_upstreams = allowed_upstreams.with_origin_of(url);
        }
        let key_ttl = vars
            .seconds("ACCESS_KEY_CACHE_TTL")
            .unwrap_or(Duration::from_mins(5));
        let credential_ttl = vars
            .seconds("BEDROCK_KEY_CACHE_TTL")
            .unwrap_or(Duration::from_mins(5));
        let connect_timeout = vars
            .seconds("PLAN_CONNECT_TIMEOUT")
            .unwrap_or(Duration::from_secs(5));
        let timeouts = timeouts(&mut vars);
        let listen_addr = vars.parsed("LISTEN_ADDR", any_address(8080));
        let admin_addr = vars.parsed("ADMIN_ADDR", any_address(9090));
        if listen_addr == admin_addr && listen_addr.port() != 0 {
            vars.problem(
                "ADMIN_ADDR",
                "is the same as PROXY_LISTEN_ADDR: metrics must not be where clients are",
            );
        }
        let spool_max_records = number(&mut vars, "SPOOL_MAX_RECORDS", 1, 500_000);
        let body_budget_mb = number(&mut vars, "BODY_BUDGET_MB", MIN_BODY_BUDGET_MB, 256);
        let text =
            |name: &str, otherwise: &str| vars.text(name).unwrap_or_else(|| otherwise.to_owned());
        let pool = PoolName {
            cluster_id: text("CLUSTER_ID", "local"),
            namespace: text("NAMESPACE", "default"),
            name: text("POOL", "default"),
        };
        let spool_dir = PathBuf::from(text("SPOOL_DIR", "/var/lib/spillway/spool"));
        let drain_delay = Duration::from_secs(number(&mut vars, "DRAIN_DELAY", 0, 2));
        let shutdown_grace = vars
            .seconds("SHUTDOWN_GRACE")
            .unwrap_or(Duration::from_mins(10));
        let origin_verify = vars.secret("ORIGIN_VERIFY_SECRET");
        let log_level = log_level(&mut vars);
        vars.finish(())?;
        let (Some(database_url), Some(listen_url), Some(hasher)) =
            (database_url, listen_url, hasher)
        else {
            unreachable!("what is absent was named as a problem");
        };
        Ok(Self {
            listen_addr,
            admin_addr,
            database_url,
            listen_url,
            pool,
            hasher,
            encryption,
            allowed_upstreams,
            defaults,
            bedrock_endpoint,
            connect_timeout,
            timeouts,
            reload_interval: key_ttl.min(credential_ttl),
            spool_dir,
            spool_max_records,
            body_budget: usize::try_from(body_budget_mb)
                .unwrap_or(usize::MAX)
                .saturating_mul(1024 * 1024),
            origin_verify,
            drain_delay,
            shutdown_grace,
            log_level,
        })
    }
}

/// The first of the SDK's variables that is set.
fn bedrock_endpoint<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> Option<Url> {
    let (name, text) = AWS_ENDPOINTS
        .iter()
        .find_map(|name| Some((name, vars.foreign_text(name)?)))?;
    let url = Url::parse(text.trim())
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https"));
    if url.is_none() {
        vars.foreign_problem(
            name,
            "is not an http(s) URL: write https://bedrock-runtime.eu-central-1.amazonaws.com",
        );
    }
    url
}

fn any_address(port: u16) -> SocketAddr {
    (Ipv4Addr::UNSPECIFIED, port).into()
}

fn database_url<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    name: &str,
) -> Option<DatabaseUrl> {
    let url = vars.secret(name)?;
    DatabaseUrl::parse(&url)
        .map_err(|error| vars.problem(name, error.to_string()))
        .ok()
}

fn hasher<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> Option<KeyHasher> {
    let name = "KEY_HASHER_SECRET";
    let secret = vars.required_secret(name, "give the secret that the operator hashes keys with");
    KeyHasher::from_config(&secret)
        .map_err(|error| vars.problem(name, error.to_string()))
        .ok()
}

fn encryption<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> Encryption {
    let name = "LOCAL_ENCRYPTION_KEY";
    let (local, kms_key_id) = (vars.secret(name), vars.text("KMS_KEY_ID"));
    match &local {
        None if kms_key_id.is_none() => vars.problem(name, "is not set: give the key that the operator encrypts credentials with, or PROXY_KMS_KEY_ID"),
        None => {}
        Some(key) => {
            if let Err(error) = Envelope::local(key) {
                vars.problem(name, error.to_string());
            }
        }
    }
    Encryption { local, kms_key_id }
}

fn defaults<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> PoolDefaults {
    let plan_api_url = match vars.optional::<Url>("PLAN_API_URL") {
        Some(url) if matches!(url.scheme(), "http" | "https") => Some(url),
        Some(_) => {
            vars.problem(
                "PLAN_API_URL",
                "is not an http(s) URL: write https://api.anthropic.com",
            );
            None
        }
        None => None,
    };
    let plan_api_key = vars.secret("PLAN_API_KEY").and_then(|key| {
        PlanSecret::parse(key.expose_secret())
            .map(|key| key.0)
            .map_err(|error| vars.problem("PLAN_API_KEY", error.to_string()))
            .ok()
    });
    PoolDefaults {
        plan_api_url: plan_api_url.unwrap_or_else(default_plan_api_url),
        plan_api_key,
        bedrock_region: vars.text("BEDROCK_REGION"),
        bedrock_default_model: vars.text("BEDROCK_DEFAULT_MODEL"),
        circuit: CircuitSettings {
            failure_threshold: u32::try_from(number(vars, "CIRCUIT_FAILURE_THRESHOLD", 1, 3))
                .unwrap_or(u32::MAX),
            failure_rate: 50,
            failure_window: vars
                .seconds("CIRCUIT_FAILURE_WINDOW")
                .unwrap_or(Duration::from_mins(1)),
            reset_timeout: vars
                .seconds("CIRCUIT_RESET_TIMEOUT")
                .unwrap_or(Duration::from_mins(30)),
        },
    }
}

fn default_plan_api_url() -> Url {
    Url::parse(PLAN_API_URL).unwrap_or_else(|_| unreachable!("{PLAN_API_URL} is a URL"))
}

fn timeouts<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> Timeouts {
    let idle = vars.seconds("STREAM_IDLE_TIMEOUT");
    Timeouts {
        plan_first_byte: vars
            .seconds("PLAN_FIRST_BYTE_TIMEOUT")
            .unwrap_or(Duration::from_mins(1)),
        plan_request: vars
            .seconds("PLAN_REQUEST_TIMEOUT")
            .unwrap_or(Duration::from_mins(10)),
        plan_idle: idle.unwrap_or(Duration::from_mins(2)),
        bedrock_idle: idle.unwrap_or(Duration::from_mins(5)),
        hold_back: vars
            .seconds("PLAN_HOLD_BACK")
            .unwrap_or(Duration::from_secs(10)),
    }
}

fn number<F: Fn(&str) -> Option<String>>(
    vars: &mut Vars<F>,
    name: &str,
    least: u64,
    otherwise: u64,
) -> u64 {
    let number = vars.parsed(name, otherwise);
    if number < least {
        vars.problem(
            name,
            format!("`{number}` is too small: give at least {least}"),
        );
    }
    number
}

/// Libraries that would write headers or bodies when they are asked for details are kept out of the log, whatever the level.
const QUIET: &str = "h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,sqlx=info,aws_config=info,aws_runtime=info,aws_sdk_bedrockruntime=info,aws_sdk_kms=info,aws_smithy_runtime=info,aws_smithy_runtime_api=info,aws_smithy_http=info,aws_smithy_eventstream=info,aws_smithy_http_client=info,aws_sigv4=info";

/// Whether a directive says more than [`QUIET`] where that is not to be: it would win, being the more specific one. So would a
/// directive on spans, in whatever library they are open.
fn breaks_silence(directive: &str) -> bool {
    let target = directive.split('=').next().unwrap_or_default().trim();
    let is_quiet = |quiet: &str| {
        let library = quiet.split('=').next().unwrap_or_default();
        target
            .strip_prefix(library)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    };
    directive.contains(['[', ']', '{', '}']) || QUIET.split(',').any(is_quiet)
}

fn log_level<F: Fn(&str) -> Option<String>>(vars: &mut Vars<F>) -> String {
    let level = vars.text("LOG_LEVEL").unwrap_or_else(|| "info".to_owned());
    if let Some(directive) = level.split(',').find(|directive| breaks_silence(directive)) {
        vars.problem("LOG_LEVEL", format!("`{directive}` could show what must stay out of logs: leave out spans in [] and the libraries that see headers and bodies"));
    }
    let filter = format!("{level},{QUIET}");
    if tracing_subscriber::EnvFilter::try_new(&filter).is_err() {
        vars.problem("LOG_LEVEL", format!("`{level}` is no log level: use error, warn, info, debug, or a filter such as info,spillway_proxy=debug"));
    }
    filter
}

#[cfg(test)]
mod tests;
