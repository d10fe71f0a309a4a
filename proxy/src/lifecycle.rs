//! The process from its start to its end.
//!
//! Start: configuration, listeners bound, spool opened, keys loaded, then served. End, on SIGTERM: not ready at once, requests
//! still taken while endpoints are removed, then no new connections, answers in flight finished, the spool flushed, exit 0. Told a
//! second time, it cuts off the answers in flight at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_config::BehaviorVersion;
use spillway_core::repository::{self, ConnectOptions, PgPool, RepositoryError};
use spillway_core::security::envelope::Envelope;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::adapter::bedrock::Bedrock;
use crate::adapter::bedrock_relay::BedrockRelay;
use crate::adapter::plan::PlanAdapter;
use crate::adapter::{HttpClients, HttpSettings, TlsSetupError};
use crate::call::PoolView;
use crate::config::{Config, Encryption};
use crate::directory::{self, Directory, DirectorySettings, SecretMismatch};
use crate::http::Frontend;
use crate::http::admin::{self, Health};
use crate::http::auth::OriginVerify;
use crate::http::body::ByteBudget;
use crate::http::server::{self, Ending};
use crate::metering::{Clock, Flusher, Meter, Spool, SpoolError};
use crate::metrics::Metrics;
use crate::routing::{
    BedrockFormat, CircuitStore, Counter, Router, SharedCircuits, SharedSettings, Timeouts,
};

/// Few, for the hot path needs none: loads, key checks, usage batches.
const DATABASE: ConnectOptions = ConnectOptions {
    application_name: "spillway-proxy",
    max_connections: 4,
    acquire_timeout: Duration::from_secs(2),
    statement_timeout: Duration::from_secs(10),
};
/// How long the end waits for Postgres to take what is left in the spool. What it does not take survives in the spool.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

