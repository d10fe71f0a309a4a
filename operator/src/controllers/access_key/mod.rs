//! `AccessKey`: the Secret first, then the row. A key is minted only when the Secret is not there, and what is stored in
//! Postgres is always computed from the Secret as it is, so that a crash at any point ends with the same key.

mod apply;
mod observe;
pub mod plan;
pub mod status;
pub mod versions;

use kube::ResourceExt;
use spillway_core::repository::access_keys;
use spillway_crds::{AccessKey, AccessKeyStatus};

use self::plan::Step;
use super::conditions::Problem;
use super::error::ReconcileError;
use super::outcome::{Env, MAX_STEPS, Outcome, Rows};

/// Brings the Secret and the rows of `key` to what it says, and judges it.
pub async fn reconcile(
    env: &Env<'_>,
    key: &AccessKey,
) -> Result<Outcome<AccessKeyStatus>, ReconcileError> {
    let mut notices = Vec::new();
    restrict(env, key).await?;
    for _ in 0..MAX_STEPS {
        let observed = observe::observe(env, key).await?;
        let mut plan = plan::plan(&observed, key, env.now);
        match &plan.step {
            Some(Step::Mint(lost)) => {
                notices.extend(apply::mint(env, &observed, lost.as_ref()).await?);
                continue;
            }
            Some(Step::Mend(secret)) => {
                env.world.replace_secret(secret).await?;
                continue;
            }
            Some(Step::Renew(secret, revoked)) => {
                notices.extend(apply::renew(env, &observed, secret, revoked).await?);
                continue;
            }
            Some(Step::Store(store)) if apply::store(env.rows, key, store).await? => continue,
            Some(Step::Store(_)) => plan.problems.push(in_use(key)),
            None => {}
        }
        let mut outcome = status::outcome(key, &observed, &plan, env.now);
        outcome.notices = notices;
        return Ok(outcome);
    }
    Err(ReconcileError::Unsettled)
}

/// Refusals wait for nothing: not for the Secret, not for what the key refers to, not for a key that is in use elsewhere.
async fn restrict(env: &Env<'_>, key: &AccessKey) -> Result<(), ReconcileError> {
    let mut reader = env.rows.reader().await?;
    let namespace = key.namespace().unwrap_or_default();
    let stored = access_keys::find(
        &mut reader,
        env.rows.cluster_id(),
        &namespace,
        &key.name_any(),
    )
    .await?;
    let Some((id, uid, row)) = stored else {
        return Ok(());
    };
    match plan::restriction(key, &uid, &row) {
        Some(restriction) => apply::restrict(env.rows, id, restriction).await,
        None => Ok(()),
    }
}

/// Ends the rows of a deleted key. The Secret goes with its owner.
pub async fn release(rows: &Rows, key: &AccessKey) -> Result<(), ReconcileError> {
    apply::release(rows, &key.uid().unwrap_or_default()).await
}

/// Whose key it is must not be told: it may be another tenant's.
fn in_use(key: &AccessKey) -> Problem {
    let (field, secret) = plan::secret_field(key);
    let namespace = key.namespace().unwrap_or_default();
    Problem::key(
        status::KEY_IN_USE,
        format!(
            "{field}: the key in Secret {namespace}/{secret} already is another AccessKey's of the same pool: bring a different one"
        ),
    )
}
