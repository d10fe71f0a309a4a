//! The Bedrock fake as the AWS SDK sees it.

use aws_sdk_bedrockruntime::{
    Client,
    config::{BehaviorVersion, Credentials, Region, Token, retry::RetryConfig},
    error::ProvideErrorMetadata,
    operation::RequestId,
    primitives::Blob,
    types::{
        ContentBlock, ConversationRole, ConverseStreamOutput, InferenceConfiguration, Message,
        ResponseStream, error::ResponseStreamError,
    },
};
use serde_json::{Value, json};
use spillway_e2e::upstream::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AwsCredentials, BEDROCK_API_KEY, Block, Config,
    FakeUpstreams, Operation, Script, Usage,
};

use crate::support::client as http_client;

pub(crate) const MODEL: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
pub(crate) const ARN: &str =
    "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123";

pub(crate) fn settings(fakes: &FakeUpstreams) -> aws_sdk_bedrockruntime::config::Builder {
    aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(&fakes.bedrock_url)
        .retry_config(RetryConfig::disabled())
}

pub(crate) fn client_with(
    fakes: &FakeUpstreams,
    id: &str,
    secret: &str,
    token: Option<&str>,
) -> Client {
    let credentials = Credentials::new(id, secret, token.map(str::to_owned), None, "test");
    Client::from_conf(settings(fakes).credentials_provider(credentials).build())
}

pub(crate) fn client(fakes: &FakeUpstreams) -> Client {
    client_with(fakes, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, None)
}

pub(crate) fn body() -> Value {
    json!({
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 100,
        "messages": [{"role": "user", "content": "good morning"}],
    })
}

pub(crate) fn blob(body: &Value) -> Blob {
    Blob::new(body.to_string())
}

pub(crate) fn user(text: &str) -> Message {
    Message::builder()
        .role(ConversationRole::User)
        .content(ContentBlock::Text(text.to_owned()))
        .build()
        .unwrap()
}

/// Events of an invocation, and the error that its stream ended with.
pub(crate) async fn invoke_stream(
    client: &Client,
    model: &str,
) -> (Vec<Value>, Option<ResponseStreamError>) {
    let sent = client
        .invoke_model_with_response_stream()
        .model_id(model)
        .body(blob(&body()))
        .send()
        .await
        .unwrap();
    let mut stream = sent.body;
    let mut events = Vec::new();
    loop {
        match stream.recv().await {
            Ok(Some(ResponseStream::Chunk(part))) => {
                events.push(serde_json::from_slice(part.bytes().unwrap().as_ref()).unwrap());
            }
            Ok(Some(other)) => panic!("unexpected {other:?}"),
            Ok(None) => return (events, None),
            Err(error) => return (events, Some(error.into_service_error())),
        }
    }
}

#[tokio::test]
async fn invoke_answers_with_bedrocks_ids_and_counts() {
    let fakes = FakeUpstreams::start().await.unwrap();
    for model in [MODEL, ARN] {
        let output = client(&fakes)
            .invoke_model()
            .model_id(model)
            .body(blob(&body()))
            .send()
            .await
            .unwrap();
        assert!(output.request_id().is_some());
        let message: Value = serde_json::from_slice(output.body().as_ref()).unwrap();
        assert_eq!(message["content"][0]["text"], "Echo: good morning");
        assert!(message["id"].as_str().unwrap().starts_with("msg_bdrk_01"));
        let seen = fakes.bedrock.requests().pop().unwrap();
        assert_eq!(
            (seen.model.as_deref(), seen.operation),
            (Some(model), Operation::Invoke)
        );
        assert_eq!(
            json!(seen.answer.usage.unwrap().input_tokens),
            message["usage"]["input_tokens"]
        );
    }
}

#[tokio::test]
async fn an_invoke_stream_ends_with_metrics() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let (events, error) = invoke_stream(&client(&fakes), MODEL).await;
    assert!(error.is_none(), "{error:?}");
    let types: Vec<_> = events
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    let usage = fakes.bedrock.requests()[0].answer.usage.unwrap();
    let metrics = &events[6]["amazon-bedrock-invocationMetrics"];
    assert_eq!(
        (&metrics["inputTokenCount"], &metrics["outputTokenCount"]),
        (&json!(usage.input_tokens), &json!(5))
    );
}

#[tokio::test]
async fn converse_answers_text_reasoning_and_tools() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let usage = Usage {
        input_tokens: 10,
        output_tokens: 20,
        cache_read_input_tokens: 5,
        ..Usage::default()
    };
    fakes.bedrock.next(
        Script::content(vec![
            Block::Thinking {
                thinking: "hm".to_owned(),
                signature: "c2ln".to_owned(),
            },
            Block::RedactedThinking {
                data: "cmVk".to_owned(),
            },
            Block::ToolUse {
                id: "tooluse_1".to_owned(),
                name: "look".to_owned(),
                input: json!({"at": "sky"}),
            },
        ])
        .usage(usage),
    );
    let output = client(&fakes)
        .converse()
        .model_id("us.amazon.nova-lite-v1:0")
        .messages(user("hi"))
        .send()
        .await
        .unwrap();
    assert_eq!(output.stop_reason().as_str(), "tool_use");
    assert_eq!(output.usage().unwrap().total_tokens(), 35);
    let message = output.output().unwrap().as_message().unwrap();
    let [thinking, redacted, tool] = message.content() else {
        panic!("three blocks")
    };
    let reasoning = thinking
        .as_reasoning_content()
        .unwrap()
        .as_reasoning_text()
        .unwrap();
    assert_eq!(
        (reasoning.text(), reasoning.signature()),
        ("hm", Some("c2ln"))
    );
    // The SDK decodes the wire's base64 once: what is left is what the Messages API calls data.
    let data = redacted
        .as_reasoning_content()
        .unwrap()
        .as_redacted_content()
        .unwrap();
    assert_eq!(data.as_ref(), b"cmVk");
    assert_eq!(tool.as_tool_use().unwrap().name(), "look");
}

