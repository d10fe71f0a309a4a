//! What is to be done about a `ProxyUser`, decided without I/O.
//!
//! Restrictions take effect at once: `suspended`, a pool that no longer lets the user in. What cannot be resolved never
//! cuts off who is being served, and never starts serving who would be served otherwise than specified.

use spillway_core::repository::users::UserRow;
use spillway_crds::ProxyUser;
use uuid::Uuid;

use super::super::conditions::Problem;
use super::super::plan_keys::{self, PlanKeyObserved, PlanKeyPlan};
use super::super::references::check_models;
use crate::settings::PoolName;

/// The pool that a user names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PoolObserved {
    /// It serves the user.
    Open(Uuid),
    /// There is no such pool.
    Missing(PoolName),
    /// It does not serve the user's namespace.
    Closed(PoolName),
    /// It is there but cannot serve yet.
    NotReady(PoolName),
}

/// What there is.
#[derive(Debug)]
pub struct Observed {
    /// The pool that the user names.
    pub pool: PoolObserved,
    /// The Plan key that the user names.
    pub plan_key: Option<PlanKeyObserved>,
    /// The row of the credential that the user names, or what is wrong with it.
    pub credential: Option<Result<Uuid, Problem>>,
    /// What is stored: the row's id, the resource's uid and the settings.
    pub stored: Option<(Uuid, String, UserRow)>,
    /// How many living keys the user has.
    pub keys: i64,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The row to be written, if any.
    pub store: Option<Store>,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// A row to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Store {
    /// The settings. The Plan key is the stored one's where `plan_key` says that it is to be stored.
    pub row: UserRow,
    /// Whether the Plan key is to be stored first.
    pub plan_key: bool,
}

/// What `user` says of its suspension, where its own row says something else.
pub fn restriction(user: &ProxyUser, uid: &str, row: &UserRow) -> Option<bool> {
    let wanted = user.spec.suspended;
    (user.metadata.uid.as_deref() == Some(uid) && wanted != row.suspended).then_some(wanted)
}

/// Decides what is to be done.
pub fn plan(observed: &Observed, user: &ProxyUser) -> Plan {
    let spec = &user.spec;
    let own = observed
        .stored
        .as_ref()
        .filter(|(_, uid, _)| Some(uid) == user.metadata.uid.as_ref());
    let former = own.map(|(_, _, row)| row);
    let mut problems = Vec::new();
    let pool_id = pool(&observed.pool, former, &mut problems);
    let allowed_models = match check_models("spec.allowedModels", &spec.allowed_models) {
        None => spec.allowed_models.clone(),
        Some(problem) => {
            problems.push(problem);
            former
                .map(|row| row.allowed_models.clone())
                .unwrap_or_default()
        }
    };
    let (plan_key_id, store_plan_key) = match observed.plan_key.as_ref().map(plan_keys::plan) {
        None => (None, false),
        Some(PlanKeyPlan::Keep(id)) => (Some(id), false),
        Some(PlanKeyPlan::Store) => (former.and_then(|row| row.plan_key_id), true),
        Some(PlanKeyPlan::Unusable(kept, problem)) => {
            problems.push(problem);
            (
                kept.or_else(|| former.and_then(|row| row.plan_key_id)),
                false,
            )
        }
    };
    let bedrock_key_id = match &observed.credential {
        None => None,
        Some(Ok(id)) => Some(*id),
        // Never a wider credential than the one that is named.
        Some(Err(problem)) => {
            problems.push(problem.clone());
            former.and_then(|row| row.bedrock_key_id)
        }
    };
    let row = UserRow {
        email: Some(spec.email.clone()),
        display_name: spec.display_name.clone(),
        pool_id,
        suspended: spec.suspended,
        allowed_models,
        plan_key_id,
        bedrock_key_id,
    };
    let may_store = former.is_some() || problems.is_empty();
    let is_changed = store_plan_key || former != Some(&row);
    Plan {
        store: (may_store && is_changed).then_some(Store {
            row,
            plan_key: store_plan_key,
        }),
        problems,
    }
}

