//! Which circuits are not closed, in the status of their pools.
//!
//! Postgres is asked every [`PERIOD`]: a circuit becomes half-open by time alone. Only what changed is written, at the
//! [`Pace`] of all such writes; what status says is read every [`REREAD`], for others may have changed it. The patch holds `status.circuits` and nothing else, under a field manager of its own, so that
//! it meets no write of the controllers; these ignore changes of status.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use spillway_core::domain::usage::FallbackReason;
use spillway_core::repository::RepositoryError;
use spillway_core::repository::circuits::{self, ListedCircuit};
use spillway_crds::{
    CircuitState, CircuitStatus, MAX_CIRCUITS, ProxyPool, RESET_CIRCUIT_ANNOTATION,
};
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::controllers::outcome::to_kubernetes;
use crate::database::{Database, Session};
use crate::events::Events;
use crate::pace::Pace;
use crate::report::chain;
use crate::settings::WatchScope;

/// Field manager of the patches.
const FIELD_MANAGER: &str = "spillway-circuits";
/// How often Postgres is asked.
const PERIOD: Duration = Duration::from_secs(2);
/// How often status is read again.
const REREAD: Duration = Duration::from_hours(1);
/// What stands for the Plan key of the proxies' environment.
const ENVIRONMENT: &str = "environment";

/// Why circuits were not shown this time.
#[derive(Debug, thiserror::Error)]
enum ShowError {
    #[error("the circuits could not be read")]
    Database(#[from] RepositoryError),
    #[error("the ProxyPool resources could not be listed")]
    List(#[source] kube::Error),
}

/// A pool and what its status says, or is to say.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shown {
    namespace: String,
    name: String,
    circuits: Vec<CircuitStatus>,
}

/// Pools by uid.
type Pools = BTreeMap<String, Shown>;

/// Shows circuits until it is dropped. For the leader alone.
pub async fn run(
    client: Client,
    database: Database,
    scope: WatchScope,
    events: Events,
    pace: Pace,
) {
    let mut showing = Showing {
        client,
        scope,
        events,
        pace,
        written: None,
        read_at: Instant::now(),
    };
    loop {
        let session = database.ready().await;
        if let Err(error) = showing.show(&session).await {
            if let ShowError::Database(error) = &error {
                database.report(error);
            }
            warn!(error = chain(&error), "circuits not shown");
        }
        sleep(PERIOD).await;
    }
}

struct Showing {
    client: Client,
    scope: WatchScope,
    events: Events,
    pace: Pace,
    /// What status says, as far as it is known.
    written: Option<Pools>,
    /// When status was read for the last time.
    read_at: Instant,
}

impl Showing {
    async fn show(&mut self, session: &Session) -> Result<(), ShowError> {
        let listed = circuits::list(&session.pool, session.cluster_id()).await?;
        let mut written = match self.written.take() {
            Some(written) if self.read_at.elapsed() < REREAD => written,
            _ => {
                let read = self.learn().await?;
                self.read_at = Instant::now();
                read
            }
        };
        let mut wanted = shown(&listed);
        // Where everything closed there are no rows any more.
        for (uid, pool) in &written {
            wanted.entry(uid.clone()).or_insert_with(|| Shown {
                circuits: Vec::new(),
                ..pool.clone()
            });
        }
        for (uid, pool) in wanted {
            if self.scope.includes(&pool.namespace) {
                self.show_pool(uid, pool, &mut written).await;
            }
        }
        self.written = Some(written);
        Ok(())
    }

    /// Writes what one pool is to say, unless it does.
    async fn show_pool(&self, uid: String, pool: Shown, written: &mut Pools) {
        let former = written.get(&uid).map_or(&[][..], |pool| &pool.circuits);
        if *former == pool.circuits {
            // What says nothing need not be remembered.
            if pool.circuits.is_empty() {
                written.remove(&uid);
            }
            return;
        }
        self.pace.turn().await;
        match write(&self.client, &uid, &pool).await {
            Ok(true) => {
                for note in refusals(former, &pool.circuits) {
                    let about = reference(&uid, &pool);
                    self.events
                        .warning(&about, "PlanRefused", "OpenCircuit", note)
                        .await;
                }
                written.insert(uid, pool);
            }
            Ok(false) => {
                debug!(namespace = pool.namespace, name = pool.name, "pool is gone");
                written.remove(&uid);
            }
            Err(error) => warn!(
                namespace = pool.namespace,
                name = pool.name,
                error = chain(&error),
                "circuits not written"
            ),
        }
    }

