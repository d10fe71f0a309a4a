//! The sweep: rows whose resource is gone although nobody could take note of its deletion.
//!
//! The rows are read first and the resources listed afterwards, so that a row that is missing in the list had its
//! resource deleted. A namespace counts only when its list was complete and without error; rows of other clusters and
//! of namespaces that are not watched are never touched.

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use spillway_core::repository::{
    PgConnection, RepositoryError, access_keys, bedrock_keys, leadership, pools, users,
};
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::database::{Database, Session};
use crate::metrics::Metrics;
use crate::report::chain;
use crate::settings::WatchScope;

/// How often rows and resources are compared.
const PERIOD: Duration = Duration::from_hours(1);
/// How soon an incomplete sweep is tried again, at first and at the latest.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(2));
/// How many objects one list request asks for.
const PAGE: u32 = 500;

/// Why a kind was not swept. The next sweep tries again.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// A query failed.
    #[error("the rows could not be read or deleted")]
    Database(#[from] RepositoryError),
    /// A list request failed, so that the list is not complete.
    #[error("the resources of {namespace} could not be listed")]
    List {
        /// The namespace, or `every namespace`.
        namespace: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
}

/// Rows that come from one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    Keys,
    Users,
    Credentials,
    Pools,
}

impl Rows {
    /// Keys before their users, users before their pools.
    const ALL: [Self; 4] = [Self::Keys, Self::Users, Self::Credentials, Self::Pools];

    /// Namespace and uid of every living row of the cluster.
    async fn living(
        self,
        connection: &mut PgConnection,
        cluster_id: &str,
    ) -> Result<Vec<(String, String)>, RepositoryError> {
        match self {
            Self::Keys => access_keys::living(connection, cluster_id).await,
            Self::Users => users::living(connection, cluster_id).await,
            Self::Credentials => bedrock_keys::living(connection, cluster_id).await,
            Self::Pools => pools::living(connection, cluster_id).await,
        }
    }

    async fn delete(
        self,
        connection: &mut PgConnection,
        cluster_id: &str,
        uid: &str,
    ) -> Result<bool, RepositoryError> {
        match self {
            Self::Keys => access_keys::soft_delete(connection, cluster_id, uid).await,
            Self::Users => users::soft_delete(connection, cluster_id, uid).await,
            Self::Credentials => bedrock_keys::soft_delete(connection, cluster_id, uid).await,
            Self::Pools => pools::delete(connection, cluster_id, uid).await,
        }
    }

    async fn listed(self, client: &Client, scope: &WatchScope) -> Result<Listed, SweepError> {
        match self {
            Self::Keys => list::<AccessKey>(client, scope).await,
            Self::Users => list::<ProxyUser>(client, scope).await,
            Self::Credentials => list::<BedrockCredential>(client, scope).await,
            Self::Pools => list::<ProxyPool>(client, scope).await,
        }
    }
}

/// Uids of the resources that are there. Exists only for a complete list of every watched namespace.
#[derive(Debug, Default)]
struct Listed {
    uids: HashSet<String>,
}

/// Sweeps when the database becomes ready, the first time included, and hourly while it is. One that was not complete is
/// soon tried again: a database that was away for a moment may be back before anybody called it away.
pub async fn run(client: Client, database: Database, scope: WatchScope, metrics: Metrics) {
    let mut reconnections = Box::pin(database.reconnections());
    let mut retry = RETRY.0;
    let mut next = Instant::now() + PERIOD;
    loop {
        tokio::select! {
            () = sleep_until(next) => {}
            reconnected = reconnections.next() => if reconnected.is_none() { return },
        }
        next = Instant::now() + PERIOD;
        let Ok(session) = database.session() else {
            continue;
        };
        match sweep(&client, &session, &scope).await {
            Ok(rows) => {
                retry = RETRY.0;
                metrics.swept(rows);
                info!(rows, "swept");
            }
            Err(error) => {
                if let SweepError::Database(error) = &error {
                    database.report(error);
                }
                warn!(
                    error = chain(&error),
                    again_in_ms = u64::try_from(retry.as_millis()).unwrap_or(u64::MAX),
                    "sweep incomplete"
                );
                next = Instant::now() + retry;
                retry = (retry * 2).min(RETRY.1);
            }
        }
    }
}

