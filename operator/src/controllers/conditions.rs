//! Conditions: what is wrong with a resource, in words that name the field and the fix.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// The condition that sums the others up.
pub const READY: &str = "Ready";
/// The specification is allowed where it is and can be acted on.
pub const ACCEPTED: &str = "Accepted";
/// Everything that the specification names was found and can be used.
pub const REFERENCES_RESOLVED: &str = "ReferencesResolved";
/// The Secret with the key is there and the key is in force.
pub const KEY_READY: &str = "KeyReady";
/// Enough proxies take requests.
pub const AVAILABLE: &str = "Available";
/// The operator was told to leave the resource alone.
pub const PAUSED: &str = "Paused";

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The condition that does not hold.
    pub condition: &'static str,
    /// Why, in one CamelCase word.
    pub reason: &'static str,
    /// Why, in a sentence that names the field and the fix.
    pub message: String,
}

impl Problem {
    /// Something wrong with what is specified.
    pub fn accepted(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            condition: ACCEPTED,
            reason,
            message: message.into(),
        }
    }

    /// Something wrong with what is referred to.
    pub fn reference(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            condition: REFERENCES_RESOLVED,
            reason,
            message: message.into(),
        }
    }

    /// Something wrong with a key or its Secret.
    pub fn key(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            condition: KEY_READY,
            reason,
            message: message.into(),
        }
    }
}

/// A condition before it is compared with the former one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The condition's type.
    pub type_: &'static str,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Why, in one CamelCase word.
    pub reason: &'static str,
    /// Why, in a sentence.
    pub message: String,
}

/// What `Ready` says when nothing is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyAs {
    /// One CamelCase word.
    pub reason: &'static str,
    /// A sentence.
    pub message: String,
}

/// Judges each of `types` and `Ready` by the problems that were found. `Ready` repeats the first problem's reason and
/// every message.
pub fn judge(types: &[&'static str], problems: &[Problem], ready: &ReadyAs) -> Vec<Judgement> {
    let of =
        |type_: &'static str, problems: &[&Problem], holds: (&'static str, &str)| match problems
            .first()
        {
            Some(first) => Judgement {
                type_,
                status: "False",
                reason: first.reason,
                message: problems
                    .iter()
                    .map(|problem| problem.message.as_str())
                    .collect::<Vec<_>>()
                    .join("; "),
            },
            None => Judgement {
                type_,
                status: "True",
                reason: holds.0,
                message: holds.1.to_owned(),
            },
        };
    let mut judgements: Vec<_> = types
        .iter()
        .map(|type_| {
            let own: Vec<_> = problems
                .iter()
                .filter(|problem| problem.condition == *type_)
                .collect();
            of(type_, &own, holds(type_))
        })
        .collect();
    let all: Vec<_> = problems.iter().collect();
    judgements.push(of(READY, &all, (ready.reason, &ready.message)));
    judgements
}

/// Reason and message of a condition that holds.
fn holds(type_: &str) -> (&'static str, &'static str) {
    match type_ {
        ACCEPTED => ("Accepted", "the specification is in force"),
        REFERENCES_RESOLVED => ("Resolved", "everything that is referred to can be used"),
        KEY_READY => ("Stored", "the Secret holds the key"),
        AVAILABLE => ("Available", "enough proxies take requests"),
        _ => ("Holds", ""),
    }
}

/// The conditions as they are to be stored: the time of a condition changes with its status alone.
pub fn merged(
    former: &[Condition],
    judgements: &[Judgement],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    judgements
        .iter()
        .map(|judgement| {
            let since = former
                .iter()
                .find(|condition| {
                    condition.type_ == judgement.type_ && condition.status == judgement.status
                })
                .map_or_else(
                    || Time(in_seconds(now)),
                    |condition| condition.last_transition_time.clone(),
                );
            Condition {
                type_: judgement.type_.to_owned(),
                status: judgement.status.to_owned(),
                reason: judgement.reason.to_owned(),
                message: judgement.message.clone(),
                observed_generation: generation,
                last_transition_time: since,
            }
        })
        .collect()
}

/// The API server keeps whole seconds.
fn in_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Whether `Ready` was judged for this generation, true or not.
pub fn is_judged(conditions: &[Condition], generation: Option<i64>) -> bool {
    conditions
        .iter()
        .any(|condition| condition.type_ == READY && condition.observed_generation == generation)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready() -> ReadyAs {
        ReadyAs {
            reason: "Active",
            message: "the key is served".into(),
        }
    }

    #[test]
    fn nothing_wrong_makes_everything_true() {
        let judged = judge(&[ACCEPTED, REFERENCES_RESOLVED], &[], &ready());
        assert!(judged.iter().all(|judgement| judgement.status == "True"));
        assert_eq!(judged.last().unwrap().reason, "Active");
    }

    #[test]
    fn a_problem_makes_its_condition_and_ready_false() {
        let problems = [
            Problem::reference("SecretNotFound", "no Secret"),
            Problem::reference("PoolNotFound", "no pool"),
        ];
        let judged = judge(&[ACCEPTED, REFERENCES_RESOLVED], &problems, &ready());
        assert_eq!(judged[0].status, "True");
        assert_eq!(
            (judged[1].status, judged[1].reason),
            ("False", "SecretNotFound")
        );
        assert_eq!(judged[2].message, "no Secret; no pool");
    }

    #[test]
    fn the_transition_time_changes_with_the_status_alone() {
        let (early, late) = (
            Timestamp::from_second(100).unwrap(),
            Timestamp::from_second(200).unwrap(),
        );
        let first = merged(&[], &judge(&[], &[], &ready()), Some(1), early);
        let same = merged(
            &first,
            &judge(
                &[],
                &[],
                &ReadyAs {
                    reason: "Other",
                    message: "x".into(),
                },
            ),
            Some(2),
            late,
        );
        assert_eq!(same[0].last_transition_time, first[0].last_transition_time);
        assert_eq!(same[0].observed_generation, Some(2));
        let broken = merged(
            &same,
            &judge(&[], &[Problem::key("Bad", "bad")], &ready()),
            Some(2),
            late,
        );
        assert_eq!(broken[0].last_transition_time.0, late);
        assert!(
            is_judged(&same, Some(2)) && !is_judged(&same, Some(1)) && is_judged(&broken, Some(2))
        );
    }
}