fn pool(
    pool: &PoolObserved,
    former: Option<&UserRow>,
    problems: &mut Vec<Problem>,
) -> Option<Uuid> {
    match pool {
        PoolObserved::Open(id) => Some(*id),
        PoolObserved::Missing(name) => {
            problems.push(Problem::reference(
                "PoolNotFound",
                format!("spec.poolRef names ProxyPool {name}, which does not exist: create it, or name another"),
            ));
            None
        }
        PoolObserved::Closed(name) => {
            problems.push(Problem::reference(
                "PoolNotAllowed",
                format!(
                    "spec.poolRef names ProxyPool {name}, which does not serve this namespace: let the platform team add it \
                     to the pool's spec.allowedNamespaces, or name another pool"
                ),
            ));
            None
        }
        PoolObserved::NotReady(name) => {
            problems.push(Problem::reference(
                "PoolNotReady",
                format!("spec.poolRef names ProxyPool {name}, which is not ready: its conditions say what to mend"),
            ));
            former.and_then(|row| row.pool_id)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const POOL: Uuid = Uuid::from_u128(9);

    fn user(spec: &Value) -> ProxyUser {
        let mut spec = spec.clone();
        spec["email"] = json!("alice@example.com");
        serde_json::from_value(json!({
            "apiVersion": "spillway.dev/v1alpha1", "kind": "ProxyUser",
            "metadata": { "name": "alice", "namespace": "team", "uid": "u1" }, "spec": spec,
        }))
        .unwrap()
    }

    fn name() -> PoolName {
        PoolName {
            namespace: "spillway-system".into(),
            name: "default".into(),
        }
    }

    fn observed(pool: PoolObserved, stored: Option<UserRow>) -> Observed {
        let stored = stored.map(|row| (Uuid::from_u128(1), "u1".to_owned(), row));
        Observed {
            pool,
            plan_key: None,
            credential: None,
            stored,
            keys: 0,
        }
    }

    fn row(spec: &Value) -> UserRow {
        plan(&observed(PoolObserved::Open(POOL), None), &user(spec))
            .store
            .unwrap()
            .row
    }

    #[test]
    fn a_user_is_stored_once() {
        let spec = json!({ "displayName": "Alice", "allowedModels": ["claude-*"] });
        let stored = row(&spec);
        assert_eq!(stored.pool_id, Some(POOL));
        let again = plan(
            &observed(PoolObserved::Open(POOL), Some(stored.clone())),
            &user(&spec),
        );
        assert_eq!(
            again,
            Plan {
                store: None,
                problems: vec![]
            }
        );
        let mut of_another = observed(PoolObserved::Open(POOL), Some(stored));
        of_another.stored.as_mut().unwrap().1 = "u0".into();
        assert!(plan(&of_another, &user(&spec)).store.is_some());
    }

    #[test]
    fn a_new_user_waits_for_what_it_refers_to() {
        for (pool, reason) in [
            (PoolObserved::Missing(name()), "PoolNotFound"),
            (PoolObserved::Closed(name()), "PoolNotAllowed"),
            (PoolObserved::NotReady(name()), "PoolNotReady"),
        ] {
            let plan = plan(&observed(pool, None), &user(&json!({})));
            assert_eq!((plan.store, plan.problems[0].reason), (None, reason));
            assert!(
                plan.problems[0]
                    .message
                    .contains("ProxyPool spillway-system/default")
            );
        }
    }

    #[test]
    fn restrictions_take_effect_whatever_else_is_wrong() {
        let former = row(&json!({}));
        let mut broken = observed(PoolObserved::NotReady(name()), Some(former.clone()));
        broken.credential = Some(Err(Problem::reference("CredentialNotFound", "create it")));
        let plan = plan(
            &broken,
            &user(&json!({ "suspended": true, "allowedModels": ["claude-["] })),
        );
        let stored = plan.store.unwrap().row;
        assert!(stored.suspended);
        assert_eq!(
            stored.pool_id,
            Some(POOL),
            "a pool that is being mended keeps its users"
        );
        assert_eq!(plan.problems.len(), 3);
    }

    #[test]
    fn a_suspension_is_told_from_the_own_row_alone() {
        let former = row(&json!({}));
        let suspended = user(&json!({ "suspended": true }));
        assert_eq!(restriction(&suspended, "u1", &former), Some(true));
        assert_eq!(restriction(&suspended, "u0", &former), None);
        assert_eq!(restriction(&user(&json!({})), "u1", &former), None);
    }

    #[test]
    fn a_broken_credential_reference_leads_to_no_wider_credential() {
        let former = UserRow {
            bedrock_key_id: Some(Uuid::from_u128(5)),
            ..row(&json!({}))
        };
        let mut broken = observed(PoolObserved::Open(POOL), Some(former));
        broken.credential = Some(Err(Problem::reference("CredentialNotFound", "create it")));
        let plan = plan(&broken, &user(&json!({})));
        assert_eq!(plan.store, None, "the former reference stays");
        assert_eq!(plan.problems[0].reason, "CredentialNotFound");
    }

    #[test]
    fn a_pool_that_no_longer_lets_the_user_in_serves_no_more() {
        let former = row(&json!({}));
        let plan = plan(
            &observed(PoolObserved::Closed(name()), Some(former)),
            &user(&json!({})),
        );
        assert_eq!(plan.store.unwrap().row.pool_id, None);
    }
}
