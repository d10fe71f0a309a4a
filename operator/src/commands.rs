//! What the commands do, and how they end: a message and an exit code.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use kube::{Client, Config};
use spillway_core::env::{ConfigError, Vars};
use spillway_core::repository::{self, RepositoryError};

use crate::cli::{self, ApplyFlags, Command, ReleaseFlags};
use crate::database::MIGRATION;
use crate::leader::{Elector, Timing};
use crate::release::ReleaseError;
use crate::report::chain;
use crate::run::RunError;
use crate::settings::{DatabaseSettings, LogLevel, ReleaseSettings};
use crate::{apply, check, database_secret, release, run};

/// The configuration is wrong.
const EXIT_CONFIGURATION: u8 = 2;

/// How long nobody leads after `release`: long enough for Helm to delete the operator.
const RELEASED_FOR: Duration = Duration::from_mins(1);

/// Carries a command out. Logs and messages go to standard error, results to standard output.
pub async fn execute(command: Command) -> ExitCode {
    match command {
        Command::Run(flags) => ended_run(Box::pin(run::run(flags.given())).await),
        Command::Migrate => ended(migrate().await),
        Command::Apply(flags) => ended(Box::pin(apply(flags)).await),
        Command::Crds => ended(crds()),
        Command::Release(flags) => ended(release(flags).await),
        Command::Check(flags) => ended(check::run(flags).await.map_err(failed)),
        Command::DatabaseSecret(flags) => ended(database_secret(&flags).await),
    }
}

/// Why a one-off command failed.
enum Failure {
    Configuration(String),
    Failed(String),
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Configuration(error.to_string())
    }
}

fn failed(error: impl Error) -> Failure {
    Failure::Failed(chain(&error))
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Configuration(message)) => {
            eprintln!("spillway-operator: {message}");
            ExitCode::from(EXIT_CONFIGURATION)
        }
        Err(Failure::Failed(message)) => {
            eprintln!("spillway-operator: {message}");
            ExitCode::FAILURE
        }
    }
}

/// As [`ended`]; once `run` logs, its end is a line of the log.
fn ended_run(result: Result<(), RunError>) -> ExitCode {
    match result {
        Err(error) if !error.is_configuration() => {
            tracing::error!(error = chain(&error), "ended");
            ExitCode::FAILURE
        }
        Err(error) => ended(Err(Failure::Configuration(chain(&error)))),
        Ok(()) => ExitCode::SUCCESS,
    }
}

/// Brings the database to this version's schema and says from where.
async fn migrate() -> Result<(), Failure> {
    let mut vars = Vars::from_process();
    let level = LogLevel::read(&mut vars);
    let database = DatabaseSettings::read(&mut vars);
    let database = vars.finish_some(database)?;
    level.start();
    let (before, after) = migrated(&database).await.map_err(failed)?;
    match (before, after) {
        (Some(before), after) if before == after => {
            println!("the schema is at version {after} already");
        }
        (Some(before), after) => println!("the schema went from version {before} to {after}"),
        (None, after) => println!("the schema was created at version {after}"),
    }
    Ok(())
}

async fn migrated(database: &DatabaseSettings) -> Result<(Option<i64>, i64), RepositoryError> {
    let pool = repository::connect(database.direct_url(), MIGRATION)?;
    let before = repository::schema_version(&pool).await?;
    repository::migrate(&pool).await?;
    let after = repository::schema_version(&pool).await?;
    Ok((before, after.unwrap_or_default()))
}

/// Brings the database to what a file says.
async fn apply(flags: ApplyFlags) -> Result<(), Failure> {
    let options = apply::Options {
        file: flags.file,
        secrets_dir: flags.secrets_dir,
    };
    let applied = apply::run(&options, |name| std::env::var(name).ok()).await;
    applied.map_err(|error| {
        if error.is_configuration() {
            Failure::Configuration(chain(&error))
        } else {
            failed(error)
        }
    })
}

/// Prints the custom resource definitions as one YAML stream.
fn crds() -> Result<(), Failure> {
    for definition in spillway_crds::definitions().map_err(failed)? {
        print!("---\n{}", definition.yaml().map_err(failed)?);
    }
    Ok(())
}

/// Lets every resource go.
async fn release(flags: ReleaseFlags) -> Result<(), Failure> {
    let cluster = Config::infer().await;
    let own_namespace = cluster
        .as_ref()
        .map_or("default", |config| config.default_namespace.as_str());
    let settings = ReleaseSettings::read(cli::lookup(&flags.given()), own_namespace)?;
    settings.log_level.start();
    let client = client(cluster)?;
    let timing = Timing {
        lease_duration: RELEASED_FOR,
        ..Timing::default()
    };
    let identity = format!("release_{}", uuid::Uuid::new_v4());
    let elector = Elector::new(
        client.clone(),
        &settings.namespace,
        &settings.lease,
        identity,
        timing,
    );
    let released: Result<u64, ReleaseError> = release::release(&client, elector).await;
    println!("released {} resources", released.map_err(failed)?);
    Ok(())
}

async fn database_secret(flags: &database_secret::DatabaseSecretFlags) -> Result<(), Failure> {
    let mut vars = Vars::from_process();
    let level = LogLevel::read(&mut vars);
    vars.finish(level)?.start();
    let client = client(Config::infer().await)?;
    database_secret::run(&client, flags).await.map_err(failed)
}

fn client(cluster: Result<Config, kube::config::InferConfigError>) -> Result<Client, Failure> {
    let config =
        cluster.map_err(|error| Failure::Configuration(chain(&RunError::Cluster(error))))?;
    Client::try_from(config).map_err(failed)
}
