//! An answer before it is sent: status, headers and a body that is whole or played step by step.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{journal::Record, playback::Step, usage::Usage};

/// The body of an answer.
pub(crate) enum Content {
    Whole(Bytes),
    Played(Vec<Step>),
}

/// An answer ready to be sent.
pub(crate) struct Prepared {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) content: Content,
    /// The numbers of a whole body; steps carry their own.
    pub(crate) usage: Option<Usage>,
}

impl Prepared {
    /// A whole JSON body.
    pub(crate) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(
            http::header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        Self {
            status,
            headers,
            content: Content::Whole(body.into()),
            usage: None,
        }
    }

    /// Sets a header; a value that HTTP cannot carry is left out.
    pub(crate) fn header(&mut self, name: &'static str, value: &str) {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(HeaderName::from_static(name), value);
        }
    }

    /// Adds headers that somebody scripted; control calls have checked them.
    pub(crate) fn scripted_headers(&mut self, headers: &BTreeMap<String, String>) {
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse()) {
                self.headers.insert(name, value);
            }
        }
    }

    /// Notes status and form in the journal.
    pub(crate) fn note(&self, record: &Record, streamed: bool) {
        record.update(|answer| {
            answer.status = Some(self.status.as_u16());
            answer.streamed = streamed;
        });
    }
}
