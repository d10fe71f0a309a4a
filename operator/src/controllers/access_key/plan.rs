//! What is to be done about an `AccessKey`, decided without I/O.
//!
//! Restrictions take effect at once: `disabled`, `expiresAt`. What cannot be resolved never cuts off a key that is being
//! served, and never starts serving one otherwise than specified.

use chrono::{DateTime, SubsecRound, Utc};
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use spillway_core::repository::access_keys::{AccessKeyRow, Holder, Version};
use spillway_core::security::hasher::KeyHash;
use spillway_crds::AccessKey;
use uuid::Uuid;

use super::super::conditions::Problem;
use super::super::references::check_models;
use super::observe::user_id;
use super::versions::{self, Current};
use crate::resources::key_secret::KeySecretOwner;

/// The user that a key names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserObserved {
    /// Keys may refer to it.
    Ready {
        /// Its row.
        id: Uuid,
        /// Whether its keys are refused.
        suspended: bool,
    },
    /// There is no such user.
    Missing,
    /// It is there, and something is wrong with it.
    NotReady,
}

/// The key in the Secret.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyObserved {
    /// There is no Secret of the name that the operator is to write.
    Absent,
    /// There is one that cannot be used.
    Unusable(Problem),
    /// It holds a key that ended when its `AccessKey` was deleted.
    Revoked {
        /// The public part.
        key_id: String,
        /// The Secret as it is.
        secret: Box<Secret>,
    },
    /// It holds a key.
    Present {
        /// The public part.
        key_id: String,
        /// The stored form by the newest hasher secret.
        hash: KeyHash,
        /// That secret's id.
        hasher_id: String,
        /// The stored forms by every live hasher secret.
        hashes: Vec<KeyHash>,
        /// The Secret as it is to be, where it differs.
        mend: Option<Box<Secret>>,
    },
}

/// What is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The resource's uid.
    pub uid: String,
    /// Its settings.
    pub row: AccessKeyRow,
    /// The versions, newest first.
    pub versions: Vec<Version>,
}

/// What there is.
#[derive(Debug)]
pub struct Observed {
    /// The user that the key names.
    pub user: UserObserved,
    /// Where its pool is reached.
    pub base_url: Option<String>,
    /// The row of the credential that the key names, or what is wrong with it.
    pub credential: Option<Result<Uuid, Problem>>,
    /// Whose the Secret is to be, where the operator writes it.
    pub owner: Option<KeySecretOwner>,
    /// The key in the Secret.
    pub key: KeyObserved,
    /// What is stored.
    pub stored: Option<Stored>,
}

/// The next thing to do; afterwards everything is observed again.
#[derive(Debug, PartialEq)]
pub enum Step {
    /// Make a Secret with a new key. With the public part of the version whose Secret was lost, if there was one.
    Mint(Option<String>),
    /// Put a new key into this Secret, which holds one that is revoked. With that one's public part.
    Renew(Box<Secret>, String),
    /// Write the Secret.
    Mend(Box<Secret>),
    /// Write the rows.
    Store(Store),
}

/// Rows to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Store {
    /// The settings.
    pub row: AccessKeyRow,
    /// The versions, newest first.
    pub versions: Vec<Version>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The next thing to do, if any.
    pub step: Option<Step>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// The field that names the Secret, and the Secret's name.
pub fn secret_field(key: &AccessKey) -> (&'static str, &str) {
    match (&key.spec.secret_name, &key.spec.existing_secret_ref) {
        (None, Some(reference)) => ("spec.existingSecretRef", &reference.name),
        (name, _) => ("spec.secretName", name.as_deref().unwrap_or_default()),
    }
}

/// When a key is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction {
    /// `disabled`.
    pub disabled: bool,
    /// `expiresAt`.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What `key` says of its refusal, where its own row says something else. What cannot be read changes nothing.
pub fn restriction(key: &AccessKey, uid: &str, row: &AccessKeyRow) -> Option<Restriction> {
    let wanted = Restriction {
        disabled: key.spec.disabled,
        expires_at: expiry(key).unwrap_or(row.expires_at),
    };
    let stored = Restriction {
        disabled: row.disabled,
        expires_at: row.expires_at,
    };
    (key.metadata.uid.as_deref() == Some(uid) && wanted != stored).then_some(wanted)
}

/// When `key` ends.
pub fn expiry(key: &AccessKey) -> Result<Option<DateTime<Utc>>, Problem> {
    let Some(text) = &key.spec.expires_at else {
        return Ok(None);
    };
    // Postgres keeps microseconds.
    match DateTime::parse_from_rfc3339(text) {
        Ok(at) => Ok(Some(at.to_utc().trunc_subsecs(6))),
        Err(_) => Err(Problem::accepted(
            "ExpiresAtInvalid",
            "spec.expiresAt is no time: write it as 2030-01-31T00:00:00Z, or leave it out",
        )),
    }
}

/// Whose a key is that was found in the Secret of an `AccessKey`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// The `AccessKey` may have it.
    Own,
    /// It ended with a former `AccessKey` of the same name.
    Revoked,
    /// It is, or was, another's.
    OfAnother,
}

/// Judges by whoever has the key in Postgres. Nobody, or a living row of the same name: after a restore the key goes on.
pub fn claim(holders: &[Holder], namespace: &str, name: &str, uid: &str) -> Claim {
    let mut same = holders
        .iter()
        .filter(|holder| holder.namespace == namespace && holder.name == name)
        .peekable();
    if holders.is_empty() {
        Claim::Own
    } else if same.peek().is_none() {
        Claim::OfAnother
    } else if same.any(|holder| holder.is_living || holder.uid == uid) {
        Claim::Own
    } else {
        Claim::Revoked
    }
}

