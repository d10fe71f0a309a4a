//! Carries out what was planned for an `AccessKey`.

use k8s_openapi::api::core::v1::Secret;
use spillway_core::repository::leadership::commit;
use spillway_core::repository::{RepositoryError, access_keys};
use spillway_core::security::key::AccessKeyToken;
use spillway_crds::AccessKey;
use uuid::Uuid;

use super::super::error::ReconcileError;
use super::super::outcome::{Env, Notice, Rows};
use super::super::world::Written;
use super::plan::{Observed, Restriction, Store};
use crate::resources::key_secret::{key_secret, mended};

/// Makes the Secret with a new key. Whoever was faster, the Secret is read again afterwards.
pub(super) async fn mint(
    env: &Env<'_>,
    observed: &Observed,
    lost: Option<&String>,
) -> Result<Option<Notice>, ReconcileError> {
    let (Some(owner), Some(base_url)) = (&observed.owner, &observed.base_url) else {
        return Ok(None);
    };
    let token = AccessKeyToken::generate().map_err(ReconcileError::Mint)?;
    if env
        .world
        .create_secret(&key_secret(owner, &token, base_url))
        .await?
        == Written::Conflict
    {
        return Ok(None);
    }
    let place = format!("Secret {}/{}", owner.namespace, owner.secret);
    let key_id = token.id().unwrap_or_default();
    Ok(Some(match lost {
        None => Notice {
            is_warning: false,
            reason: "KeyMade",
            action: "MakeKey",
            note: format!("made key {key_id} in {place}"),
        },
        Some(lost) => Notice {
            is_warning: true,
            reason: "SecretLost",
            action: "MakeKey",
            note: format!(
                "{place} was gone: made key {key_id} in a new one; key {lost} works for another 24 hours. To revoke a key set \
                 spec.disabled or delete the AccessKey"
            ),
        },
    }))
}

/// Puts a new key into a Secret that came back with one that had ended.
pub(super) async fn renew(
    env: &Env<'_>,
    observed: &Observed,
    secret: &Secret,
    revoked: &str,
) -> Result<Option<Notice>, ReconcileError> {
    let (Some(owner), Some(base_url)) = (&observed.owner, &observed.base_url) else {
        return Ok(None);
    };
    let token = AccessKeyToken::generate().map_err(ReconcileError::Mint)?;
    let renewed = mended(secret, owner, &token, base_url);
    if env.world.replace_secret(&renewed).await? == Written::Conflict {
        return Ok(None);
    }
    Ok(Some(Notice {
        is_warning: true,
        reason: "KeyRevoked",
        action: "MakeKey",
        note: format!(
            "Secret {}/{} held key {revoked}, which ended when its AccessKey was deleted: made key {} in its place",
            owner.namespace,
            owner.secret,
            token.id().unwrap_or_default()
        ),
    }))
}

/// Stores when the key is refused, on its own.
pub(super) async fn restrict(
    rows: &Rows,
    id: Uuid,
    restriction: Restriction,
) -> Result<(), ReconcileError> {
    let mut transaction = rows.begin().await?;
    access_keys::restrict(
        &mut transaction,
        id,
        restriction.disabled,
        restriction.expires_at,
    )
    .await?;
    Ok(commit(transaction).await?)
}

/// Stores settings and versions. `false`: the key already is another's of the same pool.
pub(super) async fn store(
    rows: &Rows,
    key: &AccessKey,
    store: &Store,
) -> Result<bool, ReconcileError> {
    let mut transaction = rows.begin().await?;
    match access_keys::upsert(
        &mut transaction,
        &rows.origin(key),
        &store.row,
        &store.versions,
    )
    .await
    {
        Ok(_) => {}
        Err(RepositoryError::DuplicateKey) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    commit(transaction).await?;
    Ok(true)
}

/// Ends the rows of the resource with this uid.
pub(super) async fn release(rows: &Rows, uid: &str) -> Result<(), ReconcileError> {
    let mut transaction = rows.begin().await?;
    access_keys::soft_delete(&mut transaction, rows.cluster_id(), uid).await?;
    Ok(commit(transaction).await?)
}
