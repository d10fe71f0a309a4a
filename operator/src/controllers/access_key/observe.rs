//! What there is of an `AccessKey`: its user, its Secret, its rows.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use secrecy::ExposeSecret;
use spillway_core::repository::{access_keys, users};
use spillway_core::security::key::AccessKeyToken;
use spillway_crds::AccessKey;
use uuid::Uuid;

use super::super::conditions::Problem;
use super::super::error::ReconcileError;
use super::super::outcome::Env;
use super::super::references::{self, pool_of, secret_entry};
use super::plan::{Claim, KeyObserved, Observed, Stored, UserObserved, claim, secret_field};
use crate::resources::key_secret::{ACCESS_KEY, KeySecretOwner, mended};

pub(super) async fn observe(env: &Env<'_>, key: &AccessKey) -> Result<Observed, ReconcileError> {
    let namespace = key.namespace().unwrap_or_default();
    let (user, base_url) = observe_user(env, key, &namespace).await?;
    let credential = match &key.spec.bedrock_credential_ref {
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
    let (owner, key_observed) = match (&key.spec.secret_name, &key.spec.existing_secret_ref) {
        (Some(name), _) => {
            let owner = KeySecretOwner {
                namespace: namespace.clone(),
                access_key: key.name_any(),
                secret: name.clone(),
                owner: env.world.owner_of(key),
            };
            let secret = env.world.secret(&namespace, name).await?;
            let uid = key.uid().unwrap_or_default();
            let observed = own_secret(env, secret, &owner, &uid, base_url.as_deref()).await?;
            (Some(owner), observed)
        }
        (None, Some(reference)) => {
            let secret = env.world.secret(&namespace, &reference.name).await?;
            let field = "spec.existingSecretRef";
            let observed = match secret_entry(
                secret.as_ref(),
                field,
                &namespace,
                &reference.name,
                &reference.key,
            ) {
                Ok(text) => parsed(env, key, text.expose_secret().trim_end(), &namespace),
                Err(problem) => {
                    KeyObserved::Unusable(Problem::key(problem.reason, problem.message))
                }
            };
            (None, observed)
        }
        (None, None) => {
            let problem = Problem::accepted(
                "SecretNotNamed",
                "set exactly one of spec.secretName (Spillway makes the key) and spec.existingSecretRef (you bring one)",
            );
            (None, KeyObserved::Unusable(problem))
        }
    };
    let mut reader = env.rows.reader().await?;
    let stored = match access_keys::find(
        &mut reader,
        env.rows.cluster_id(),
        &namespace,
        &key.name_any(),
    )
    .await?
    {
        Some((id, uid, row)) => Some(Stored {
            uid,
            row,
            versions: access_keys::versions(&mut reader, id).await?,
        }),
        None => None,
    };
    Ok(Observed {
        user,
        base_url,
        credential,
        owner,
        key: key_observed,
        stored,
    })
}

async fn observe_user(
    env: &Env<'_>,
    key: &AccessKey,
    namespace: &str,
) -> Result<(UserObserved, Option<String>), ReconcileError> {
    let name = &key.spec.user_ref.name;
    let user = env
        .world
        .user(namespace, name)
        .await?
        .filter(|user| user.metadata.deletion_timestamp.is_none());
    let Some(user) = user else {
        return Ok((UserObserved::Missing, None));
    };
    let pool = pool_of(user.spec.pool_ref.as_ref(), namespace, env.rules);
    let base_url = env
        .world
        .pool(&pool.namespace, &pool.name)
        .await?
        .map(|pool| env.world.pool_url(&pool));
    let mut reader = env.rows.reader().await?;
    let row = users::find(&mut reader, env.rows.cluster_id(), namespace, name).await?;
    let row = row.filter(|(_, uid, _)| Some(uid) == user.metadata.uid.as_ref());
    let observed = row.map_or(UserObserved::NotReady, |(id, _, row)| UserObserved::Ready {
        id,
        suspended: row.suspended,
    });
    Ok((observed, base_url))
}

/// What the Secret that the operator writes holds.
async fn own_secret(
    env: &Env<'_>,
    secret: Option<Secret>,
    owner: &KeySecretOwner,
    uid: &str,
    base_url: Option<&str>,
) -> Result<KeyObserved, ReconcileError> {
    let Some(secret) = secret else {
        return Ok(KeyObserved::Absent);
    };
    let place = format!("Secret {}/{}", owner.namespace, owner.secret);
    if !owner.owns(&secret) {
        return Ok(KeyObserved::Unusable(Problem::key(
            "SecretConflict",
            format!(
                "spec.secretName: {place} is there and is not this AccessKey's: delete it, or make the AccessKey anew with \
                 another secretName. To hand it over, annotate it spillway.dev/access-key={}",
                owner.mark()
            ),
        )));
    }
    let text = secret
        .data
        .as_ref()
        .and_then(|data| data.get(ACCESS_KEY))
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
    let token = match text.map(AccessKeyToken::parse) {
        Some(Ok(token)) if token.id().is_some() => token,
        other => {
            let why = match other {
                None => "it has no readable entry ACCESS_KEY".to_owned(),
                Some(Ok(_)) => "its ACCESS_KEY is not one that Spillway made".to_owned(),
                Some(Err(error)) => format!("in its entry ACCESS_KEY {error}"),
            };
            return Ok(KeyObserved::Unusable(Problem::key(
                "SecretDamaged",
                format!(
                    "spec.secretName: {place} cannot be used, for {why}: restore it, or delete it and a new key is made"
                ),
            )));
        }
    };
    let hashes: Vec<_> = env.rows.hasher.hashes(token.expose()).collect();
    let mut reader = env.rows.reader().await?;
    let mut holders = Vec::new();
    for hash in &hashes {
        holders.extend(access_keys::holders(&mut reader, env.rows.cluster_id(), hash).await?);
    }
    let (hash, hasher_id) = env.rows.hasher.hash(token.expose());
    let key_id = token
        .id()
        .map_or_else(|| hash.brought_key_id(), str::to_owned);
    match claim(&holders, &owner.namespace, &owner.access_key, uid) {
        Claim::Own => {}
        Claim::Revoked => {
            let secret = Box::new(secret);
            return Ok(KeyObserved::Revoked { key_id, secret });
        }
        Claim::OfAnother => {
            return Ok(KeyObserved::Unusable(Problem::key(
                "KeyOfAnother",
                format!(
                    "spec.secretName: {place} holds the key of another AccessKey: delete it, and a new key is made"
                ),
            )));
        }
    }
    let mend = base_url
        .map(|url| mended(&secret, owner, &token, url))
        .filter(|wanted| *wanted != secret);
    Ok(KeyObserved::Present {
        key_id,
        hash,
        hasher_id: hasher_id.to_owned(),
        hashes,
        mend: mend.map(Box::new),
    })
}

/// What a key that was brought amounts to.
fn parsed(env: &Env<'_>, key: &AccessKey, text: &str, namespace: &str) -> KeyObserved {
    let token = match AccessKeyToken::parse(text) {
        Ok(token) => token,
        Err(error) => {
            let (field, secret) = secret_field(key);
            return KeyObserved::Unusable(Problem::key(
                "KeyMalformed",
                format!("{field} names Secret {namespace}/{secret}, where {error}"),
            ));
        }
    };
    let (hash, hasher_id) = env.rows.hasher.hash(token.expose());
    KeyObserved::Present {
        key_id: token
            .id()
            .map_or_else(|| hash.brought_key_id(), str::to_owned),
        hash,
        hasher_id: hasher_id.to_owned(),
        hashes: env.rows.hasher.hashes(token.expose()).collect(),
        mend: None,
    }
}

/// The row of a user that keys may refer to.
pub(super) const fn user_id(user: &UserObserved) -> Option<Uuid> {
    match user {
        UserObserved::Ready { id, .. } => Some(*id),
        UserObserved::Missing | UserObserved::NotReady => None,
    }
}
