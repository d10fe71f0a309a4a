//! `BedrockCredential`: what a Secret holds is stored sealed, for proxies to sign in with.

mod apply;
mod material;
pub mod plan;
pub mod status;

use kube::ResourceExt;
use spillway_core::repository::bedrock_keys;
use spillway_crds::{BedrockCredential, BedrockCredentialStatus};

use self::plan::{Desired, Observed};
use super::error::ReconcileError;
use super::outcome::{Env, MAX_STEPS, Outcome, Rows};
use super::references::{check_secret, version_of};

/// Brings the row of `credential` to what it says, and judges it.
pub async fn reconcile(
    env: &Env<'_>,
    credential: &BedrockCredential,
) -> Result<Outcome<BedrockCredentialStatus>, ReconcileError> {
    let desired = Desired::of(credential);
    for _ in 0..MAX_STEPS {
        let observed = observe(env, credential, &desired).await?;
        let plan = plan::plan(&observed, &desired, env.rules);
        let Some(store) = &plan.store else {
            return Ok(status::outcome(&observed, &plan));
        };
        apply::store(env.rows, credential, &desired, &observed, store).await?;
    }
    Err(ReconcileError::Unsettled)
}

/// Ends the row of a deleted credential.
pub async fn release(rows: &Rows, credential: &BedrockCredential) -> Result<(), ReconcileError> {
    apply::release(rows, &credential.uid().unwrap_or_default()).await
}

async fn observe(
    env: &Env<'_>,
    credential: &BedrockCredential,
    desired: &Desired,
) -> Result<Observed, ReconcileError> {
    let namespace = credential.namespace().unwrap_or_default();
    let secret = match desired.secret_name() {
        Some(name) => env.world.secret(&namespace, name).await?,
        None => None,
    };
    let material = match check_secret(secret.as_ref(), "spec.auth", env.rules) {
        Some(problem) => Err(problem),
        None => desired.material(secret.as_ref()),
    };
    let mut reader = env.rows.reader().await?;
    let row = bedrock_keys::find(
        &mut reader,
        env.rows.cluster_id(),
        &namespace,
        &credential.name_any(),
    )
    .await?;
    let used_by = match &row {
        Some(row) => bedrock_keys::used_by(&mut reader, row.id).await?,
        None => 0,
    };
    Ok(Observed {
        fingerprint: material
            .as_ref()
            .ok()
            .map(|material| env.rows.fingerprint(&material::canonical(material))),
        material,
        secret_version: version_of(secret.as_ref()),
        row,
        used_by,
    })
}
