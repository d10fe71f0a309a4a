//! A router between a client and the fake upstreams, and what it metered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::response::Response;
use chrono::Utc;
use serde_json::{Value, json};
use spillway_core::domain::models::{BedrockApi, ModelMapping, ModelPattern};
use spillway_core::security::credentials::BedrockSecret;
use spillway_e2e::upstream::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, FakeUpstreams, PLAN_API_KEY,
};
use spillway_proxy::adapter::bedrock::Bedrock;
use spillway_proxy::adapter::plan::PlanAdapter;
use spillway_proxy::adapter::{HttpClients, HttpSettings};
use spillway_proxy::call::{
    Admission, BedrockCredential, Call, Caller, CircuitSettings, Closing, Outcome, PlanCredential,
    PoolView, RequestHead, Ticket,
};
use spillway_proxy::routing::{LocalCircuits, Router, Timeouts};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use url::Url;
use uuid::Uuid;

/// The client's model, and what it is mapped to.
pub(crate) const MODEL: &str = "claude-sonnet-4-5";
pub(crate) const BEDROCK_MODEL: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";
/// Long enough for anything that is bound to happen.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// What a stack is made of.
pub(crate) struct Setup {
    pub plan: bool,
    /// Another Plan than the fake one.
    pub plan_url: Option<Url>,
    pub bedrock: Option<BedrockSecret>,
    pub bedrock_model: &'static str,
    pub bedrock_api: BedrockApi,
    pub circuit: CircuitSettings,
    pub timeouts: Timeouts,
}

impl Default for Setup {
    /// Both upstreams, a circuit that never opens, patience for all.
    fn default() -> Self {
        Self {
            plan: true,
            plan_url: None,
            bedrock: Some(BedrockSecret::AccessKeys {
                access_key_id: AWS_ACCESS_KEY_ID.to_owned(),
                secret_access_key: AWS_SECRET_ACCESS_KEY.to_owned().into(),
                session_token: None,
            }),
            bedrock_model: BEDROCK_MODEL,
            bedrock_api: BedrockApi::Auto,
            circuit: CircuitSettings {
                failure_threshold: u32::MAX,
                failure_rate: 50,
                failure_window: Duration::from_mins(1),
                reset_timeout: Duration::from_mins(30),
            },
            timeouts: Timeouts {
                plan_first_byte: LIMIT,
                plan_request: LIMIT,
                plan_idle: LIMIT,
                bedrock_idle: LIMIT,
                hold_back: LIMIT,
            },
        }
    }
}

impl Setup {
    pub(crate) fn plan_only() -> Self {
        Self {
            bedrock: None,
            ..Self::default()
        }
    }

    /// As [`plan_only`](Self::plan_only), with a Plan that is none of the fakes.
    pub(crate) fn of_plan_at(url: Url) -> Self {
        Self {
            plan_url: Some(url),
            ..Self::plan_only()
        }
    }
}

/// A running stack.
pub(crate) struct Stack {
    pub fakes: FakeUpstreams,
    pub router: Arc<Router>,
    pub url: String,
    pub client: reqwest::Client,
    outcomes: UnboundedReceiver<Outcome>,
}

struct Served {
    router: Arc<Router>,
    caller: Arc<Caller>,
    pool: Arc<PoolView>,
    outcomes: UnboundedSender<Outcome>,
}

impl Stack {
    pub(crate) async fn start(setup: Setup) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let fakes = FakeUpstreams::start().await.unwrap();
        let plan_url = setup
            .plan_url
            .unwrap_or_else(|| Url::parse(&fakes.plan_url).unwrap());
        let bedrock_url = Url::parse(&fakes.bedrock_url).unwrap();
        let allowed = ""
            .parse::<spillway_core::domain::upstream::AllowedUpstreams>()
            .unwrap();
        let allowed = Arc::new(
            allowed
                .with_origin_of(&plan_url)
                .with_origin_of(&bedrock_url),
        );
        let clients = HttpClients::new(&HttpSettings {
            allowed,
            connect_timeout: LIMIT,
        })
        .unwrap();
        let router = Arc::new(Router::new(
            PlanAdapter::new(&clients),
            Bedrock::new(&clients, None),
            Arc::new(LocalCircuits::default()),
            setup.timeouts,
        ));
        let (sender, outcomes) = unbounded_channel();
        let plan = PlanCredential {
            id: Uuid::from_u128(1),
            api_url: plan_url,
            key: PLAN_API_KEY.to_owned().into(),
        };
        let bedrock = setup.bedrock.map(|secret| {
            Arc::new(BedrockCredential {
                id: Uuid::from_u128(2),
                region: "eu-central-1".to_owned(),
                endpoint_url: Some(bedrock_url),
                secret,
            })
        });
        let caller = Caller {
            key_id: "abcdefghij".to_owned(),
            access_key_id: Uuid::from_u128(3),
            user_id: Uuid::from_u128(4),
            namespace: "team".to_owned(),
            key_name: "key".to_owned(),
            user_name: "user".to_owned(),
            plan: setup.plan.then(|| Arc::new(plan)),
            bedrock,
        };
        let mapping = ModelMapping {
            name: ModelPattern::new("claude-sonnet-*").unwrap(),
            bedrock_model_id: Some(setup.bedrock_model.to_owned()),
            bedrock_api: setup.bedrock_api,
            price: None,
        };
        let pool = PoolView {
            id: Uuid::from_u128(5),
            namespace: "platform".to_owned(),
            name: "default".to_owned(),
            models: vec![mapping],
            default_model: None,
            plan_url: None,
            circuit: setup.circuit,
        };
        let served = Served {
            router: Arc::clone(&router),
            caller: Arc::new(caller),
            pool: Arc::new(pool),
            outcomes: sender,
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new()
            .fallback(serve)
            .with_state(Arc::new(served));
        tokio::spawn(async { axum::serve(listener, app).await.unwrap() });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            fakes,
            router,
            url,
            client,
            outcomes,
        }
    }

    /// Sends a message.
    pub(crate) async fn send(&self, stream: bool) -> reqwest::Response {
        self.request(stream).send().await.unwrap()
    }

    pub(crate) fn request(&self, stream: bool) -> reqwest::RequestBuilder {
        self.client
            .post(format!("{}/v1/messages", self.url))
            .header("anthropic-version", "2023-06-01")
            .header("content-type", "application/json")
            .body(body(stream).to_string())
    }

    /// Sends this body.
    pub(crate) async fn send_body(&self, body: &Value) -> reqwest::Response {
        let request = self.request(body["stream"] == true);
        request.body(body.to_string()).send().await.unwrap()
    }

    /// The next call's outcome.
    pub(crate) async fn outcome(&mut self) -> Outcome {
        tokio::time::timeout(LIMIT, self.outcomes.recv())
            .await
            .unwrap()
            .unwrap()
    }

    /// Asserts that nothing more was metered than what was asked for.
    pub(crate) fn assert_metered_once(&mut self) {
        assert!(
            self.outcomes.try_recv().is_err(),
            "a call was metered twice"
        );
    }
}

