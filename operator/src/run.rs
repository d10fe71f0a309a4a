//! `spillway-operator run`: stands by, leads, and ends.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client, Config};
use spillway_core::env::ConfigError;
use spillway_core::repository::RepositoryError;
use spillway_crds::ProxyPool;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::cli::{self, Given};
use crate::context::Context;
use crate::database::{Fatal, Supervisor};
use crate::default_pool::ManifestError;
use crate::events::Events;
use crate::health::{AdminError, Health, Role};
use crate::leader::{Elector, HeldLease, Lost, Timing};
use crate::master_secrets::MasterSecrets;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::report::chain;
use crate::settings::RunSettings;
use crate::{circuit_status, controllers, default_pool, health, shutdown, sweep, usage_status};

/// How long what is in flight may take to end, well within a pod's usual 30 s of grace.
const DRAIN: Duration = Duration::from_secs(15);
/// Pause before the API server is asked again at the start.
const RETRY: Duration = Duration::from_secs(2);

/// Why `run` ended other than by being asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Variables or flags are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The default pool's manifest cannot be used.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The admin listener could not be had.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Neither a service account nor a kubeconfig.
    #[error("no cluster: run inside one, or name one by KUBECONFIG")]
    Cluster(#[source] kube::config::InferConfigError),
    /// The cluster's address or credentials cannot be used.
    #[error("the cluster's configuration cannot be used")]
    Client(#[source] kube::Error),
    /// The metrics could not be set up.
    #[error("the metrics could not be set up")]
    Metrics(#[from] prometheus::Error),
    /// The database's connections could not be set up.
    #[error("the connections to the database could not be set up")]
    Database(#[from] RepositoryError),
    /// The leadership was lost.
    #[error("not the leader any more")]
    Lost(#[from] Lost),
    /// The database does not accept this leader.
    #[error(transparent)]
    Fatal(#[from] Fatal),
    /// A part of the operator broke.
    #[error("a part of the operator ended unexpectedly")]
    Task(#[from] JoinError),
    /// The controllers ended by themselves.
    #[error("the controllers ended unexpectedly")]
    ControllersEnded,
}

impl RunError {
    /// Whether a person has to mend the configuration: exit code 2.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Config(_)
                | Self::Manifest(_)
                | Self::Admin(AdminError::Bind { .. })
                | Self::Cluster(_)
        )
    }
}

/// Runs until SIGTERM or SIGINT, or until this process must not go on.
pub async fn run(given: Given) -> Result<(), RunError> {
    let cluster = Config::infer().await;
    let own_namespace = cluster
        .as_ref()
        .map_or("default", |config| config.default_namespace.as_str());
    let settings = RunSettings::read(cli::lookup(&given), own_namespace)?;
    let default_pool = settings.default_pool_file.as_ref();
    let default_pool = default_pool
        .map(|path| default_pool::read_manifest(path, &settings.default_pool))
        .transpose()?;
    settings.log_level.start();
    let client = Client::try_from(cluster.map_err(RunError::Cluster)?).map_err(RunError::Client)?;
    let (health, metrics) = (Health::default(), Metrics::new()?);

    let stop = stop_on_signal();
    let admin = health::bind(settings.admin_addr, health.clone(), metrics.clone()).await?;
    let (admin_stop, health_at_end) = (CancellationToken::new(), health.clone());
    let serving = tokio::spawn(admin.serve(admin_stop.clone()));
    let operator = Operator {
        client,
        settings,
        default_pool,
        health,
        metrics,
    };
    let ended = operator.run(stop).await;
    health_at_end.set_role(Role::Stopping);
    admin_stop.cancel();
    if let Err(failure) = serving.await? {
        warn!(error = chain(&failure), "admin listener failed");
    }
    ended
}

fn stop_on_signal() -> CancellationToken {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        match shutdown::requested().await {
            Ok(()) => info!("asked to stop"),
            Err(failure) => error!(error = chain(&failure), "signals cannot be received"),
        }
        asked.cancel();
    });
    stop
}

/// One replica.
struct Operator {
    client: Client,
    settings: RunSettings,
    default_pool: Option<ProxyPool>,
    health: Health,
    metrics: Metrics,
}

impl Operator {
    async fn run(self, stop: CancellationToken) -> Result<(), RunError> {
        let Some(cluster_id) = stop.run_until_cancelled(cluster_id(&self.client)).await else {
            return Ok(());
        };
        info!(
            cluster_id,
            namespace = self.settings.namespace,
            "standing by"
        );
        self.health.set_role(Role::Standby);
        let identity = format!("{}_{}", self.settings.replica, uuid::Uuid::new_v4());
        let (namespace, lease) = (&self.settings.namespace, &self.settings.lease);
        let elector = Elector::new(
            self.client.clone(),
            namespace,
            lease,
            identity.clone(),
            Timing::default(),
        );
        let Some(held) = stop.run_until_cancelled(elector.acquire()).await else {
            return Ok(());
        };
        self.health.set_role(Role::Leader);
        self.metrics.leading(true);
        self.lead(cluster_id, &identity, held, stop).await
    }

    /// Leads until asked to stop or until the leadership is over.
    async fn lead(
        self,
        cluster_id: String,
        identity: &str,
        held: HeldLease,
        stop: CancellationToken,
    ) -> Result<(), RunError> {
        let resign = CancellationToken::new();
        let mut renewing = tokio::spawn(held.hold(resign.clone().cancelled_owned()));
        let mut work = Work::start(self, cluster_id, identity)?;
        let ended = tokio::select! {
            // Nothing is waited for: a successor may be at work already.
            lost = &mut renewing => return Err(lost?.err().map_or(RunError::ControllersEnded, RunError::Lost)),
            () = stop.cancelled() => Ok(()),
            failure = work.failure() => Err(failure),
        };
        let drained = timeout(DRAIN, work.drain());
        tokio::select! {
            lost = &mut renewing => return Err(lost?.err().map_or(RunError::ControllersEnded, RunError::Lost)),
            drained = drained => if drained.is_err() {
                warn!(seconds = DRAIN.as_secs(), "gave up waiting for what was in flight");
            },
        }
        resign.cancel();
        renewing.await??.release().await;
        ended
    }
}

/// What a leader does.
struct Work {
    controllers: JoinSet<()>,
    others: JoinSet<Option<Fatal>>,
    stop: CancellationToken,
}

impl Work {
    fn start(operator: Operator, cluster_id: String, identity: &str) -> Result<Self, RunError> {
        let Operator {
            client,
            settings,
            default_pool,
            health,
            metrics,
        } = operator;
        let kms_key_id = settings.proxy.kms_key_id.clone();
        let masters = MasterSecrets::new(
            client.clone(),
            settings.namespace.clone(),
            settings.given.clone(),
            kms_key_id,
        );
        let masters = Arc::new(masters);
        let (supervisor, database) = Supervisor::new(
            &settings.database,
            &cluster_id,
            identity,
            masters.clone(),
            health,
            metrics.clone(),
        )?;
        let events = Events::new(client.clone(), &settings.replica);
        let settings = Arc::new(settings.for_cluster(cluster_id));
        let context = Context {
            client: client.clone(),
            settings: settings.clone(),
            database: database.clone(),
            events: events.clone(),
            metrics: metrics.clone(),
            masters,
        };

        let stop = CancellationToken::new();
        let mut controllers = JoinSet::new();
        controllers.spawn(controllers::run(Arc::new(context), stop.clone()));
        let mut others = JoinSet::new();
        others.spawn(async { Some(supervisor.run().await) });
        let sweeping = sweep::run(
            client.clone(),
            database.clone(),
            settings.watch.clone(),
            metrics.clone(),
        );
        others.spawn(async {
            sweeping.await;
            None
        });
        let pace = Pace::of_status_writes();
        let showing = circuit_status::run(
            client.clone(),
            database.clone(),
            settings.watch.clone(),
            events,
            pace.clone(),
        );
        others.spawn(async {
            showing.await;
            None
        });
        let reporting = usage_status::run(
            client.clone(),
            database,
            settings.watch.clone(),
            metrics,
            pace,
        );
        others.spawn(async {
            reporting.await;
            None
        });
        if let Some(pool) = default_pool {
            others.spawn(async {
                default_pool::ensure(client, pool).await;
                None
            });
        }
        Ok(Self {
            controllers,
            others,
            stop,
        })
    }

    /// Waits until something ends the leadership.
    async fn failure(&mut self) -> RunError {
        loop {
            tokio::select! {
                ended = self.controllers.join_next() => return match ended {
                    Some(Err(panicked)) => RunError::Task(panicked),
                    _ => RunError::ControllersEnded,
                },
                Some(ended) = self.others.join_next() => match ended {
                    Ok(Some(fatal)) => return RunError::Fatal(fatal),
                    Ok(None) => {}
                    Err(panicked) => return RunError::Task(panicked),
                },
            }
        }
    }

    /// Lets reconciliations in flight end. The database stays supervised meanwhile.
    async fn drain(&mut self) {
        self.stop.cancel();
        while self.controllers.join_next().await.is_some() {}
        self.others.shutdown().await;
    }
}

/// The UID of the kube-system namespace, which is as good as a cluster's name. Asks until there is an answer.
async fn cluster_id(client: &Client) -> String {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    loop {
        match namespaces.get_metadata("kube-system").await {
            Ok(namespace) => {
                if let Some(uid) = namespace.metadata.uid {
                    return uid;
                }
                warn!("the kube-system namespace has no uid");
            }
            Err(failure) => warn!(
                error = chain(&failure),
                "the cluster's id could not be read"
            ),
        }
        sleep(RETRY).await;
    }
}
