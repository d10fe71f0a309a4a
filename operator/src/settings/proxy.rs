//! What proxies are made of.

use std::collections::BTreeMap;
use std::time::Duration;

use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::env::Vars;
use url::Url;

use super::words::Lookup;

/// The Secret in each pool namespace that holds the proxies' database URL, when nothing else is said.
const DEFAULT_DATABASE_SECRET: &str = "spillway-database";
/// Its entry, when nothing else is said.
const DEFAULT_DATABASE_SECRET_KEY: &str = "url";
/// The entry of the Secret with what requests prove that they came through the front door, when nothing else is said.
const DEFAULT_ORIGIN_VERIFY_KEY: &str = "secret";
/// `PROXY_DRAIN_DELAY` and `PROXY_SHUTDOWN_GRACE` of proxies that are told nothing.
const DRAIN_DELAY: u32 = 2;
const SHUTDOWN_GRACE: Duration = Duration::from_mins(10);

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
    "PROXY_PLAN_HOLD_BACK",
    "PROXY_PLAN_CONNECT_TIMEOUT",
    "PROXY_PLAN_FIRST_BYTE_TIMEOUT",
    "PROXY_PLAN_REQUEST_TIMEOUT",
    "PROXY_STREAM_IDLE_TIMEOUT",
    "PROXY_DRAIN_DELAY",
    "PROXY_SHUTDOWN_GRACE",
    "PROXY_BODY_BUDGET_MB",
    "PROXY_SPOOL_MAX_RECORDS",
    "PROXY_KMS_KEY_ID",
    "PROXY_LOG_LEVEL",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_BEDROCK_RUNTIME",
    "AWS_ENDPOINT_URL_KMS",
    "AWS_REGION",
];

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
    /// The Secret, in the pool's namespace, that holds their `PROXY_ORIGIN_VERIFY_SECRET`, if requests must prove that they
    /// came through the front door.
    pub origin_verify_secret: Option<SecretKey>,
    /// How long their own end may take: requests are still accepted for a while, then finished.
    pub end: Duration,
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

impl ProxySettings {
    /// Reads what proxies are made of; `lookup` gives what they inherit as it is.
    pub(super) fn read<F: Lookup>(vars: &mut Vars<F>, lookup: &impl Lookup) -> Self {
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
        Self {
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
            origin_verify_secret: vars
                .text("ORIGIN_VERIFY_SECRET_NAME")
                .map(|name| SecretKey {
                    name,
                    key: vars
                        .text("ORIGIN_VERIFY_SECRET_KEY")
                        .unwrap_or_else(|| DEFAULT_ORIGIN_VERIFY_KEY.to_owned()),
                }),
            end: Duration::from_secs(vars.parsed::<u32>("DRAIN_DELAY", DRAIN_DELAY).into())
                + vars.seconds("SHUTDOWN_GRACE").unwrap_or(SHUTDOWN_GRACE),
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
}

/// The listed upstreams and those that the environment's own URLs name.
pub(crate) fn allowed_upstreams<F: Lookup>(
    vars: &mut Vars<F>,
    lookup: &impl Lookup,
) -> AllowedUpstreams {
    let listed: AllowedUpstreams = vars.optional("ALLOWED_UPSTREAMS").unwrap_or_default();
    let bedrock = ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME", "AWS_ENDPOINT_URL"]
        .into_iter()
        .find_map(|name| lookup(name).filter(|url| !url.trim().is_empty()))
        .and_then(|url| Url::parse(url.trim()).ok());
    let named = vars
        .optional::<Url>("PLAN_API_URL")
        .into_iter()
        .chain(bedrock);
    named.fold(listed, |allowed, url| allowed.with_origin_of(&url))
}