pub(crate) fn body(stream: bool) -> Value {
    json!({"model": MODEL, "max_tokens": 64, "stream": stream, "messages": [{"role": "user", "content": "Grüße aus Köln"}]})
}

async fn serve(State(served): State<Arc<Served>>, request: Request) -> Response {
    let received_at = Instant::now();
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let fields: Value = serde_json::from_slice(&body).unwrap();
    let call = Call {
        admission: Arc::new(Admission {
            request_id: Uuid::now_v7(),
            created_at: Utc::now(),
            caller: Arc::clone(&served.caller),
            pool: Arc::clone(&served.pool),
        }),
        head: RequestHead {
            model: fields["model"].as_str().unwrap().to_owned(),
            stream: fields["stream"] == true,
            max_tokens: fields["max_tokens"].as_u64(),
            session_id: None,
            agent_id: None,
        },
        body,
        headers: head.headers,
        query: head.uri.query().map(str::to_owned),
        received_at,
    };
    let outcomes = served.outcomes.clone();
    let ticket = Ticket::new(received_at, move |outcome| {
        outcomes.send(outcome).ok();
        Closing::done()
    });
    served
        .router
        .serve(call, ticket)
        .await
        .map(axum::body::Body::new)
}

/// The events of a stream as names and data.
pub(crate) fn events(text: &str) -> Vec<(String, Value)> {
    assert!(
        text.is_empty() || text.ends_with("\n\n"),
        "half an event: {text:?}"
    );
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            let field = |name: &str| {
                event
                    .lines()
                    .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                    .unwrap_or_else(|| panic!("{event:?}"))
            };
            (
                field("event").to_owned(),
                serde_json::from_str(field("data")).unwrap(),
            )
        })
        .collect()
}

/// The message that an answer is: its events added up as clients do, or its body.
pub(crate) fn message(answer: &str, stream: bool) -> Value {
    if !stream {
        return serde_json::from_str(answer).unwrap();
    }
    let mut message = Value::Null;
    for (name, data) in events(answer) {
        let at = usize::try_from(data["index"].as_u64().unwrap_or(0)).unwrap();
        match name.as_str() {
            "message_start" => message = data["message"].clone(),
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert_eq!(content.len(), at);
                content.push(data["content_block"].clone());
            }
            "content_block_delta" => {
                let block = &mut message["content"][at];
                let delta = data["delta"].as_object().unwrap();
                let (member, piece) = delta.iter().find(|(name, _)| *name != "type").unwrap();
                let so_far = block[member].as_str().unwrap_or_default().to_owned();
                block[member] = (so_far + piece.as_str().unwrap()).into();
            }
            "content_block_stop" => {
                let block = message["content"][at].as_object_mut().unwrap();
                if let Some(json) = block.remove("partial_json")
                    && !json.as_str().unwrap().is_empty()
                {
                    block["input"] = serde_json::from_str(json.as_str().unwrap()).unwrap();
                }
            }
            "message_delta" => {
                message["stop_reason"] = data["delta"]["stop_reason"].clone();
                message["usage"] = data["usage"].clone();
            }
            _ => {}
        }
    }
    message
}

/// The text of a stream's deltas.
pub(crate) fn text(events: &[(String, Value)]) -> String {
    events
        .iter()
        .filter_map(|(_, data)| data["delta"]["text"].as_str())
        .collect()
}

/// The `error.type` that a stream ends with, if it ends so.
pub(crate) fn final_error(events: &[(String, Value)]) -> Option<&str> {
    let (name, data) = events.last()?;
    (name == "error").then(|| data["error"]["type"].as_str().unwrap())
}