/// Decides what is to be done.
pub fn plan(observed: &Observed, key: &AccessKey, now: DateTime<Utc>) -> Plan {
    let own = observed
        .stored
        .as_ref()
        .filter(|stored| Some(&stored.uid) == key.metadata.uid.as_ref());
    let mut problems = Vec::new();
    problems.extend(user_problem(&observed.user, key));
    let former = own.map(|stored| &stored.row);
    let row = user_id(&observed.user)
        .map(|user_id| settings(observed, key, user_id, former, &mut problems));
    let may_begin = problems.is_empty();
    if row.is_some() && observed.base_url.is_none() {
        problems.push(Problem::reference(
            "PoolNotFound",
            format!("spec.userRef names ProxyUser {}, whose pool does not exist: see the user's conditions", key.spec.user_ref.name),
        ));
    }
    let stored_versions = own
        .map(|stored| stored.versions.as_slice())
        .unwrap_or_default();
    let step = match &observed.key {
        KeyObserved::Absent if may_begin && problems.is_empty() => {
            let living = stored_versions
                .iter()
                .find(|version| version.expires_at.is_none());
            Some(Step::Mint(living.map(|version| version.key_id.clone())))
        }
        KeyObserved::Absent => {
            let (field, secret) = secret_field(key);
            problems.push(Problem::key(
                "WaitingForUser",
                format!("{field}: Secret {secret} is made when what the key refers to is ready"),
            ));
            restrict(own, row)
        }
        KeyObserved::Unusable(problem) => {
            problems.push(problem.clone());
            restrict(own, row)
        }
        KeyObserved::Revoked { key_id, secret } if may_begin && problems.is_empty() => {
            Some(Step::Renew(secret.clone(), key_id.clone()))
        }
        KeyObserved::Revoked { key_id, .. } => {
            let (field, secret) = secret_field(key);
            problems.push(Problem::key(
                "KeyRevoked",
                format!(
                    "{field}: Secret {secret} holds key {key_id}, which ended when its AccessKey was deleted: a new key is made \
                     when what the key refers to is ready"
                ),
            ));
            restrict(own, row)
        }
        KeyObserved::Present {
            mend: Some(secret), ..
        } if may_begin || own.is_some() => Some(Step::Mend(secret.clone())),
        KeyObserved::Present {
            key_id,
            hash,
            hasher_id,
            hashes,
            ..
        } => {
            let current = Current {
                key_id,
                hash: *hash,
                hasher_id,
                hashes,
            };
            match versions::next(stored_versions, current, now) {
                Ok(versions) => row.filter(|_| may_begin || own.is_some()).and_then(|row| {
                    let is_stored =
                        former == Some(&row) && versions::are_stored(stored_versions, &versions);
                    (!is_stored).then_some(Step::Store(Store { row, versions }))
                }),
                Err(ended) => {
                    let (field, secret) = secret_field(key);
                    problems.push(Problem::key(
                        "KeyEnded",
                        format!(
                            "{field}: Secret {secret} holds key {}, which ended at {}: delete the Secret and a new key is made, \
                             or bring another",
                            ended.key_id,
                            ended.at.format("%FT%TZ")
                        ),
                    ));
                    restrict(own, row)
                }
            }
        }
    };
    if expiry(key).ok().flatten().is_some_and(|at| at <= now) {
        problems.push(Problem::key("Expired", "spec.expiresAt has passed: the key is refused until it is set to a later time or left out"));
    }
    Plan { step, problems }
}

fn user_problem(user: &UserObserved, key: &AccessKey) -> Option<Problem> {
    let name = format!(
        "{}/{}",
        key.namespace().unwrap_or_default(),
        key.spec.user_ref.name
    );
    match user {
        UserObserved::Ready { .. } => None,
        UserObserved::Missing => Some(Problem::reference(
            "UserNotFound",
            format!(
                "spec.userRef names ProxyUser {name}, which does not exist: create it, or make the AccessKey for another"
            ),
        )),
        UserObserved::NotReady => Some(Problem::reference(
            "UserNotReady",
            format!(
                "spec.userRef names ProxyUser {name}, which is not ready: its conditions say what to mend"
            ),
        )),
    }
}

fn settings(
    observed: &Observed,
    key: &AccessKey,
    user_id: Uuid,
    former: Option<&AccessKeyRow>,
    problems: &mut Vec<Problem>,
) -> AccessKeyRow {
    let spec = &key.spec;
    let bedrock_key_id = match &observed.credential {
        None => None,
        Some(Ok(id)) => Some(*id),
        // Never a wider credential than the one that is named.
        Some(Err(problem)) => {
            problems.push(problem.clone());
            former.and_then(|row| row.bedrock_key_id)
        }
    };
    let allowed_models = match check_models("spec.allowedModels", &spec.allowed_models) {
        None => spec.allowed_models.clone(),
        Some(problem) => {
            problems.push(problem);
            former
                .map(|row| row.allowed_models.clone())
                .unwrap_or_default()
        }
    };
    let expires_at = expiry(key).unwrap_or_else(|problem| {
        problems.push(problem);
        former.and_then(|row| row.expires_at)
    });
    AccessKeyRow {
        user_id,
        disabled: spec.disabled,
        expires_at,
        allowed_models,
        bedrock_key_id,
    }
}

/// Where the key itself cannot be read, its settings still take effect.
fn restrict(own: Option<&Stored>, row: Option<AccessKeyRow>) -> Option<Step> {
    let (stored, row) = (own?, row?);
    (stored.row != row).then(|| {
        Step::Store(Store {
            row,
            versions: stored.versions.clone(),
        })
    })
}

#[cfg(test)]
mod tests;
