//! Carries out what was planned for a `ProxyPool`.

use spillway_core::repository::circuits;
use spillway_core::repository::leadership::commit;
use spillway_core::repository::pools::{self, NewPool};
use spillway_crds::ProxyPool;
use uuid::Uuid;

use super::super::error::ReconcileError;
use super::super::outcome::Rows;
use super::super::plan_keys;
use super::plan::{Observed, Store};

/// Stores the pool's Plan key and settings in one transaction.
pub(super) async fn store(
    rows: &Rows,
    pool: &ProxyPool,
    observed: &Observed,
    store: &Store,
) -> Result<(), ReconcileError> {
    let sealed = match observed.plan_key.as_ref().filter(|_| store.plan_key) {
        Some(plan_key) => plan_keys::seal(rows, plan_key).await?,
        None => None,
    };
    let mut config = store.config.clone();
    let mut transaction = rows.begin().await?;
    if let Some(sealed) = &sealed {
        config.plan_key_id = Some(plan_keys::store(&mut transaction, sealed).await?);
    }
    let former = observed
        .stored
        .as_ref()
        .and_then(|(_, stored)| stored.plan_key_id);
    let replaced = former.is_some() && former != config.plan_key_id;
    pools::upsert(
        &mut transaction,
        &NewPool {
            origin: rows.origin(pool),
            config,
        },
    )
    .await?;
    if replaced {
        spillway_core::repository::plan_keys::prune(&mut transaction, rows.cluster_id()).await?;
    }
    Ok(commit(transaction).await?)
}

/// Closes the circuits of a pool, as `value` of its annotation asks. Returns how many there were.
pub(super) async fn reset(rows: &Rows, pool_id: Uuid, value: &str) -> Result<u64, ReconcileError> {
    let mut transaction = rows.begin().await?;
    let closed = circuits::reset(&mut transaction, pool_id, value).await?;
    commit(transaction).await?;
    Ok(closed)
}

/// Ends the row of the resource with this uid, and Plan keys that nobody names any more.
pub(super) async fn release(rows: &Rows, uid: &str) -> Result<(), ReconcileError> {
    let mut transaction = rows.begin().await?;
    pools::delete(&mut transaction, rows.cluster_id(), uid).await?;
    spillway_core::repository::plan_keys::prune(&mut transaction, rows.cluster_id()).await?;
    Ok(commit(transaction).await?)
}
