//! Asks the Plan for what is no message: nothing is metered, and circuits neither ask nor are told.

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use super::answer::message_of;
use super::body::RelayBody;
use super::class::{self, Failure};
use super::collect::collect;
use crate::adapter::plan::{PlanAdapter, PlanRequest};
use crate::adapter::{AdapterError, ErrorBody, answer_headers, chain};
use crate::call::{MAX_ANSWER, PlanCredential};

/// An answer of the Plan's, or an error of the proxy's own in its place.
#[derive(Debug)]
pub struct PlanAnswer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// Whether the Plan gave it.
    pub is_plans: bool,
}

impl PlanAnswer {
    /// Asks until `deadline`, for the request of this id.
    pub async fn ask(
        plan: &PlanAdapter,
        request: PlanRequest<'_>,
        credential: &PlanCredential,
        deadline: Instant,
        request_id: Uuid,
    ) -> Self {
        let asking = async {
            let reply = plan.send(request, credential).await?;
            let body = collect(reply.body.map_ok(|chunk| chunk.bytes), MAX_ANSWER)
                .await
                .map_err(|error| AdapterError::NoAnswer(error.into()))?;
            Ok::<_, AdapterError>(Self {
                status: reply.status,
                headers: reply.headers,
                body,
                is_plans: true,
            })
        };
        match timeout_at(deadline, asking).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                tracing::warn!(%request_id, error = chain(&error), "the plan did not answer");
                let words = "the upstream could not be reached";
                Self::own(StatusCode::BAD_GATEWAY, "api_error", words, request_id)
            }
            Err(_) => {
                tracing::warn!(%request_id, "the plan did not answer in time");
                let words = "the upstream did not answer in time";
                Self::own(
                    StatusCode::GATEWAY_TIMEOUT,
                    "timeout_error",
                    words,
                    request_id,
                )
            }
        }
    }

    fn own(
        status: StatusCode,
        kind: &'static str,
        message: &'static str,
        request_id: Uuid,
    ) -> Self {
        Self {
            status,
            headers: answer_headers(request_id, HeaderValue::from_static("application/json")),
            body: ErrorBody::new(kind, message).to_answer(request_id),
            is_plans: false,
        }
    }

    /// Whether another upstream would be asked if this were a message.
    pub fn is_failure(&self) -> bool {
        !self.status.is_success()
            && class::of_status(self.status.as_u16(), &message_of(&self.body)) != Failure::Client
    }
}

impl From<PlanAnswer> for Response<RelayBody> {
    fn from(answer: PlanAnswer) -> Self {
        let mut response = Self::new(RelayBody::whole(answer.body));
        *response.status_mut() = answer.status;
        *response.headers_mut() = answer.headers;
        response
    }
}
