//! What is to be done about a `ProxyPool`, decided without I/O.

use kube::ResourceExt;
use spillway_core::domain::pool::PoolConfig;
use spillway_crds::{ProxyPool, RESET_CIRCUIT_ANNOTATION};
use uuid::Uuid;

use super::super::conditions::Problem;
use super::super::outcome::Rules;
use super::super::plan_keys::{self, PlanKeyObserved, PlanKeyPlan};
use super::super::references::check_upstream;
use super::config::{Resolved, config};

/// What there is.
#[derive(Debug)]
pub struct Observed {
    /// The Plan key that the pool names.
    pub plan_key: Option<PlanKeyObserved>,
    /// The row of the credential that the pool names, or what is wrong with it.
    pub credential: Option<Result<Uuid, Problem>>,
    /// What is stored: the resource's uid and the settings.
    pub stored: Option<(String, PoolConfig)>,
    /// The value of the annotation that circuits were last reset for.
    pub handled_reset: Option<String>,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// The row to be written, if any.
    pub store: Option<Store>,
    /// The stored pool whose circuits are to be closed, and the value that asks for it.
    pub reset: Option<(Uuid, String)>,
    /// Whether proxies may run for it.
    pub may_run: bool,
    /// What is wrong.
    pub problems: Vec<Problem>,
}

/// A row to be written.
#[derive(Debug, PartialEq, Eq)]
pub struct Store {
    /// The settings. The Plan key is the stored one's where `plan_key` says that it is to be stored.
    pub config: PoolConfig,
    /// Whether the Plan key is to be stored first.
    pub plan_key: bool,
}

/// Decides what is to be done. A pool that is not accepted is left as it is stored; one whose references cannot be
/// resolved is stored with what can be used. While a credential that it names never resolved, nothing falls back.
pub fn plan(observed: &Observed, pool: &ProxyPool, rules: &Rules) -> Plan {
    let namespace = pool.namespace().unwrap_or_default();
    if !rules.pool_namespaces.contains(&namespace) {
        let allowed: Vec<_> = rules.pool_namespaces.iter().map(String::as_str).collect();
        let message = format!(
            "pools live in the namespaces that the operator is told ({}), not in {namespace}: make the pool there, or add \
             {namespace} to --pool-namespaces",
            allowed.join(", ")
        );
        return Plan {
            store: None,
            reset: None,
            may_run: false,
            problems: vec![Problem::accepted("NamespaceNotAllowed", message)],
        };
    }
    let former = observed.stored.as_ref().map(|(_, config)| config);
    let mut references = Vec::new();
    let (plan_key_id, store_plan_key) = match observed.plan_key.as_ref().map(plan_keys::plan) {
        None => (None, false),
        Some(PlanKeyPlan::Keep(id)) => (Some(id), false),
        Some(PlanKeyPlan::Store) => (former.and_then(|config| config.plan_key_id), true),
        Some(PlanKeyPlan::Unusable(kept, problem)) => {
            references.push(problem);
            (
                kept.or_else(|| former.and_then(|config| config.plan_key_id)),
                false,
            )
        }
    };
    let bedrock_key_id = match &observed.credential {
        None => None,
        Some(Ok(id)) => Some(*id),
        Some(Err(problem)) => {
            references.push(problem.clone());
            former.and_then(|config| config.bedrock_key_id)
        }
    };
    let is_unresolved = observed.credential.is_some() && bedrock_key_id.is_none();
    let api_url = pool
        .spec
        .plan
        .as_ref()
        .and_then(|plan| plan.api_url.as_deref());
    let mut problems: Vec<_> =
        check_upstream("spec.plan.apiUrl", api_url, &rules.allowed_upstreams)
            .into_iter()
            .collect();
    let store = match config(
        &pool.spec,
        Resolved {
            plan_key_id,
            bedrock_key_id,
        },
    ) {
        Ok(mut config) if problems.is_empty() => {
            if is_unresolved {
                // Otherwise the proxies' own identity, which nobody named, would be used.
                config.fallback_enabled = Some(false);
            }
            let is_current = observed.stored.as_ref().is_some_and(|(uid, stored)| {
                Some(uid) == pool.metadata.uid.as_ref()
                    && *stored
                        == PoolConfig {
                            id: stored.id,
                            namespace: stored.namespace.clone(),
                            name: stored.name.clone(),
                            ..config.clone()
                        }
            });
            (store_plan_key || !is_current).then_some(Store {
                config,
                plan_key: store_plan_key,
            })
        }
        Ok(_) => None,
        Err(wrong) => {
            problems.extend(wrong);
            None
        }
    };
    problems.extend(references);
    Plan {
        store,
        reset: reset(observed, pool),
        may_run: true,
        problems,
    }
}

