//! The status of a `BedrockCredential`.

use spillway_crds::BedrockCredentialStatus;

use super::super::conditions::{ACCEPTED, REFERENCES_RESOLVED, ReadyAs, judge};
use super::super::outcome::Outcome;
use super::plan::{Observed, Plan};

/// What a reconciliation came to.
pub fn outcome(observed: &Observed, plan: &Plan) -> Outcome<BedrockCredentialStatus> {
    let row = observed.row.as_ref();
    let ready = ReadyAs {
        reason: "Stored",
        message: "the credential is stored encrypted and can be used".to_owned(),
    };
    let mut judgements = judge(&[ACCEPTED, REFERENCES_RESOLVED], &plan.problems, &ready);
    if !plan.problems.is_empty() && row.is_some() {
        // Nobody is cut off by a Secret that is being mended.
        if let Some(summary) = judgements.last_mut() {
            summary
                .message
                .push_str("; until then the credential that was stored before is used");
        }
    }
    Outcome {
        status: BedrockCredentialStatus {
            encrypted_with: row.map(|row| row.encrypted_with.clone()),
            secret_version: row.and_then(|row| row.secret_version.clone()),
            used_by: i32::try_from(observed.used_by).ok(),
            ..BedrockCredentialStatus::default()
        },
        judgements,
        problems: plan.problems.clone(),
        notices: Vec::new(),
        again_in: None,
    }
}
