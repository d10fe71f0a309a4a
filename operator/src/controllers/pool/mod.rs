//! `ProxyPool`: its settings travel to the proxies by Postgres; the proxies themselves are a Deployment.

mod apply;
mod config;
pub mod plan;
pub mod status;

use kube::ResourceExt;
use spillway_core::repository::{circuits, pools};
use spillway_crds::{ProxyPool, ProxyPoolStatus, RESET_CIRCUIT_ANNOTATION};

use self::plan::Observed;
use super::error::ReconcileError;
use super::outcome::{Env, MAX_STEPS, Notice, Outcome, Rows};
use super::{plan_keys, references};

/// Brings the rows and the proxies of `pool` to what it says, and judges it.
pub async fn reconcile(
    env: &Env<'_>,
    pool: &ProxyPool,
) -> Result<Outcome<ProxyPoolStatus>, ReconcileError> {
    let mut notices = Vec::new();
    for _ in 0..MAX_STEPS {
        let observed = observe(env, pool).await?;
        let plan = plan::plan(&observed, pool, env.rules);
        if let Some(store) = &plan.store {
            apply::store(env.rows, pool, &observed, store).await?;
            continue;
        }
        if let Some((pool_id, value)) = &plan.reset {
            let closed = apply::reset(env.rows, *pool_id, value).await?;
            notices.push(reset_notice(closed));
            continue;
        }
        let proxies = if plan.may_run {
            env.world.proxies(pool).await?
        } else {
            None
        };
        let url = env.world.pool_url(pool);
        return Ok(Outcome {
            notices,
            ..status::outcome(pool, &url, &plan, proxies.as_ref())
        });
    }
    Err(ReconcileError::Unsettled)
}

fn reset_notice(closed: u64) -> Notice {
    let circuits = match closed {
        0 => "no circuit was open".to_owned(),
        1 => "1 circuit was closed".to_owned(),
        closed => format!("{closed} circuits were closed"),
    };
    Notice {
        is_warning: false,
        reason: "CircuitsReset",
        action: "ResetCircuits",
        note: format!(
            "{circuits}, as {RESET_CIRCUIT_ANNOTATION} asks: requests try the Plan again"
        ),
    }
}

/// Ends the row of a deleted pool. Its users stay, without a pool.
pub async fn release(rows: &Rows, pool: &ProxyPool) -> Result<(), ReconcileError> {
    apply::release(rows, &pool.uid().unwrap_or_default()).await
}

async fn observe(env: &Env<'_>, pool: &ProxyPool) -> Result<Observed, ReconcileError> {
    let namespace = pool.namespace().unwrap_or_default();
    let plan_key = match pool
        .spec
        .plan
        .as_ref()
        .and_then(|plan| plan.api_key_secret_ref.as_ref())
    {
        Some(reference) => {
            Some(plan_keys::observe(env, &namespace, reference, "spec.plan.apiKeySecretRef").await?)
        }
        None => None,
    };
    let bedrock = pool
        .spec
        .fallback
        .as_ref()
        .and_then(|fallback| fallback.bedrock.as_ref());
    let credential = match bedrock.and_then(|bedrock| bedrock.credential_ref.as_ref()) {
        Some(reference) => {
            let field = "spec.fallback.bedrock.credentialRef";
            Some(references::bedrock_credential(env, &namespace, &reference.name, field).await?)
        }
        None => None,
    };
    let mut reader = env.rows.reader().await?;
    let stored = pools::find(
        &mut reader,
        env.rows.cluster_id(),
        &namespace,
        &pool.name_any(),
    )
    .await?;
    let handled_reset = match &stored {
        Some((_, config)) => circuits::handled_reset(&mut reader, config.id).await?,
        None => None,
    };
    Ok(Observed {
        plan_key,
        credential,
        stored,
        handled_reset,
    })
}
