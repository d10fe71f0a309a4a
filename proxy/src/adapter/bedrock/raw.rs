//! A call of the SDK whose bodies are our own.
//!
//! The SDK resolves endpoint and credentials, signs, and reads errors. Its types for Converse would cost what the wire carries
//! beside them: the order of members, numbers to the last digit, members that its model does not know, and a tree of allocations
//! for every event.

use std::fmt;
use std::sync::Arc;

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextMut,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt as _, Limited};
use parking_lot::Mutex;

use crate::call::{MAX_ANSWER, MAX_ERROR};

/// Puts a body in the place of the SDK's before it is signed, and keeps the body of an answer that is no error from the SDK.
#[derive(Clone)]
pub(crate) struct RawExchange {
    request: Bytes,
    answer: Arc<Mutex<Option<SdkBody>>>,
    /// What the SDK is given to read in the answer's place.
    stand_in: &'static str,
}

impl RawExchange {
    /// An exchange that sends `request`; the SDK takes `stand_in` for an answer.
    pub(crate) fn new(request: Vec<u8>, stand_in: &'static str) -> Self {
        Self {
            request: request.into(),
            answer: Arc::default(),
            stand_in,
        }
    }

    /// The answer's body, once.
    pub(crate) fn take_answer(&self) -> SdkBody {
        self.answer.lock().take().unwrap_or_else(SdkBody::empty)
    }

    /// The whole of the answer's body.
    pub(crate) async fn collect(&self) -> Result<Bytes, BoxError> {
        let body = Limited::new(self.take_answer(), MAX_ANSWER);
        Ok(body.collect().await?.to_bytes())
    }
}

impl fmt::Debug for RawExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawExchange")
    }
}

#[dyn_dispatch_hint]
impl Intercept for RawExchange {
    fn name(&self) -> &'static str {
        "RawExchange"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        request
            .headers_mut()
            .insert(CONTENT_LENGTH.as_str(), self.request.len().to_string());
        *request.body_mut() = SdkBody::from(self.request.clone());
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        let stand_in = SdkBody::from(self.stand_in);
        let answer = std::mem::replace(response.body_mut(), stand_in);
        if response.status().is_success() {
            *self.answer.lock() = Some(answer);
        } else {
            // The SDK reads an error to its end.
            let error = Limited::new(answer, MAX_ERROR);
            *response.body_mut() = SdkBody::from_body_1_x(error);
        }
        Ok(())
    }
}
