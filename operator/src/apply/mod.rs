//! `spillway-operator apply`: reconciles a file of manifests once, with no cluster.
//!
//! The same plans as on a cluster, another world: resources and Secrets come from the file, and the Secret of each key
//! is a file of its own. The file is the whole truth about what it names; rows of resources that it does not name stay as
//! they are. A key is ended with `disabled: true`, or by deleting its resource on a cluster.

mod files;
mod manifest;
mod master_keys;
mod settings;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use chrono::Utc;
use spillway_core::env::ConfigError;
use spillway_core::repository::{self, ConnectOptions, RepositoryError, leadership};

use self::files::Files;
use self::manifest::{Manifests, Refused, Resource};
use self::master_keys::MasterKeyError;
use self::settings::ApplySettings;
use crate::controllers::conditions::READY;
use crate::controllers::error::ReconcileError;
use crate::controllers::kind::Reconciled;
use crate::controllers::outcome::{Env, Outcome, Rows, Rules};
use crate::settings::Lookup;

/// How `apply` uses the database.
const CONNECTIONS: ConnectOptions = ConnectOptions {
    application_name: "spillway-operator apply",
    max_connections: 2,
    acquire_timeout: Duration::from_secs(10),
    statement_timeout: Duration::from_secs(30),
};

/// What `apply` is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The file of manifests; `-` is the standard input.
    pub file: PathBuf,
    /// Where each key's Secret is kept, as `<secretName>.yaml`.
    pub secrets_dir: PathBuf,
}

/// Why `apply` did not bring everything to what the file says.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Variables are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The file cannot be read.
    #[error("{} cannot be read", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be used; nothing was written.
    #[error("{}: {refused}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        #[source]
        refused: Refused,
    },
    /// The directory of Secrets cannot be made.
    #[error("{} cannot be made", directory.display())]
    SecretsDir {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Postgres refused or is away.
    #[error(transparent)]
    Database(#[from] RepositoryError),
    /// The schema is not there yet.
    #[error("the database has no schema: run `spillway-operator migrate` first")]
    NoSchema,
    /// The master secrets are not those that the rows were made with.
    #[error(transparent)]
    MasterKeys(#[from] MasterKeyError),
    /// A resource could not be reconciled.
    #[error("{resource}")]
    Reconcile {
        /// Kind, namespace and name.
        resource: String,
        /// Why.
        #[source]
        source: Box<ReconcileError>,
    },
    /// Resources are not as the file says; the others are.
    #[error("{} of {of} resources are not ready:{}", lines.len(), listed(lines))]
    NotReady {
        /// One line for each, with what to mend.
        lines: Vec<String>,
        /// How many resources the file has.
        of: usize,
    },
}

impl ApplyError {
    /// Whether the environment has to be mended: exit code 2.
    pub const fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_) | Self::MasterKeys(MasterKeyError::Malformed { .. })
        )
    }
}

fn listed(lines: &[String]) -> String {
    lines.iter().flat_map(|line| ["\n  ", line]).collect()
}

/// Brings Postgres and the directory of Secrets to what the file says, and prints a line for each resource. `lookup` gives
/// the environment's variables.
pub async fn run(options: &Options, lookup: impl Lookup) -> Result<(), ApplyError> {
    let settings = ApplySettings::read(lookup)?;
    settings.log_level.start();
    let text = read(&options.file)?;
    let manifests =
        Manifests::parse(&text, &settings.namespace).map_err(|refused| ApplyError::Refused {
            file: options.file.clone(),
            refused,
        })?;
    files::prepare(&options.secrets_dir).map_err(|source| ApplyError::SecretsDir {
        directory: options.secrets_dir.clone(),
        source,
    })?;
    let (hasher, envelope) = master_keys::build(&settings).await?;
    let pool = repository::connect(&settings.database_url, CONNECTIONS)?;
    if repository::schema_version(&pool).await?.is_none() {
        return Err(ApplyError::NoSchema);
    }
    let fence = leadership::acquire(&pool, &settings.cluster_id, "apply").await?;
    let rows = Rows {
        pool,
        fence,
        hasher,
        envelope,
    };
    master_keys::verify(&rows).await?;
    let rules = settings.rules(manifests.pool_namespaces());
    let resources = manifests.in_order();
    let world = Files::new(
        manifests,
        options.secrets_dir.clone(),
        settings.base_url.clone(),
    );
    let mut broken = Vec::new();
    for resource in &resources {
        let line = reconciled(&world, &rows, &rules, resource).await?;
        match line {
            Ok(line) => println!("{line}"),
            Err(line) => broken.push(line),
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        Err(ApplyError::NotReady {
            lines: broken,
            of: resources.len(),
        })
    }
}

fn read(file: &PathBuf) -> Result<String, ApplyError> {
    let text = if file.as_os_str() == "-" {
        io::read_to_string(io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|source| ApplyError::Read {
        file: file.clone(),
        source,
    })
}

/// One line about the resource: what it is now, or what is to be mended.
async fn reconciled(
    world: &Files,
    rows: &Rows,
    rules: &Rules,
    resource: &Resource,
) -> Result<Result<String, String>, ApplyError> {
    let env = Env {
        world,
        rows,
        rules,
        now: Utc::now(),
    };
    let name = resource.to_string();
    let judged = match resource {
        Resource::ProxyPool(resource) => judged(&env, resource.as_ref()).await,
        Resource::ProxyUser(resource) => judged(&env, resource).await,
        Resource::AccessKey(resource) => judged(&env, resource).await,
        Resource::BedrockCredential(resource) => judged(&env, resource).await,
    };
    let judged = judged.map_err(|source| ApplyError::Reconcile {
        resource: name.clone(),
        source: Box::new(source),
    })?;
    Ok(judged
        .map(|words| format!("{name}: {words}"))
        .map_err(|words| format!("{name}: {words}")))
}

async fn judged<K: Reconciled>(
    env: &Env<'_>,
    resource: &K,
) -> Result<Result<String, String>, ReconcileError> {
    let Outcome {
        judgements,
        problems,
        ..
    } = K::reconcile(env, resource).await?;
    let words = judgements
        .iter()
        .find(|judgement| judgement.type_ == READY)
        .map(|ready| format!("{}: {}", ready.reason, ready.message))
        .unwrap_or_default();
    // A key that has expired is as its manifest says.
    let is_broken = problems.iter().any(|problem| problem.reason != "Expired");
    Ok(if is_broken { Err(words) } else { Ok(words) })
}
