//! Drives one kind on the cluster: finalizer, pause, status, Events, back-off.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use kube_runtime::controller::Action;
use kube_runtime::finalizer::{self, Event, finalizer};
use kube_runtime::reflector::ObjectRef;
use parking_lot::Mutex;
use serde_json::json;
use spillway_crds::{FINALIZER, GROUP, VERSION};
use tracing::{info, warn};

use super::cluster::Cluster;
use super::conditions::{Judgement, PAUSED, READY, is_judged, merged};
use super::error::ReconcileError;
use super::kind::{Reconciled, is_paused};
use super::outcome::{Env, Notice, Outcome, Rows, Rules};
use super::world::WorldError;
use crate::context::Context;
use crate::database::{DatabaseAway, Session};
use crate::events::CONTROLLER;
use crate::report::chain;

/// How long a deletion waits for a database that is away.
const DELETION_PATIENCE: Duration = Duration::from_mins(1);
/// What is right is looked at again after this time, whatever was watched.
const RESYNC: Duration = Duration::from_hours(1);
/// The first pause after a failure; it doubles up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_mins(2);
/// The longest pause of a deletion: a namespace, and somebody, waits for it.
const MAX_DELETION_PAUSE: Duration = Duration::from_secs(5);

/// Drives one kind.
pub struct Driver<K: Reconciled> {
    context: Arc<Context>,
    rules: Rules,
    failures: Mutex<HashMap<ObjectRef<K>, u32>>,
}

/// Why one pass over a resource failed.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// Its rows or objects.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// Its finalizer.
    #[error("the finalizer could not be changed")]
    Finalizer(#[source] Box<finalizer::Error<ReconcileError>>),
    /// Its status.
    #[error("the status could not be written")]
    Status(#[source] kube::Error),
}

impl DriveError {
    const fn reason(&self) -> &'static str {
        match self {
            Self::Reconcile(error) => error.reason(),
            Self::Finalizer(_) | Self::Status(_) => "ApiError",
        }
    }
}

impl<K: Reconciled> Driver<K> {
    /// A driver that works with `context`.
    pub fn new(context: Arc<Context>) -> Self {
        let rules = Rules::of(&context.settings);
        Self {
            context,
            rules,
            failures: Mutex::default(),
        }
    }

    /// One pass over `resource`.
    pub async fn reconcile(self: Arc<Self>, resource: Arc<K>) -> Result<Action, DriveError> {
        let started = Instant::now();
        let result = self.pass(&resource).await;
        let outcome = result.as_ref().map(|_| ()).map_err(DriveError::reason);
        self.context
            .metrics
            .reconciled(K::KIND, started.elapsed(), outcome);
        if result.is_ok() {
            self.failures
                .lock()
                .remove(&ObjectRef::from_obj(&*resource));
        }
        result
    }

    /// When to try again after `error`.
    pub fn pause(&self, resource: &K, error: &DriveError) -> Action {
        let longest = match resource.meta().deletion_timestamp {
            Some(_) => MAX_DELETION_PAUSE,
            None => MAX_PAUSE,
        };
        let pause = {
            let mut failures = self.failures.lock();
            let count = failures.entry(ObjectRef::from_obj(resource)).or_insert(0);
            let pause = FIRST_PAUSE
                .saturating_mul(1 << (*count).min(10))
                .min(longest);
            *count += 1;
            pause
        };
        warn!(
            kind = K::KIND,
            namespace = resource.namespace(),
            name = resource.name_any(),
            reason = error.reason(),
            error = chain(error),
            again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "reconciliation failed"
        );
        Action::requeue(pause)
    }

    async fn pass(&self, resource: &Arc<K>) -> Result<Action, DriveError> {
        // The watches are cluster-wide. What is elsewhere may be another operator's, its deletion too.
        let namespace = resource.namespace().unwrap_or_default();
        if !self.context.settings.watch.includes(&namespace) {
            return Ok(Action::await_change());
        }
        let is_deleted = resource.meta().deletion_timestamp.is_some();
        if is_deleted && !resource.finalizers().iter().any(|name| name == FINALIZER) {
            return Ok(Action::await_change());
        }
        if is_paused(resource.as_ref()) && !is_deleted {
            self.write_paused(resource).await?;
            return Ok(Action::await_change());
        }
        let api = self.api(resource);
        let done = finalizer(&api, FINALIZER, Arc::clone(resource), |event| async {
            match event {
                Event::Apply(resource) => self.apply(&resource).await,
                Event::Cleanup(resource) => self.release(&resource).await,
            }
        });
        match done.await {
            Ok(action) => Ok(action),
            Err(finalizer::Error::ApplyFailed(error)) => {
                self.tell_failure(resource, &error).await?;
                Err(error.into())
            }
            Err(finalizer::Error::CleanupFailed(error)) => Err(error.into()),
            Err(error) if is_gone(&error) => Ok(Action::await_change()),
            Err(error) => Err(DriveError::Finalizer(Box::new(error))),
        }
    }