/// Why the proxy cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A master secret is another than the rows were written with.
    #[error("the configuration is wrong:\n  {0}")]
    Mismatch(#[from] SecretMismatch),
    /// A listener cannot be had.
    #[error("{variable}: cannot listen on {address}: {source}")]
    Listen {
        /// The variable that names the address.
        variable: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The spool cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The database pool cannot be made.
    #[error(transparent)]
    Database(#[from] RepositoryError),
    /// The encryption keys cannot be used.
    #[error("PROXY_LOCAL_ENCRYPTION_KEY: {0}")]
    Encryption(String),
    /// No TLS.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// Metrics clash.
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    /// Signals cannot be heard.
    #[error("signals cannot be heard")]
    Signals(#[source] std::io::Error),
}

/// Serves until SIGTERM or SIGINT and ends cleanly.
///
/// # Errors
/// What makes serving impossible.
pub async fn run(config: Config) -> Result<(), RunError> {
    let mut stop = StopSignal::new()?;
    let metrics = Arc::new(Metrics::new()?);
    let public = listen("PROXY_LISTEN_ADDR", config.listen_addr).await?;
    let private = listen("PROXY_ADMIN_ADDR", config.admin_addr).await?;
    let spool = Arc::new(Spool::open(&config.spool_dir, config.spool_max_records)?);
    let database = repository::connect(&config.database_url, DATABASE)?;
    let envelope = envelope(&config.encryption).await?;
    let (directory, mut watching) = directory::start(DirectorySettings {
        database: database.clone(),
        listen_url: config.listen_url,
        cluster_id: config.pool.cluster_id,
        namespace: config.pool.namespace,
        pool: config.pool.name,
        hasher: config.hasher,
        envelope,
        allowed: config.allowed_upstreams.clone(),
        defaults: config.defaults,
        reload_interval: config.reload_interval,
        mirror_dir: config.spool_dir.clone(),
        metrics: Arc::clone(&metrics),
    })
    .await?;

    let clients = HttpClients::new(&HttpSettings {
        allowed: Arc::new(config.allowed_upstreams),
        connect_timeout: config.connect_timeout,
    })?;
    tokio::spawn(warm(clients.clone(), directory.pool()));
    let upstreams = Upstreams::new(
        &clients,
        config.bedrock_endpoint.as_ref(),
        circuits(&directory, database.clone(), config.spool_dir.clone()).await,
        config.timeouts,
    );
    let health = Health::new(
        Arc::clone(&directory),
        Arc::clone(&spool),
        Arc::clone(&upstreams.router),
        Arc::clone(&metrics),
    );
    let health = Arc::new(health);
    let admin =
        tokio::spawn(axum::serve(private, admin::routes(Arc::clone(&health))).into_future());
    let clock = Arc::new(Clock::default());
    let flusher = Arc::new(Flusher::new(
        Arc::clone(&spool),
        database,
        Arc::clone(&clock),
        Arc::clone(&metrics),
    ));
    let stop_flushing = CancellationToken::new();
    let flushing = tokio::spawn({
        let (flusher, stop) = (Arc::clone(&flusher), stop_flushing.clone());
        async move { flusher.run(&stop).await }
    });
    let ending = Ending::default();
    let frontend = Arc::new(Frontend {
        directory,
        meter: Meter::new(Arc::clone(&spool), Arc::clone(&metrics), ending.cut.clone()),
        router: upstreams.router,
        bedrock_format: upstreams.bedrock_format,
        counter: upstreams.counter,
        plan: upstreams.plan,
        clock,
        body_budget: ByteBudget::new(config.body_budget, metrics.body_bytes.clone()),
        origin_verify: OriginVerify::new(config.origin_verify.as_ref()),
        metrics,
        cut: ending.cut.clone(),
    });
    let serving = tokio::spawn(server::serve(
        public,
        frontend,
        ending.clone(),
        config.shutdown_grace,
    ));
    tracing::info!(listen = %config.listen_addr, admin = %config.admin_addr, "serving");

    let mismatch = tokio::select! {
        () = stop.received() => None,
        Ok(mismatch) = &mut watching.mismatch => Some(mismatch),
    };
    health.drain();
    let delay = if mismatch.is_none() {
        config.drain_delay
    } else {
        Duration::ZERO
    };
    end(&mut stop, &ending, delay, serving).await;
    stop_flushing.cancel();
    let _ = flushing.await;
    if flusher.drain(FLUSH_PATIENCE).await {
        tracing::info!("drained");
    } else {
        tracing::warn!(
            records = spool.records(),
            "ended with usage left in the spool"
        );
    }
    admin.abort();
    mismatch.map_or(Ok(()), |mismatch| Err(mismatch.into()))
}

/// Goes on accepting for `delay`, then waits until all is answered, unless it is told to end again.
async fn end(
    stop: &mut StopSignal,
    ending: &Ending,
    delay: Duration,
    mut serving: tokio::task::JoinHandle<()>,
) {
    let ended = async {
        tracing::info!(delay_seconds = delay.as_secs(), "draining");
        tokio::time::sleep(delay).await;
        ending.stop.cancel();
        let _ = (&mut serving).await;
    };
    tokio::select! {
        () = ended => return,
        () = stop.received() => {}
    }
    tracing::warn!("told to end again: not waiting for answers in flight");
    ending.stop.cancel();
    ending.cut.cancel();
    let _ = serving.await;
}

/// What asks the upstreams.
struct Upstreams {
    router: Arc<Router>,
    bedrock_format: BedrockFormat,
    counter: Counter,
    plan: PlanAdapter,
}

impl Upstreams {
    fn new(
        clients: &HttpClients,
        bedrock_endpoint: Option<&Url>,
        circuits: Arc<dyn CircuitStore>,
        timeouts: Timeouts,
    ) -> Self {
        let plan = PlanAdapter::new(clients);
        let bedrock = Bedrock::new(clients, bedrock_endpoint.cloned());
        let relay = Arc::new(BedrockRelay::new(clients, bedrock_endpoint.cloned()));
        Self {
            router: Arc::new(Router::new(
                plan.clone(),
                bedrock,
                Arc::clone(&circuits),
                timeouts,
            )),
            bedrock_format: BedrockFormat::new(Arc::clone(&relay), timeouts),
            counter: Counter::new(plan.clone(), relay, circuits, timeouts),
            plan,
        }
    }
}

/// Connects to the Plan ahead of the first request, as soon as it is known where that is.
async fn warm(clients: HttpClients, mut pool: watch::Receiver<Option<Arc<PoolView>>>) {
    let url = match pool.wait_for(Option::is_some).await {
        Ok(pool) => pool.as_ref().and_then(|pool| pool.plan_url.clone()),
        Err(_) => None,
    };
    if let Some(url) = url {
        clients.warm(&url).await;
    }
}

async fn circuits(
    directory: &Directory,
    database: PgPool,
    mirror_dir: PathBuf,
) -> Arc<SharedCircuits> {
    let circuits = SharedCircuits::start(SharedSettings {
        database,
        pool: directory.pool(),
        changed: directory.circuits(),
        mirror_dir,
    });
    Arc::new(circuits.await)
}

async fn listen(variable: &'static str, address: SocketAddr) -> Result<TcpListener, RunError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| RunError::Listen {
            variable,
            address,
            source,
        })
}

async fn envelope(encryption: &Encryption) -> Result<Envelope, RunError> {
    let envelope = match (&encryption.kms_key_id, &encryption.local) {
        (None, Some(local)) => Envelope::local(local),
        (None, None) => return Err(RunError::Encryption("is not set".to_owned())),
        (Some(key_id), local) => {
            let shared = aws_config::load_defaults(BehaviorVersion::latest()).await;
            Envelope::kms(
                aws_sdk_kms::Client::new(&shared),
                key_id.as_str(),
                local.as_ref(),
            )
        }
    };
    envelope.map_err(|error| RunError::Encryption(error.to_string()))
}

struct StopSignal {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl StopSignal {
    fn new() -> Result<Self, RunError> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(RunError::Signals)?,
            interrupt: signal(SignalKind::interrupt()).map_err(RunError::Signals)?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
