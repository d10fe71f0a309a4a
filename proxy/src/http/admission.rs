//! What every route with a key does first: the front door, the key, the body.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::Request;
use http::request::Parts;
use uuid::Uuid;

use super::Frontend;
use super::auth::presented_key;
use super::body;
use super::connection::RequestBody;
use super::error::Refusal;
use super::route::target;
use crate::call::{Admission, Call, RequestHead};
use crate::directory::KeyEntry;

/// A request with a valid key and its body read.
pub(super) struct Admitted {
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    pub(super) entry: Arc<KeyEntry>,
    created_at: DateTime<Utc>,
}

impl Admitted {
    /// The call that this request is.
    pub(super) fn into_call(self, head: RequestHead, id: Uuid, received_at: Instant) -> Call {
        Call {
            admission: Arc::new(Admission {
                request_id: id,
                created_at: self.created_at,
                caller: Arc::clone(&self.entry.caller),
                pool: Arc::clone(&self.entry.pool),
            }),
            head,
            body: self.body,
            query: self.parts.uri.query().map(str::to_owned),
            headers: self.parts.headers,
            received_at,
        }
    }
}

impl Frontend {
    /// Lets a request with a body in.
    pub(super) async fn admit(&self, request: Request<RequestBody>) -> Result<Admitted, Refusal> {
        let (parts, body) = request.into_parts();
        self.origin_verify.check(&parts.headers)?;
        let presented = presented_key(target(parts.uri.path()).path_key, &parts.headers);
        let created_at = self.clock.now();
        let revision = self.directory.revision();
        let mut entry = self.directory.authenticate(presented, created_at).await?;
        let body = body::read(&parts.headers, body, &self.body_budget).await?;
        if self.directory.revision() != revision {
            // The body may have taken its time, and the key may have been revoked meanwhile.
            entry = self
                .directory
                .authenticate(presented, self.clock.now())
                .await?;
        }
        Ok(Admitted {
            parts,
            body,
            entry,
            created_at,
        })
    }

    /// Lets a request without a body in.
    pub(super) async fn admit_head(&self, parts: &Parts) -> Result<Arc<KeyEntry>, Refusal> {
        self.origin_verify.check(&parts.headers)?;
        let presented = presented_key(target(parts.uri.path()).path_key, &parts.headers);
        self.directory
            .authenticate(presented, self.clock.now())
            .await
    }
}