/// Circuits are closed once for each new value of the annotation.
fn reset(observed: &Observed, pool: &ProxyPool) -> Option<(Uuid, String)> {
    let (_, stored) = observed.stored.as_ref()?;
    let wanted = pool.annotations().get(RESET_CIRCUIT_ANNOTATION)?;
    let is_new = !wanted.is_empty() && observed.handled_reset.as_ref() != Some(wanted);
    is_new.then(|| (stored.id, wanted.clone()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};
    use spillway_core::domain::upstream::AllowedUpstreams;

    use super::*;
    use crate::resources::test::pool;
    use crate::settings::PoolName;

    fn rules(namespaces: &[&str]) -> Rules {
        Rules {
            pool_namespaces: namespaces.iter().map(|name| (*name).to_owned()).collect(),
            default_pool: PoolName {
                namespace: "spillway-system".into(),
                name: "default".into(),
            },
            allowed_upstreams: AllowedUpstreams::default(),
            database_secrets: BTreeSet::new(),
        }
    }

    fn observed(stored: Option<(String, PoolConfig)>) -> Observed {
        Observed {
            plan_key: None,
            credential: None,
            stored,
            handled_reset: None,
        }
    }

    fn planned(spec: &Value, observed: &Observed) -> Plan {
        plan(observed, &pool(spec), &rules(&["spillway-system"]))
    }

    fn stored(spec: &Value) -> (String, PoolConfig) {
        let config = planned(spec, &observed(None)).store.unwrap().config;
        let config = PoolConfig {
            id: Uuid::from_u128(1),
            namespace: "spillway-system".into(),
            name: "main".into(),
            ..config
        };
        (pool(spec).metadata.uid.unwrap(), config)
    }

    #[test]
    fn a_pool_is_stored_once() {
        let spec = json!({ "plan": { "apiUrl": "https://api.anthropic.com" }, "models": [{ "name": "a", "bedrockModelId": "b" }] });
        assert!(planned(&spec, &observed(None)).store.is_some());
        assert_eq!(
            planned(&spec, &observed(Some(stored(&spec)))),
            Plan {
                store: None,
                reset: None,
                may_run: true,
                problems: vec![]
            }
        );
        assert!(
            planned(&json!({}), &observed(Some(stored(&spec))))
                .store
                .is_some()
        );
        let former = Some(("another-uid".to_owned(), stored(&spec).1));
        assert!(planned(&spec, &observed(former)).store.is_some());
    }

    #[test]
    fn circuits_are_reset_once_for_each_new_value() {
        let spec = json!({});
        let asked = |value: &str, observed: &Observed| {
            let mut pool = pool(&spec);
            pool.annotations_mut()
                .insert(RESET_CIRCUIT_ANNOTATION.to_owned(), value.to_owned());
            plan(observed, &pool, &rules(&["spillway-system"])).reset
        };
        let handled = |value: Option<&str>| Observed {
            handled_reset: value.map(str::to_owned),
            ..observed(Some(stored(&spec)))
        };
        let reset = |value: &str| Some((Uuid::from_u128(1), value.to_owned()));
        assert_eq!(asked("1", &handled(None)), reset("1"));
        assert_eq!(asked("1", &handled(Some("1"))), None);
        assert_eq!(asked("2", &handled(Some("1"))), reset("2"));
        assert_eq!(asked("", &handled(Some("1"))), None);
        assert_eq!(planned(&spec, &handled(Some("1"))).reset, None);
        assert_eq!(asked("1", &observed(None)), None, "there is nothing yet");
    }

    #[test]
    fn a_pool_outside_the_pool_namespaces_is_left_alone() {
        let plan = plan(&observed(None), &pool(&json!({})), &rules(&["platform"]));
        assert_eq!(
            (plan.store, plan.may_run, plan.problems[0].reason),
            (None, false, "NamespaceNotAllowed")
        );
        assert!(
            plan.problems[0]
                .message
                .contains("(platform), not in spillway-system"),
            "{}",
            plan.problems[0].message
        );
    }

    #[test]
    fn an_upstream_that_is_not_allowed_changes_nothing() {
        let plan = planned(
            &json!({ "plan": { "apiUrl": "http://api.anthropic.com" } }),
            &observed(None),
        );
        assert_eq!(
            (plan.store.is_some(), plan.may_run, plan.problems[0].reason),
            (false, true, "UpstreamRefused")
        );
    }

    #[test]
    fn a_reference_that_is_missing_does_not_hold_the_rest_up() {
        let spec = json!({ "fallback": { "bedrock": { "credentialRef": { "name": "main" } } } });
        let missing = Observed {
            credential: Some(Err(Problem::reference("CredentialNotFound", "create it"))),
            ..observed(None)
        };
        let plan = planned(&spec, &missing);
        let config = plan.store.unwrap().config;
        assert_eq!(
            (config.bedrock_key_id, config.fallback_enabled),
            (None, Some(false))
        );
        assert_eq!(plan.problems[0].reason, "CredentialNotFound");
        let mut former = stored(&json!({}));
        former.1.bedrock_key_id = Some(Uuid::from_u128(4));
        let kept = Observed {
            stored: Some(former),
            ..missing
        };
        let config = planned(&spec, &kept).store.unwrap().config;
        assert_eq!(
            (config.bedrock_key_id, config.fallback_enabled),
            (Some(Uuid::from_u128(4)), Some(true)),
            "the former credential stays named"
        );
        let found = Observed {
            credential: Some(Ok(Uuid::from_u128(5))),
            ..observed(None)
        };
        assert_eq!(
            planned(&spec, &found).store.unwrap().config.bedrock_key_id,
            Some(Uuid::from_u128(5))
        );
    }
}
