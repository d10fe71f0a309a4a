//! The status of a `ProxyUser`.

use spillway_crds::{ProxyUser, ProxyUserStatus};

use super::super::conditions::{ACCEPTED, REFERENCES_RESOLVED, ReadyAs, judge};
use super::super::outcome::Outcome;
use super::plan::{Observed, Plan};

/// What a reconciliation came to. `status.usage` is left out: it is written on its own.
pub fn outcome(user: &ProxyUser, observed: &Observed, plan: &Plan) -> Outcome<ProxyUserStatus> {
    let ready = if user.spec.suspended {
        ReadyAs {
            reason: "Suspended",
            message: "the user's keys are refused until spec.suspended is false".to_owned(),
        }
    } else {
        ReadyAs {
            reason: "Active",
            message: "the user's keys are served".to_owned(),
        }
    };
    Outcome {
        status: ProxyUserStatus {
            keys: i32::try_from(observed.keys).ok(),
            ..ProxyUserStatus::default()
        },
        judgements: judge(&[ACCEPTED, REFERENCES_RESOLVED], &plan.problems, &ready),
        problems: plan.problems.clone(),
        notices: Vec::new(),
        again_in: None,
    }
}