#[tokio::test]
async fn a_converse_stream_reports_its_numbers_last() {
    let fakes = FakeUpstreams::start().await.unwrap();
    let config = InferenceConfiguration::builder().max_tokens(10).build();
    let sent = client(&fakes)
        .converse_stream()
        .model_id(MODEL)
        .messages(user("good morning"))
        .inference_config(config);
    let mut stream = sent.send().await.unwrap().stream;
    let (mut text, mut tokens, mut starts) = (String::new(), None, 0);
    while let Some(event) = stream.recv().await.unwrap() {
        match event {
            ConverseStreamOutput::ContentBlockDelta(event) => {
                text.push_str(event.delta().unwrap().as_text().unwrap());
            }
            ConverseStreamOutput::ContentBlockStart(_) => starts += 1,
            ConverseStreamOutput::Metadata(event) => {
                tokens = Some(event.usage().unwrap().output_tokens());
            }
            _ => assert_eq!(tokens, None, "metadata is the last event"),
        }
    }
    assert_eq!(
        (text.as_str(), tokens, starts),
        ("Echo: good morning", Some(5), 0)
    );
}

#[tokio::test]
async fn signatures_are_checked() {
    let fakes = FakeUpstreams::start().await.unwrap();
    for (id, secret, token, expected) in [
        (
            AWS_ACCESS_KEY_ID,
            "wrong",
            None,
            "InvalidSignatureException",
        ),
        (
            "AKIAUNKNOWN",
            AWS_SECRET_ACCESS_KEY,
            None,
            "UnrecognizedClientException",
        ),
        (
            AWS_ACCESS_KEY_ID,
            AWS_SECRET_ACCESS_KEY,
            Some("a-token"),
            "UnrecognizedClientException",
        ),
    ] {
        let client = client_with(&fakes, id, secret, token);
        let error = client
            .invoke_model()
            .model_id(MODEL)
            .body(blob(&body()))
            .send()
            .await
            .unwrap_err();
        assert_eq!(error.code(), Some(expected));
        assert_eq!(error.raw_response().unwrap().status().as_u16(), 403);
    }
    client(&fakes)
        .invoke_model()
        .model_id(MODEL)
        .body(blob(&body()))
        .send()
        .await
        .unwrap();
    let signed = fakes.bedrock.requests().pop().unwrap().signed_headers;
    assert!(
        signed.contains(&"host".to_owned()) && signed.contains(&"x-amz-date".to_owned()),
        "{signed:?}"
    );
    let unsigned = http_client()
        .post(format!("{}/model/{MODEL}/invoke", fakes.bedrock_url))
        .body("{}");
    let response = unsigned.send().await.unwrap();
    assert_eq!(response.status(), 403);
    let kind = response.headers()["x-amzn-errortype"].to_str().unwrap();
    assert!(
        kind.starts_with("MissingAuthenticationTokenException:http"),
        "{kind}"
    );
}

#[tokio::test]
async fn session_tokens_regions_and_api_keys() {
    let fakes = FakeUpstreams::start_with(Config {
        aws_credentials: vec![AwsCredentials {
            access_key_id: "ASIATEMPORARY".to_owned(),
            secret_access_key: "secret".to_owned(),
            session_token: Some("token/with+signs==".to_owned()),
        }],
        region: Some("us-east-1".to_owned()),
        ..Config::default()
    })
    .await
    .unwrap();
    let temporary = |region: &'static str| {
        let credentials = Credentials::new(
            "ASIATEMPORARY",
            "secret",
            Some("token/with+signs==".to_owned()),
            None,
            "test",
        );
        let settings = settings(&fakes)
            .region(Region::new(region))
            .credentials_provider(credentials);
        Client::from_conf(settings.build())
            .invoke_model()
            .model_id(MODEL)
            .body(blob(&body()))
            .send()
    };
    temporary("us-east-1").await.unwrap();
    assert_eq!(
        temporary("eu-west-1").await.unwrap_err().code(),
        Some("InvalidSignatureException")
    );

    let bearer = |token: &str| {
        let settings = settings(&fakes).bearer_token(Token::new(token, None));
        Client::from_conf(settings.build())
            .invoke_model()
            .model_id(MODEL)
            .body(blob(&body()))
            .send()
    };
    bearer(BEDROCK_API_KEY).await.unwrap();
    assert_eq!(
        bearer("wrong").await.unwrap_err().code(),
        Some("AccessDeniedException")
    );
    assert!(
        !format!("{:?}", fakes.bedrock.requests()).contains("token/with"),
        "credentials are digests"
    );
}
