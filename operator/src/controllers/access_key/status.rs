//! The status of an `AccessKey`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use spillway_core::repository::access_keys::Version;
use spillway_crds::{AccessKey, AccessKeyStatus, AccessKeyVersion, VersionState};

use super::super::conditions::{ACCEPTED, KEY_READY, REFERENCES_RESOLVED, ReadyAs, judge};
use super::super::outcome::{Outcome, to_kubernetes};
use super::plan::{KeyObserved, Observed, Plan, UserObserved, expiry, secret_field};
use super::versions::next_end;

/// Another `AccessKey` of the pool has the same key.
pub const KEY_IN_USE: &str = "KeyInUse";
/// Nothing tells when the other one lets it go.
const IN_USE_RETRY: Duration = Duration::from_secs(15);

/// What a reconciliation came to. `status.usage` is left out: it is written on its own.
pub fn outcome(
    key: &AccessKey,
    observed: &Observed,
    plan: &Plan,
    now: DateTime<Utc>,
) -> Outcome<AccessKeyStatus> {
    let stored = observed
        .stored
        .as_ref()
        .filter(|stored| Some(&stored.uid) == key.metadata.uid.as_ref());
    let versions = stored
        .map(|stored| stored.versions.as_slice())
        .unwrap_or_default();
    let current = versions.iter().find(|version| version.expires_at.is_none());
    let has_secret = !matches!(observed.key, KeyObserved::Absent);
    let ends = expiry(key).ok().flatten().filter(|at| *at > now);
    let again = ends.into_iter().chain(next_end(versions, now)).min();
    // A moment later, so that the time has come when it is looked at.
    let at_end = again
        .and_then(|at| (at - now).to_std().ok())
        .map(|wait| wait + Duration::from_secs(1));
    let is_in_use = plan
        .problems
        .iter()
        .any(|problem| problem.reason == KEY_IN_USE);
    Outcome {
        status: AccessKeyStatus {
            key_id: current
                .or(versions.first())
                .map(|version| version.key_id.clone()),
            versions: versions
                .iter()
                .filter_map(|version| shown(version, now))
                .collect(),
            secret_name: has_secret.then(|| secret_field(key).1.to_owned()),
            ..AccessKeyStatus::default()
        },
        judgements: judge(
            &[ACCEPTED, REFERENCES_RESOLVED, KEY_READY],
            &plan.problems,
            &ready(key, &observed.user),
        ),
        problems: plan.problems.clone(),
        notices: Vec::new(),
        again_in: at_end
            .into_iter()
            .chain(is_in_use.then_some(IN_USE_RETRY))
            .min(),
    }
}

fn ready(key: &AccessKey, user: &UserObserved) -> ReadyAs {
    if key.spec.disabled {
        return ReadyAs {
            reason: "Disabled",
            message: "the key is refused until spec.disabled is false".to_owned(),
        };
    }
    if matches!(
        user,
        UserObserved::Ready {
            suspended: true,
            ..
        }
    ) {
        let message = format!(
            "the key is refused, for ProxyUser {} is suspended",
            key.spec.user_ref.name
        );
        return ReadyAs {
            reason: "UserSuspended",
            message,
        };
    }
    ReadyAs {
        reason: "Active",
        message: "the key is served".to_owned(),
    }
}

fn shown(version: &Version, now: DateTime<Utc>) -> Option<AccessKeyVersion> {
    Some(AccessKeyVersion {
        key_id: version.key_id.clone(),
        created_at: to_kubernetes(version.created_at)?,
        expires_at: version.expires_at.and_then(to_kubernetes),
        state: match version.expires_at {
            None => VersionState::Current,
            Some(at) if at > now => VersionState::Retiring,
            Some(_) => VersionState::Expired,
        },
    })
}