/// Soft-deletes every row of the session's cluster whose resource is gone. Returns how many rows. A kind that could not
/// be swept does not keep the others from it; the first error is returned.
pub async fn sweep(
    client: &Client,
    session: &Session,
    scope: &WatchScope,
) -> Result<u64, SweepError> {
    let mut swept = 0;
    let mut failed = None;
    for rows in Rows::ALL {
        match sweep_kind(client, session, scope, rows).await {
            Ok(deleted) => swept += deleted,
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(swept), Err)
}

async fn sweep_kind(
    client: &Client,
    session: &Session,
    scope: &WatchScope,
    rows: Rows,
) -> Result<u64, SweepError> {
    let cluster_id = session.cluster_id();
    let mut reading = session.begin().await?;
    let living = rows.living(&mut reading, cluster_id).await?;
    leadership::commit(reading).await?;
    if living.is_empty() {
        return Ok(0);
    }
    let listed = rows.listed(client, scope).await?;
    let mut deleted = 0;
    for (namespace, uid) in gone(&living, scope, &listed) {
        // One transaction for each: a long list holds no lock for long.
        let mut transaction = session.begin().await?;
        if rows.delete(&mut transaction, cluster_id, uid).await? {
            deleted += 1;
            info!(rows = ?rows, namespace, uid, "deleted the row of a resource that is gone");
        }
        leadership::commit(transaction).await?;
    }
    Ok(deleted)
}

/// The rows of watched namespaces whose resource is not listed.
fn gone<'a>(
    living: &'a [(String, String)],
    scope: &'a WatchScope,
    listed: &'a Listed,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    living
        .iter()
        .filter(|(namespace, uid)| scope.includes(namespace) && !listed.uids.contains(uid))
        .map(|(namespace, uid)| (namespace.as_str(), uid.as_str()))
}

/// Lists a kind in every watched namespace, to the last page.
async fn list<K>(client: &Client, scope: &WatchScope) -> Result<Listed, SweepError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let mut listed = Listed::default();
    match scope {
        WatchScope::All => {
            add_all::<K>(&Api::all(client.clone()), "every namespace", &mut listed).await?;
        }
        WatchScope::Named(namespaces) => {
            for namespace in namespaces {
                add_all::<K>(
                    &Api::namespaced(client.clone(), namespace),
                    namespace,
                    &mut listed,
                )
                .await?;
            }
        }
    }
    Ok(listed)
}

async fn add_all<K>(api: &Api<K>, namespace: &str, listed: &mut Listed) -> Result<(), SweepError>
where
    K: Clone + DeserializeOwned + Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list_metadata(&params).await;
        let page = page.map_err(|source| SweepError::List {
            namespace: namespace.to_owned(),
            source,
        })?;
        listed.uids.extend(
            page.items
                .into_iter()
                .filter_map(|object| object.metadata.uid),
        );
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn row(namespace: &str, uid: &str) -> (String, String) {
        (namespace.to_owned(), uid.to_owned())
    }

    #[test]
    fn only_rows_of_watched_namespaces_without_a_resource_are_gone() {
        let living = [
            row("a", "there"),
            row("a", "gone"),
            row("unwatched", "unknown"),
        ];
        let listed = Listed {
            uids: HashSet::from(["there".to_owned()]),
        };
        let scope = WatchScope::Named(BTreeSet::from(["a".to_owned()]));
        assert_eq!(
            gone(&living, &scope, &listed).collect::<Vec<_>>(),
            [("a", "gone")]
        );
        assert_eq!(gone(&living, &WatchScope::All, &listed).count(), 2);
    }
}