    async fn apply(&self, resource: &Arc<K>) -> Result<Action, ReconcileError> {
        let session = self.context.database.session()?;
        let rows = rows(&session);
        let world = Cluster::new(Arc::clone(&self.context), session);
        let env = Env {
            world: &world,
            rows: &rows,
            rules: &self.rules,
            now: Utc::now(),
        };
        let result = K::reconcile(&env, resource).await;
        if let Err(ReconcileError::Repository(error)) = &result {
            self.context.database.report(error);
        }
        let Outcome {
            status,
            judgements,
            notices,
            again_in,
            ..
        } = result?;
        self.tell(resource, &notices).await;
        self.tell_judgement(resource, &judgements).await;
        let generation = resource.meta().generation;
        let former = resource.status().map(K::conditions).unwrap_or_default();
        let conditions = merged(former, &judgements, generation, Timestamp::now());
        let status = K::completed(status, resource.status(), generation, conditions);
        self.write_status(resource, status)
            .await
            .map_err(|source| WorldError::new("write the status", source))?;
        Ok(Action::requeue(again_in.unwrap_or(RESYNC).min(RESYNC)))
    }

    /// Ends the rows of a deleted resource. A database that stays away does not hold a deletion up: what was left behind is
    /// swept when it returns.
    async fn release(&self, resource: &Arc<K>) -> Result<Action, ReconcileError> {
        let away = match self.context.database.session() {
            Ok(session) => {
                let released = K::release(&rows(&session), resource).await;
                if let Err(ReconcileError::Repository(error)) = &released {
                    self.context.database.report(error);
                }
                return released.map(|()| Action::await_change());
            }
            Err(away) => away,
        };
        if waited(resource.as_ref(), &away) < DELETION_PATIENCE {
            return Err(away.into());
        }
        let note = "the database has been away for a minute: let the resource go; its keys and rows end when the database returns";
        self.context
            .events
            .warning(
                &resource.object_ref(&()),
                "ReleasedWithoutDatabase",
                "Release",
                note,
            )
            .await;
        info!(
            kind = K::KIND,
            namespace = resource.namespace(),
            name = resource.name_any(),
            "released without the database"
        );
        Ok(Action::await_change())
    }

    /// Says that a resource could not be reconciled, unless it still is what it was last found to be.
    async fn tell_failure(
        &self,
        resource: &Arc<K>,
        error: &ReconcileError,
    ) -> Result<(), DriveError> {
        let generation = resource.meta().generation;
        let former = resource.status().map(K::conditions).unwrap_or_default();
        if is_judged(former, generation) && error.is_database_away() {
            return Ok(());
        }
        let message = if error.is_database_away() {
            format!("{error}: this takes effect when it returns")
        } else {
            format!("{error}; it is tried again")
        };
        let ready = Judgement {
            type_: READY,
            status: "False",
            reason: error.reason(),
            message,
        };
        let mut conditions = merged(former, &[ready], generation, Timestamp::now());
        conditions.extend(
            former
                .iter()
                .filter(|condition| condition.type_ != READY)
                .cloned(),
        );
        let status = resource.status().cloned().unwrap_or_default();
        let status = K::completed(status, resource.status(), generation, conditions);
        self.write_status(resource, status)
            .await
            .map_err(DriveError::Status)
    }

    async fn write_paused(&self, resource: &Arc<K>) -> Result<(), DriveError> {
        let observed = paused(resource.as_ref(), Timestamp::now());
        self.write_status(resource, observed)
            .await
            .map_err(DriveError::Status)
    }

