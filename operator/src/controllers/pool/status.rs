//! The status of a `ProxyPool`.

use std::time::Duration;

use kube::ResourceExt;
use spillway_crds::{ProxyPool, ProxyPoolStatus};

use super::super::conditions::{ACCEPTED, AVAILABLE, Problem, REFERENCES_RESOLVED, ReadyAs, judge};
use super::super::outcome::Outcome;
use super::super::world::{OBJECT_CONFLICT, ProxyState};
use super::plan::Plan;
use crate::resources::selector_text;

/// Objects of others are not watched.
const CONFLICT_RETRY: Duration = Duration::from_secs(15);

/// What a reconciliation came to. `proxies` is none where no proxies are run for the pool.
pub fn outcome(
    pool: &ProxyPool,
    url: &str,
    plan: &Plan,
    proxies: Option<&ProxyState>,
) -> Outcome<ProxyPoolStatus> {
    let mut problems = plan.problems.clone();
    if let Some((reason, message)) = proxies.and_then(|proxies| proxies.unavailable.clone()) {
        problems.push(Problem {
            condition: AVAILABLE,
            reason,
            message,
        });
    }
    let is_in_the_way = problems
        .iter()
        .any(|problem| problem.reason == OBJECT_CONFLICT);
    let types: &[&'static str] = if proxies.is_some() {
        &[ACCEPTED, REFERENCES_RESOLVED, AVAILABLE]
    } else {
        &[ACCEPTED, REFERENCES_RESOLVED]
    };
    let ready = ReadyAs {
        reason: "Serving",
        message: "the pool serves as it says".to_owned(),
    };
    Outcome {
        status: ProxyPoolStatus {
            replicas: proxies.map(|proxies| proxies.replicas),
            ready_replicas: proxies.map(|proxies| proxies.ready_replicas),
            selector: proxies.is_some().then(|| selector_text(&pool.name_any())),
            url: plan.may_run.then(|| url.to_owned()),
            ..ProxyPoolStatus::default()
        },
        judgements: judge(types, &problems, &ready),
        problems,
        notices: Vec::new(),
        again_in: is_in_the_way.then_some(CONFLICT_RETRY),
    }
}
