//! Keeps the directory current: one task listens, one loads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures::FutureExt as _;
use spillway_core::domain::upstream::AllowedUpstreams;
use spillway_core::repository::DatabaseUrl;
use spillway_core::repository::listen::{ChangeFeed, Changes};
use spillway_core::security::envelope::Envelope;
use spillway_core::security::hasher::KeyHasher;
use sqlx::PgPool;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::directory::Directory;
use crate::directory::credentials::Vault;
use crate::directory::freshness::{Proof, UNPROVEN_AFTER};
use crate::directory::index::PoolDefaults;
use crate::directory::load::{LoadError, Loader, SecretMismatch, own_checks};
use crate::directory::mirror::Mirror;
use crate::directory::recheck::Recheck;
use crate::metrics::Metrics;

/// How often the listener is asked whether it still hears.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// How long connecting the listener may take.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// How long the start waits for Postgres before it looks at the mirror.
const FIRST_LOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Waits between attempts to reach Postgres.
const RETRY: Duration = Duration::from_millis(250);
/// How often everything is loaded while changes cannot be heard: configuration must arrive all the same.
const DEAF_POLL: Duration = Duration::from_millis(1500);
/// How often the mirror's age is brought up to date.
const MIRROR_TOUCH: Duration = Duration::from_secs(10);

/// What the directory is made with.
#[derive(Debug)]
pub struct DirectorySettings {
    /// For loads and checks.
    pub database: PgPool,
    /// For LISTEN.
    pub listen_url: DatabaseUrl,
    /// Which cluster's pool.
    pub cluster_id: String,
    /// The pool's namespace.
    pub namespace: String,
    /// The pool's name.
    pub pool: String,
    /// Finds keys.
    pub hasher: KeyHasher,
    /// Opens credentials.
    pub envelope: Envelope,
    /// Where credentials may be sent.
    pub allowed: AllowedUpstreams,
    /// What the pool does not say.
    pub defaults: PoolDefaults,
    /// Everything is loaded at least this often, whatever was announced.
    pub reload_interval: Duration,
    /// Where the mirror is kept.
    pub mirror_dir: PathBuf,
    /// Loads and keys are counted here.
    pub metrics: Arc<Metrics>,
}

/// The tasks that keep the directory current. They end when this is dropped.
#[derive(Debug)]
pub struct Watching {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    /// Answered when the first load, made later than the start, finds that this process must not run.
    pub mismatch: oneshot::Receiver<SecretMismatch>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Loads the pool, from the mirror while Postgres is away, and keeps it current. Without either, requests are refused until
/// Postgres answers.
///
/// # Errors
/// A master secret is another than the pool was written with.
pub async fn start(
    settings: DirectorySettings,
) -> Result<(Arc<Directory>, Watching), SecretMismatch> {
    let checks = own_checks(&settings.hasher, &settings.envelope);
    let directory = Arc::new(Directory {
        hasher: settings.hasher,
        index: ArcSwapOption::empty(),
        revision: AtomicU64::new(0),
        pool_id: ArcSwap::from_pointee(None),
        pool: watch::Sender::default(),
        circuits: Arc::default(),
        proof: Proof::new(),
        recheck: Recheck::new(settings.database.clone()),
        wanted: Notify::new(),
        tried: Notify::new(),
    });
    let (report, mismatch) = oneshot::channel();
    let mut loader = Loader {
        directory: Arc::clone(&directory),
        database: settings.database,
        mirror: Mirror::new(
            &settings.mirror_dir,
            &settings.cluster_id,
            &settings.namespace,
            &settings.pool,
        ),
        cluster_id: settings.cluster_id,
        namespace: settings.namespace,
        pool: settings.pool,
        vault: Vault::new(settings.envelope, settings.allowed),
        defaults: settings.defaults,
        checks,
        metrics: settings.metrics,
        mirrored: None,
        superseded: 0,
        complained: false,
    };
    let again = match loader.load(FIRST_LOAD_TIMEOUT).await {
        Ok(again) => again,
        Err(LoadError::Mismatch(mismatch)) => return Err(mismatch),
        Err(LoadError::Superseded | LoadError::NoSuchPool) => None,
        Err(LoadError::Database(_)) => {
            loader.load_mirror().await?;
            None
        }
    };
    let tasks = vec![
        tokio::spawn(listen(
            Arc::clone(&directory),
            settings.listen_url,
            loader.mirror.clone(),
        )),
        tokio::spawn(loader.run(settings.reload_interval, again, report)),
    ];
    Ok((directory, Watching { tasks, mismatch }))
}

/// Hears of changes, and proves every half second that none was missed.
async fn listen(directory: Arc<Directory>, url: DatabaseUrl, mirror: Mirror) {
    let (mut touched, mut polled) = (Instant::now(), Instant::now());
    let announce = || {
        directory.proof.announce();
        directory.wanted.notify_one();
    };
    let hear = |changes: &Changes| {
        if changes.configuration {
            announce();
        }
        let pool = **directory.pool_id.load();
        if pool.is_some_and(|pool| changes.circuits.contains(&pool)) {
            directory.circuits.notify_one();
        }
    };
    loop {
        let mut feed = match timeout(CONNECT_PATIENCE, ChangeFeed::connect(&url)).await {
            Ok(Ok(feed)) => feed,
            failed => {
                if let Ok(Err(error)) = &failed {
                    tracing::debug!(error = %error, "changes cannot be heard");
                }
                if polled.elapsed() > DEAF_POLL {
                    polled = Instant::now();
                    announce();
                    directory.circuits.notify_one();
                }
                sleep(RETRY).await;
                continue;
            }
        };
        // Whatever changed before this moment was not heard.
        announce();
        directory.circuits.notify_one();
        let mut ticks = interval(PROBE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                heard = feed.changed() => match heard {
                    Ok(changes) => hear(&changes),
                    Err(error) => {
                        tracing::warn!(error = %error, "changes are not heard any more");
                        break;
                    }
                },
                _ = ticks.tick() => {
                    let asked = Instant::now();
                    if !matches!(timeout(UNPROVEN_AFTER, feed.probe()).await, Ok(Ok(()))) {
                        tracing::warn!("listener does not answer");
                        break;
                    }
                    // What came with the answer counts before the answer.
                    match feed.changed().now_or_never() {
                        Some(Ok(changes)) => {
                            hear(&changes);
                            if !changes.configuration {
                                directory.proof.answered(asked);
                            }
                        }
                        Some(Err(_)) => break,
                        None => directory.proof.answered(asked),
                    }
                    if touched.elapsed() > MIRROR_TOUCH && directory.is_current() {
                        touched = Instant::now();
                        let _ = mirror.touch();
                    }
                }
            }
        }
    }
}
