//! Carries out what was planned for a `BedrockCredential`.

use spillway_core::repository::bedrock_keys::{self, NewBedrockKey};
use spillway_core::repository::leadership::commit;
use spillway_crds::BedrockCredential;
use uuid::Uuid;

use super::super::error::ReconcileError;
use super::super::outcome::Rows;
use super::plan::{Desired, Observed, Store};

/// Seals and stores the observed credential.
pub(super) async fn store(
    rows: &Rows,
    credential: &BedrockCredential,
    desired: &Desired,
    observed: &Observed,
    store: &Store,
) -> Result<(), ReconcileError> {
    let (Ok(material), Some(fingerprint)) = (&observed.material, &observed.fingerprint) else {
        return Ok(());
    };
    let id = store.id.unwrap_or_else(Uuid::new_v4);
    let new = NewBedrockKey {
        id,
        origin: rows.origin(credential),
        region: desired.region.clone(),
        endpoint_url: desired.endpoint_url.clone(),
        auth_kind: desired.auth_kind(),
        secret_version: observed.secret_version.clone(),
        fingerprint: fingerprint.clone(),
        sealed: material
            .seal(&rows.envelope, id)
            .await
            .map_err(ReconcileError::Seal)?,
        encrypted_with: rows.envelope.encrypted_with(),
    };
    let mut transaction = rows.begin().await?;
    bedrock_keys::upsert(&mut transaction, &new).await?;
    Ok(commit(transaction).await?)
}

/// Ends the row of the resource with this uid.
pub(super) async fn release(rows: &Rows, uid: &str) -> Result<(), ReconcileError> {
    let mut transaction = rows.begin().await?;
    bedrock_keys::soft_delete(&mut transaction, rows.cluster_id(), uid).await?;
    Ok(commit(transaction).await?)
}
