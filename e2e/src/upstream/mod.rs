//! Fake upstreams: an Anthropic Messages API ("Plan") and a Bedrock runtime that behave as they are told.

mod agent;
mod answer;
mod bedrock;
mod bedrock_count;
mod bedrock_invoke;
mod bedrock_turns;
mod behaviour;
mod config;
pub mod control;
mod conversation;
mod converse;
mod converse_blocks;
mod converse_fields;
mod converse_rules;
mod events;
mod eventstream;
mod gate;
mod handle;
mod journal;
mod line;
mod message;
mod messages_rules;
mod plan;
mod plan_rules;
mod plan_sse;
mod playback;
mod received;
mod script;
mod server;
mod service;
mod signature;
mod sigv4;
mod thinking_rules;
mod usage;

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use tokio::{net::TcpListener, task::JoinSet};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::service::Shared;
pub use self::{
    agent::{Act, Agent},
    behaviour::{Failure, HeaderIs, Mode, Operation, Reply, Rule, When},
    config::{
        AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AwsCredentials, BEDROCK_API_KEY, Config,
        PLAN_API_KEY,
    },
    gate::{GateState, Gates},
    handle::Upstream,
    journal::{Answer, Exchange, Journal, Kind, Outcome, digest, sha256_hex},
    script::{Action, Block, Fault, Point, Script},
    usage::Usage,
};

/// A fake did not start.
#[derive(Debug, thiserror::Error)]
#[error("listen on {address}")]
pub struct StartError {
    /// Where it should have listened.
    pub address: SocketAddr,
    /// Why it does not.
    #[source]
    pub source: io::Error,
}

/// Both fakes, running. Dropping it stops them at once.
pub struct FakeUpstreams {
    /// Base URL of the Plan, such as `http://127.0.0.1:41234`; no slash at the end.
    pub plan_url: String,
    /// Base URL (endpoint) of the Bedrock runtime; no slash at the end.
    pub bedrock_url: String,
    /// Steers the Plan.
    pub plan: Arc<Upstream>,
    /// Steers Bedrock.
    pub bedrock: Arc<Upstream>,
    /// Gates that scripts hold answers at.
    pub gates: Arc<Gates>,
    /// What both received and answered, in order.
    pub journal: Arc<Journal>,
    stop: CancellationToken,
    _stop_on_drop: DropGuard,
    servers: JoinSet<()>,
}

impl FakeUpstreams {
    /// Starts both on free ports of the loopback with the credentials of [`Config::default`].
    pub async fn start() -> Result<Self, StartError> {
        Self::start_with(Config::default()).await
    }

    /// Starts both as configured. The ports are open when it returns.
    pub async fn start_with(config: Config) -> Result<Self, StartError> {
        let plan_listener = listen(config.plan_listen).await?;
        let bedrock_listener = listen(config.bedrock_listen).await?;
        let plan_url = url(&plan_listener, config.plan_listen)?;
        let bedrock_url = url(&bedrock_listener, config.bedrock_listen)?;
        let journal = Arc::new(Journal::new(config.journal_bytes));
        let plan = Arc::new(Upstream::new(Kind::Plan, Arc::clone(&journal)));
        let bedrock = Arc::new(Upstream::new(Kind::Bedrock, Arc::clone(&journal)));
        let gates = Arc::new(Gates::default());
        let shared = Arc::new(Shared {
            config,
            plan: Arc::clone(&plan),
            bedrock: Arc::clone(&bedrock),
            gates: Arc::clone(&gates),
            journal: Arc::clone(&journal),
            instance: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |time| time.subsec_nanos() ^ std::process::id()),
        });
        let stop = CancellationToken::new();
        let mut servers = JoinSet::new();
        servers.spawn(server::serve(
            plan_listener,
            Arc::clone(&plan),
            Arc::clone(&shared),
            stop.clone(),
        ));
        servers.spawn(server::serve(
            bedrock_listener,
            Arc::clone(&bedrock),
            shared,
            stop.clone(),
        ));
        Ok(Self {
            plan_url,
            bedrock_url,
            plan,
            bedrock,
            gates,
            journal,
            _stop_on_drop: stop.clone().drop_guard(),
            stop,
            servers,
        })
    }

    /// Stops accepting and waits until running answers are finished, at most `limit`: some never end, on command.
    pub async fn stop(mut self, limit: Duration) {
        self.stop.cancel();
        let finished = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, finished).await.is_err() {
            tracing::warn!("answers were still running");
        }
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| StartError { address, source })
}

fn url(listener: &TcpListener, address: SocketAddr) -> Result<String, StartError> {
    let bound = listener
        .local_addr()
        .map_err(|source| StartError { address, source })?;
    Ok(format!("http://{bound}"))
}
