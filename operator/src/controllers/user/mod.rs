//! `ProxyUser`: who owns keys, which pool serves them, and what they may do.

mod apply;
pub mod plan;
pub mod status;

use kube::ResourceExt;
use spillway_core::repository::{pools, users};
use spillway_crds::{ProxyUser, ProxyUserStatus};

use self::plan::{Observed, PoolObserved};
use super::error::ReconcileError;
use super::outcome::{Env, MAX_STEPS, Outcome, Rows};
use super::plan_keys;
use super::references::{self, admits, pool_of};

/// Brings the row of `user` to what it says, and judges it.
pub async fn reconcile(
    env: &Env<'_>,
    user: &ProxyUser,
) -> Result<Outcome<ProxyUserStatus>, ReconcileError> {
    restrict(env, user).await?;
    for _ in 0..MAX_STEPS {
        let observed = observe(env, user).await?;
        let plan = plan::plan(&observed, user);
        match &plan.store {
            Some(store) => apply::store(env.rows, user, &observed, store).await?,
            None => return Ok(status::outcome(user, &observed, &plan)),
        }
    }
    Err(ReconcileError::Unsettled)
}

/// A suspension waits for nothing: not for the Plan key, not for the pool.
async fn restrict(env: &Env<'_>, user: &ProxyUser) -> Result<(), ReconcileError> {
    let mut reader = env.rows.reader().await?;
    let namespace = user.namespace().unwrap_or_default();
    let stored = users::find(
        &mut reader,
        env.rows.cluster_id(),
        &namespace,
        &user.name_any(),
    )
    .await?;
    let Some((id, uid, row)) = stored else {
        return Ok(());
    };
    match plan::restriction(user, &uid, &row) {
        Some(suspended) => apply::suspend(env.rows, id, suspended).await,
        None => Ok(()),
    }
}

/// Ends the row of a deleted user with those of its keys.
pub async fn release(rows: &Rows, user: &ProxyUser) -> Result<(), ReconcileError> {
    apply::release(rows, &user.uid().unwrap_or_default()).await
}

async fn observe(env: &Env<'_>, user: &ProxyUser) -> Result<Observed, ReconcileError> {
    let namespace = user.namespace().unwrap_or_default();
    let plan_key = match &user.spec.plan {
        Some(plan) => Some(
            plan_keys::observe(
                env,
                &namespace,
                &plan.api_key_secret_ref,
                "spec.plan.apiKeySecretRef",
            )
            .await?,
        ),
        None => None,
    };
    let credential = match &user.spec.bedrock_credential_ref {
        Some(reference) => Some(
            references::bedrock_credential(
                env,
                &namespace,
                &reference.name,
                "spec.bedrockCredentialRef",
            )
            .await?,
        ),
        None => None,
    };
    let pool = observe_pool(env, user, &namespace).await?;
    let mut reader = env.rows.reader().await?;
    let stored = users::find(
        &mut reader,
        env.rows.cluster_id(),
        &namespace,
        &user.name_any(),
    )
    .await?;
    let keys = match &stored {
        Some((id, _, _)) => users::key_count(&mut reader, *id).await?,
        None => 0,
    };
    Ok(Observed {
        pool,
        plan_key,
        credential,
        stored,
        keys,
    })
}

async fn observe_pool(
    env: &Env<'_>,
    user: &ProxyUser,
    namespace: &str,
) -> Result<PoolObserved, ReconcileError> {
    let name = pool_of(user.spec.pool_ref.as_ref(), namespace, env.rules);
    let pool = env.world.pool(&name.namespace, &name.name).await?;
    let Some(pool) = pool.filter(|pool| pool.metadata.deletion_timestamp.is_none()) else {
        return Ok(PoolObserved::Missing(name));
    };
    let labels = env.world.namespace_labels(namespace).await?;
    if !admits(&pool, namespace, &labels) {
        return Ok(PoolObserved::Closed(name));
    }
    let mut reader = env.rows.reader().await?;
    let row = pools::find(
        &mut reader,
        env.rows.cluster_id(),
        &name.namespace,
        &name.name,
    )
    .await?;
    Ok(match row {
        Some((_, config)) => PoolObserved::Open(config.id),
        None => PoolObserved::NotReady(name),
    })
}