    /// Writes the status where it differs. Usage and circuits are left alone, for they are others' to write.
    async fn write_status(&self, resource: &Arc<K>, status: K::Status) -> Result<(), kube::Error> {
        let wanted = K::own_part(&status);
        if resource.status().map(K::own_part).as_ref() == Some(&wanted) {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": K::kind(&()),
            "metadata": { "name": resource.name_any() },
            "status": wanted,
        });
        let parameters = PatchParams::apply(CONTROLLER).force();
        match self
            .api(resource)
            .patch_status(&resource.name_any(), &parameters, &Patch::Apply(&patch))
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn tell(&self, resource: &Arc<K>, notices: &[Notice]) {
        let about = resource.object_ref(&());
        for Notice {
            is_warning,
            reason,
            action,
            note,
        } in notices
        {
            if *is_warning {
                self.context
                    .events
                    .warning(&about, reason, action, note.clone())
                    .await;
            } else {
                self.context
                    .events
                    .normal(&about, reason, action, note.clone())
                    .await;
            }
        }
    }

    /// An Event when a resource becomes ready, and when what is wrong with it changes.
    async fn tell_judgement(&self, resource: &Arc<K>, judgements: &[Judgement]) {
        let Some(ready) = judgements.iter().find(|judgement| judgement.type_ == READY) else {
            return;
        };
        let former = resource
            .status()
            .map(K::conditions)
            .unwrap_or_default()
            .iter()
            .find(|condition| condition.type_ == READY);
        if former.is_some_and(|former| {
            former.status == ready.status
                && former.reason == ready.reason
                && former.message == ready.message
        }) {
            return;
        }
        let about = resource.object_ref(&());
        let is_progress = ready.reason == "ProxiesStarting";
        if ready.status == "True" || is_progress {
            self.context
                .events
                .normal(&about, ready.reason, "Reconcile", ready.message.clone())
                .await;
        } else {
            self.context
                .events
                .warning(&about, ready.reason, "Reconcile", ready.message.clone())
                .await;
        }
    }

    fn api(&self, resource: &K) -> Api<K> {
        Api::namespaced(
            self.context.client.clone(),
            &resource.namespace().unwrap_or_default(),
        )
    }
}

/// The status of a resource that is left alone: what it was, and that nothing newer than that was judged.
fn paused<K: Reconciled>(resource: &K, now: Timestamp) -> K::Status {
    let former = resource.status().map(K::conditions).unwrap_or_default();
    let message =
        "annotation spillway.dev/paused is true: nothing is done until it is removed".to_owned();
    let paused = Judgement {
        type_: PAUSED,
        status: "True",
        reason: "Paused",
        message,
    };
    let mut conditions = merged(former, &[paused], resource.meta().generation, now);
    conditions.extend(
        former
            .iter()
            .filter(|condition| condition.type_ != PAUSED)
            .cloned(),
    );
    let status = resource.status().cloned().unwrap_or_default();
    let observed = K::observed_generation(&status);
    K::completed(status, resource.status(), observed, conditions)
}

fn rows(session: &Session) -> Rows {
    Rows {
        pool: session.pool.clone(),
        fence: session.fence.clone(),
        hasher: Arc::clone(session.hasher()),
        envelope: Arc::clone(session.envelope()),
    }
}

/// How long a deletion has waited for the database: since it began, or since the database went away.
fn waited(resource: &impl ResourceExt, away: &DatabaseAway) -> Duration {
    let deleted_at = resource.meta().deletion_timestamp.as_ref();
    let since_deletion =
        deleted_at.and_then(|time| Timestamp::now().duration_since(time.0).try_into().ok());
    since_deletion.map_or(away.elapsed(), |since: Duration| since.min(away.elapsed()))
}

/// The resource went away while its finalizer was changed.
fn is_gone(error: &finalizer::Error<ReconcileError>) -> bool {
    match error {
        finalizer::Error::AddFinalizer(kube::Error::Api(status))
        | finalizer::Error::RemoveFinalizer(kube::Error::Api(status)) => status.is_not_found(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use spillway_crds::ProxyUser;

    use super::*;

    #[test]
    fn a_paused_resource_is_not_current() {
        let mut user: ProxyUser = serde_json::from_value(json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": "ProxyUser",
            "metadata": { "name": "alice", "namespace": "team", "generation": 3 },
            "spec": { "email": "alice@example.com" }, "status": { "observedGeneration": 2, "keys": 4 },
        }))
        .unwrap();
        let status = paused(&user, Timestamp::UNIX_EPOCH);
        assert_eq!(
            (status.observed_generation, status.keys),
            (Some(2), Some(4))
        );
        assert_eq!(status.conditions[0].type_, PAUSED);
        assert_eq!(status.conditions[0].observed_generation, Some(3));
        user.status = Some(status.clone());
        assert_eq!(paused(&user, Timestamp::UNIX_EPOCH), status, "written once");
    }
}
