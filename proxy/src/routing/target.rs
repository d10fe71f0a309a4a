//! Which model of Bedrock, through which of its APIs, stands in for the one a client names.

use std::sync::Arc;

use crate::adapter::bedrock::{Api, BedrockTarget, MAX_BODY};
use crate::call::Call;

/// What Bedrock can do for a call: `None` without a credential, without a model, or when the body is too large for it.
pub(super) fn bedrock_target(call: &Call) -> Option<BedrockTarget> {
    let credential = call.admission.caller.bedrock.as_ref()?;
    let (model_id, api) = call.admission.pool.bedrock_model(&call.head.model)?;
    (call.body.len() <= MAX_BODY).then(|| BedrockTarget {
        credential: Arc::clone(credential),
        model_id: model_id.to_owned(),
        api: Api::of(model_id, api),
    })
}