    /// Reads what status says now, so that a new leader writes nothing that is there already.
    async fn learn(&self) -> Result<Pools, ShowError> {
        let pools: Api<ProxyPool> = Api::all(self.client.clone());
        let pools = pools
            .list(&ListParams::default())
            .await
            .map_err(ShowError::List)?;
        let says = |pool: ProxyPool| {
            let shown = Shown {
                namespace: pool.namespace()?,
                name: pool.name_any(),
                circuits: pool.status.as_ref()?.circuits.clone(),
            };
            Some((pool.uid()?, shown)).filter(|(_, shown)| !shown.circuits.is_empty())
        };
        Ok(pools.into_iter().filter_map(says).collect())
    }
}

/// What the pools of these circuits are to say: what is open first, refused credentials before models, then the newest.
fn shown(listed: &[ListedCircuit]) -> Pools {
    let mut pools = Pools::new();
    let mut sorted: Vec<_> = listed.iter().collect();
    sorted.sort_by_key(|it| (!it.is_open, it.model.is_some(), Reverse(it.opened_at)));
    for circuit in sorted {
        let pool = pools.entry(circuit.uid.clone()).or_insert_with(|| Shown {
            namespace: circuit.namespace.clone(),
            name: circuit.pool.clone(),
            circuits: Vec::new(),
        });
        if pool.circuits.len() < MAX_CIRCUITS {
            pool.circuits.extend(status_of(circuit));
        }
    }
    pools
}

fn status_of(circuit: &ListedCircuit) -> Option<CircuitStatus> {
    let credential = match &circuit.secret {
        Some((namespace, name, key)) => format!("{namespace}/{name}/{key}"),
        None => ENVIRONMENT.to_owned(),
    };
    Some(CircuitStatus {
        credential,
        model: circuit.model.clone(),
        state: if circuit.is_open {
            CircuitState::Open
        } else {
            CircuitState::HalfOpen
        },
        reason: in_one_word(&circuit.reason),
        opened_at: to_kubernetes(circuit.opened_at)?,
        retry_at: to_kubernetes(circuit.open_until)?,
    })
}

/// `rate_limited` as `RateLimited`.
fn in_one_word(reason: &str) -> String {
    let capital = |word: &str| {
        let mut letters = word.chars();
        let first = letters.next().map(|first| first.to_ascii_uppercase());
        first.into_iter().chain(letters).collect::<String>()
    };
    reason.split('_').map(capital).collect()
}

/// What a person has to be told: keys that are refused and were not before.
fn refusals(former: &[CircuitStatus], circuits: &[CircuitStatus]) -> Vec<String> {
    let account = in_one_word(FallbackReason::Account.as_str());
    let is_refusal = |it: &&CircuitStatus| it.model.is_none() && it.reason == account;
    let is_news = |it: &&CircuitStatus| {
        !former
            .iter()
            .filter(is_refusal)
            .any(|former| former.credential == it.credential && former.opened_at == it.opened_at)
    };
    let key = |credential: &str| match credential {
        ENVIRONMENT => "PROXY_PLAN_API_KEY".to_owned(),
        secret => format!("the Plan key of Secret {secret}"),
    };
    let note = |it: &CircuitStatus| {
        let Time(retry_at) = it.retry_at;
        format!(
            "the Anthropic API refuses {} (credentials, credit, spend limit or permissions): its requests go to Bedrock until \
             {retry_at}, then one tries again. Mend the account or replace the key, which is tried at once; after mending, set the \
             annotation {RESET_CIRCUIT_ANNOTATION} to a new value to try at once",
            key(&it.credential)
        )
    };
    circuits
        .iter()
        .filter(is_refusal)
        .filter(is_news)
        .map(note)
        .collect()
}

/// Writes the circuits of one pool. False: it is gone, or another one has its name.
async fn write(client: &Client, uid: &str, pool: &Shown) -> Result<bool, kube::Error> {
    let api: Api<ProxyPool> = Api::namespaced(client.clone(), &pool.namespace);
    // With the uid the API server refuses to write to a successor of the same name.
    let circuits = Some(&pool.circuits).filter(|circuits| !circuits.is_empty());
    let patch = json!({ "metadata": { "uid": uid }, "status": { "circuits": circuits } });
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    match api
        .patch_status(&pool.name, &params, &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(false),
        Err(error) => Err(error),
    }
}

fn reference(uid: &str, pool: &Shown) -> ObjectReference {
    ObjectReference {
        api_version: Some(ProxyPool::api_version(&()).into_owned()),
        kind: Some(ProxyPool::kind(&()).into_owned()),
        namespace: Some(pool.namespace.clone()),
        name: Some(pool.name.clone()),
        uid: Some(uid.to_owned()),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use chrono::{DateTime, TimeDelta, Utc};

    use super::*;

    fn circuit(model: Option<&str>, reason: &str, is_open: bool, minute: i64) -> ListedCircuit {
        let opened_at = DateTime::<Utc>::UNIX_EPOCH + TimeDelta::minutes(minute);
        ListedCircuit {
            namespace: "platform".into(),
            pool: "default".into(),
            uid: "1".into(),
            secret: Some(("platform".into(), "plan".into(), "key".into())),
            model: model.map(str::to_owned),
            reason: reason.into(),
            opened_at,
            open_until: opened_at + TimeDelta::minutes(30),
            is_open,
        }
    }

    #[test]
    fn what_is_open_comes_first_and_there_is_a_limit() {
        let listed = [
            circuit(None, "account", false, 1),
            circuit(Some("a"), "overloaded", true, 2),
            circuit(Some("b"), "rate_limited", true, 3),
            circuit(None, "account", true, 4),
        ];
        let circuits = shown(&listed).remove("1").unwrap().circuits;
        let short: Vec<_> = circuits
            .iter()
            .map(|it| (it.model.as_deref(), it.state, it.reason.as_str()))
            .collect();
        assert_eq!(
            short,
            [
                (None, CircuitState::Open, "Account"),
                (Some("b"), CircuitState::Open, "RateLimited"),
                (Some("a"), CircuitState::Open, "Overloaded"),
                (None, CircuitState::HalfOpen, "Account"),
            ]
        );
        assert_eq!(circuits[0].credential, "platform/plan/key");
        assert_eq!(circuits[0].opened_at.0.to_string(), "1970-01-01T00:04:00Z");
        assert_eq!(circuits[0].retry_at.0.to_string(), "1970-01-01T00:34:00Z");
        let many: Vec<_> = (0..200)
            .map(|n| circuit(Some("a"), "overloaded", true, n))
            .collect();
        assert_eq!(shown(&many)["1"].circuits.len(), MAX_CIRCUITS);
    }

    #[test]
    fn a_refused_key_is_told_once_for_each_time_it_opens() {
        let all = |listed: &[ListedCircuit]| shown(listed).remove("1").unwrap().circuits;
        let refused = all(&[
            circuit(None, "account", true, 1),
            circuit(Some("a"), "overloaded", true, 1),
        ]);
        let notes = refusals(&[], &refused);
        assert_eq!(notes.len(), 1, "an overload passes by itself");
        assert_eq!(
            refusals(&refused[1..], &refused).len(),
            1,
            "a model's circuit of the same moment tells nothing of the key's"
        );
        for part in [
            "platform/plan/key",
            "1970-01-01T00:31:00Z",
            RESET_CIRCUIT_ANNOTATION,
        ] {
            assert!(notes[0].contains(part), "{}", notes[0]);
        }
        let half_open = all(&[circuit(None, "account", false, 1)]);
        assert_eq!(refusals(&refused, &half_open), [""; 0]);
        assert_eq!(
            refusals(&refused, &all(&[circuit(None, "account", true, 9)])).len(),
            1
        );
    }
}
