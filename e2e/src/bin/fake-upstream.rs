//! The fake upstreams as a program: for the demo's pod, and for tests and benchmarks in other processes.

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use clap::Parser;
use spillway_e2e::upstream::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AwsCredentials, BEDROCK_API_KEY, Config,
    FakeUpstreams, PLAN_API_KEY,
};
use tokio::signal::unix::{SignalKind, signal};

/// How long running answers may take to finish after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A Messages API and a Bedrock runtime that answer without a model, and fail on command.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Address of the Messages API.
    #[arg(long, env = "FAKE_PLAN_LISTEN", default_value = "127.0.0.1:8081")]
    plan_listen: SocketAddr,
    /// Address of the Bedrock runtime.
    #[arg(long, env = "FAKE_BEDROCK_LISTEN", default_value = "127.0.0.1:8082")]
    bedrock_listen: SocketAddr,
    /// Keys that the Messages API accepts, as x-api-key or else as bearer token.
    #[arg(long, env = "FAKE_PLAN_API_KEYS", value_delimiter = ',', hide_env_values = true, default_value = PLAN_API_KEY)]
    plan_api_key: Vec<String>,
    /// Bedrock API keys (bearer tokens) to accept.
    #[arg(long, env = "FAKE_BEDROCK_API_KEYS", value_delimiter = ',', hide_env_values = true, default_value = BEDROCK_API_KEY)]
    bedrock_api_key: Vec<String>,
    /// Access key id to accept signatures of.
    #[arg(long, env = "FAKE_AWS_ACCESS_KEY_ID", default_value = AWS_ACCESS_KEY_ID)]
    aws_access_key_id: String,
    /// Its secret.
    #[arg(long, env = "FAKE_AWS_SECRET_ACCESS_KEY", hide_env_values = true, default_value = AWS_SECRET_ACCESS_KEY)]
    aws_secret_access_key: String,
    /// Its session token, where it has one.
    #[arg(long, env = "FAKE_AWS_SESSION_TOKEN", hide_env_values = true)]
    aws_session_token: Option<String>,
    /// Region that signatures must be scoped to; any when left out.
    #[arg(long, env = "FAKE_AWS_REGION")]
    region: Option<String>,
    /// Refuse thinking that these upstreams did not sign, as the real ones do.
    #[arg(long, env = "FAKE_STRICT_SIGNATURES")]
    strict_signatures: bool,
    /// Body bytes that the journal keeps; 0 keeps no journal, for load tests.
    #[arg(long, env = "FAKE_JOURNAL_BYTES", default_value_t = Config::default().journal_bytes)]
    journal_bytes: usize,
}

impl From<Args> for Config {
    fn from(args: Args) -> Self {
        Self {
            plan_listen: args.plan_listen,
            bedrock_listen: args.bedrock_listen,
            plan_keys: args.plan_api_key,
            aws_credentials: vec![AwsCredentials {
                access_key_id: args.aws_access_key_id,
                secret_access_key: args.aws_secret_access_key,
                session_token: args.aws_session_token,
            }],
            bedrock_api_keys: args.bedrock_api_key,
            region: args.region,
            foreign_signatures: !args.strict_signatures,
            journal_bytes: args.journal_bytes,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .init();
    match run(Args::parse().into()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = error.as_ref(), "fake upstreams stopped");
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let fakes = FakeUpstreams::start_with(config).await?;
    ready(&fakes);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    fakes.stop(STOP_LIMIT).await;
    Ok(())
}

/// The one line on standard output: whoever started this waits for it, and reads the ports from it.
fn ready(fakes: &FakeUpstreams) {
    println!(
        "ready plan={} bedrock={}",
        fakes.plan_url, fakes.bedrock_url
    );
}
