//! Bodies of clients.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use spillway_proxy::adapter::bedrock_converse::converse_body;
use spillway_proxy::adapter::bedrock_invoke::invoke_body;
use spillway_proxy::adapter::bedrock_relay::{Operation, count_body};
use spillway_proxy::http::bedrock_head::bedrock_head;
use spillway_proxy::http::body::{self, ByteBudget, MAX_BODY_BYTES};
use spillway_proxy::http::head;
use spillway_proxy::http::model_list::PlanPage;
use spillway_proxy::routing::estimate_input_tokens;

use super::input::{in_pieces, pieces};

/// Models that differ in what they take.
const MODELS: &[&str] = &[
    "us.anthropic.claude-opus-4-8",
    "anthropic.claude-3-haiku-20240307-v1:0",
    "amazon.nova-lite-v1:0",
    "openai.gpt-oss-20b-1:0",
];

/// The head of a request in either format, and the guess of its tokens. Of JSON, what is read is what any other reader finds.
pub fn request_head(data: &[u8]) {
    let headers = HeaderMap::new();
    let fields: Option<Map<String, Value>> = serde_json::from_slice(data).ok();
    match head::request_head(data, &headers) {
        Ok(head) => {
            assert!((1..=256).contains(&head.model.len()));
            if let Some(fields) = &fields {
                assert_eq!(fields["model"].as_str(), Some(head.model.as_str()));
                let stream = fields.get("stream").and_then(Value::as_bool);
                assert_eq!(stream.unwrap_or(false), head.stream);
                let max_tokens = fields.get("max_tokens").and_then(Value::as_u64);
                assert_eq!(max_tokens, head.max_tokens);
            }
        }
        Err(refusal) => {
            assert_eq!(refusal.status, 400);
            assert!(refusal.message.len() < 1000, "{}", refusal.message);
            let is_whole = fields
                .as_ref()
                .and_then(|fields| fields.get("model")?.as_str())
                .is_some_and(|model| (1..=256).contains(&model.len()));
            assert!(
                !is_whole || refusal.message.contains("twice"),
                "{}",
                refusal.message
            );
        }
    }
    let _ = bedrock_head("m".to_owned(), Operation::InvokeStream, data, &headers);
    if let Some(tokens) = estimate_input_tokens(data) {
        // Everything has its own bound, and nothing is smaller than its field.
        assert!(tokens <= 3_000 + 1_600 * data.len() as u64);
    }
}

/// Pages of the Plan's list of models: each model as it is, under its own id.
pub fn model_page(data: &[u8]) {
    let Some(page) = PlanPage::parse(data) else {
        return;
    };
    // What is passed over may hold anything between its quotes.
    let text = String::from_utf8_lossy(data);
    let value: Value = serde_json::from_str(&text).expect("a page is JSON");
    let listed = value["data"].as_array().expect("a page has a list");
    assert!(page.models.len() <= listed.len());
    if page.next.is_some() {
        assert_eq!(value["has_more"], true);
    }
    for model in page.models {
        let id = model.id().to_owned();
        let model: Value = serde_json::from_slice(&model.into_json()).expect("a model is JSON");
        assert_eq!(model["id"].as_str(), Some(id.as_str()));
        assert!(listed.contains(&model));
    }
}

/// Bodies for `InvokeModel` and `CountTokens`.
pub fn bedrock_request(data: &[u8]) {
    for model in MODELS {
        match invoke_body(data, model) {
            Ok(body) => assert_is_json(&body),
            Err(error) => assert!(error.to_string().len() < 1000),
        }
    }
    if let Ok(body) = count_body(data, std::iter::empty(), MODELS[0]) {
        assert_is_json(&body);
    }
}

/// Bodies for Converse.
pub fn converse_request(data: &[u8]) {
    for model in MODELS {
        match converse_body(data, model) {
            Ok(body) => assert_is_json(&body),
            Err(error) => assert!(error.to_string().len() < 1000, "{error}"),
        }
    }
}

fn assert_is_json(body: &[u8]) {
    if let Err(error) = serde_json::from_slice::<&RawValue>(body) {
        panic!("{error}: {}", String::from_utf8_lossy(body));
    }
}

/// Bodies in gzip: the same in any pieces, and never more than allowed.
pub fn gzip_body(data: &[u8]) {
    let (whole, cut) = in_pieces(data);
    let decoded = decode(std::slice::from_ref(&whole));
    assert_eq!(decode(&cut), decoded);
    if whole.len() < 1024 {
        assert_eq!(decode(&pieces(&whole, 1)), decoded);
    }
}

/// What is decoded, or the status of the refusal.
fn decode(pieces: &[Bytes]) -> Result<Bytes, u16> {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
    }
    let held = prometheus::IntGauge::new("held", "held").expect("a gauge");
    let budget = ByteBudget::new(2 * MAX_BODY_BYTES, held.clone());
    let headers = HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_static("gzip"))]);
    let frames = pieces
        .iter()
        .map(|piece| Ok::<_, Infallible>(Frame::data(piece.clone())));
    let sent = StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>()));
    let read = RUNTIME.with(|runtime| runtime.block_on(body::read(&headers, sent, &budget)));
    let decoded = match read {
        Ok(bytes) => {
            assert!(bytes.len() <= MAX_BODY_BYTES);
            assert_eq!(usize::try_from(held.get()), Ok(bytes.len()));
            Ok(Bytes::copy_from_slice(&bytes))
        }
        Err(refusal) => Err(refusal.status.as_u16()),
    };
    assert_eq!(held.get(), 0, "the budget comes back");
    decoded
}
