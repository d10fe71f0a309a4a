//! Carries out what was planned for a `ProxyUser`.

use spillway_core::repository::leadership::commit;
use spillway_core::repository::{plan_keys as plan_key_rows, users};
use spillway_crds::ProxyUser;
use uuid::Uuid;

use super::super::error::ReconcileError;
use super::super::outcome::Rows;
use super::super::plan_keys;
use super::plan::{Observed, Store};

/// Stores the user's Plan key and settings in one transaction.
pub(super) async fn store(
    rows: &Rows,
    user: &ProxyUser,
    observed: &Observed,
    store: &Store,
) -> Result<(), ReconcileError> {
    let sealed = match observed.plan_key.as_ref().filter(|_| store.plan_key) {
        Some(plan_key) => plan_keys::seal(rows, plan_key).await?,
        None => None,
    };
    let mut row = store.row.clone();
    let mut transaction = rows.begin().await?;
    if let Some(sealed) = &sealed {
        row.plan_key_id = Some(plan_keys::store(&mut transaction, sealed).await?);
    }
    let former = observed
        .stored
        .as_ref()
        .and_then(|(_, _, stored)| stored.plan_key_id);
    users::upsert(&mut transaction, &rows.origin(user), &row).await?;
    if former.is_some() && former != row.plan_key_id {
        plan_key_rows::prune(&mut transaction, rows.cluster_id()).await?;
    }
    Ok(commit(transaction).await?)
}

/// Stores whether the user's keys are refused, on its own.
pub(super) async fn suspend(rows: &Rows, id: Uuid, suspended: bool) -> Result<(), ReconcileError> {
    let mut transaction = rows.begin().await?;
    users::suspend(&mut transaction, id, suspended).await?;
    Ok(commit(transaction).await?)
}

/// Ends the rows of the resource with this uid, and Plan keys that nobody names any more.
pub(super) async fn release(rows: &Rows, uid: &str) -> Result<(), ReconcileError> {
    let mut transaction = rows.begin().await?;
    users::soft_delete(&mut transaction, rows.cluster_id(), uid).await?;
    plan_key_rows::prune(&mut transaction, rows.cluster_id()).await?;
    Ok(commit(transaction).await?)
}
