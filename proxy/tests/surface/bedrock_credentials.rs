//! Keys of clients, and the credentials that calls in Bedrock's format are signed with. AWS's own client is the client.

use aws_sdk_bedrockruntime::Client;
use aws_sdk_bedrockruntime::config::{BehaviorVersion, Credentials, Region, Token};
use aws_sdk_bedrockruntime::primitives::Blob;
use aws_sdk_bedrockruntime::types::{
    ContentBlock, ConversationRole, ConverseStreamOutput, Message, ResponseStream,
};
use spillway_core::security::credentials::BedrockSecret;
use spillway_core::security::key::AccessKeyToken;
use spillway_e2e::upstream::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AwsCredentials, BEDROCK_API_KEY, Config, digest,
};

use crate::bedrock_format::{ENCODED, MODEL, body};
use crate::support::{Proxy, World, client};

fn aws(endpoint: String) -> aws_sdk_bedrockruntime::config::Builder {
    aws_sdk_bedrockruntime::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
}

fn in_path(proxy: &Proxy, key: &str) -> Client {
    let mine = Credentials::new("AKIAMYOWN", "my-own-secret", None, None, "test");
    let endpoint = format!("{}/ak/{key}/bedrock", proxy.url());
    Client::from_conf(aws(endpoint).credentials_provider(mine).build())
}

fn user(text: &str) -> Message {
    Message::builder()
        .role(ConversationRole::User)
        .content(ContentBlock::Text(text.to_owned()))
        .build()
        .unwrap()
}

#[tokio::test]
async fn awss_own_client_streams_through_with_whatever_it_signs() {
    let world = World::create().await;
    let proxy = world.start().await;
    let client = in_path(&proxy, world.key.expose());
    let answer = client
        .converse()
        .model_id(MODEL)
        .messages(user("good morning"));
    let answer = answer.send().await.unwrap();
    assert!(answer.usage().unwrap().input_tokens() > 0);

    let sent = client
        .invoke_model_with_response_stream()
        .model_id(MODEL)
        .content_type("application/json")
        .body(Blob::new(body("invoke")));
    let mut stream = sent.send().await.unwrap().body;
    let mut text = String::new();
    while let Some(ResponseStream::Chunk(part)) = stream.recv().await.unwrap() {
        text.push_str(std::str::from_utf8(part.bytes.unwrap().as_ref()).unwrap());
    }
    assert!(text.contains("message_stop"), "{text}");

    let sent = client
        .converse_stream()
        .model_id(MODEL)
        .messages(user("good morning"));
    let mut stream = sent.send().await.unwrap().stream;
    let mut usage = None;
    while let Some(event) = stream.recv().await.unwrap() {
        if let ConverseStreamOutput::Metadata(metadata) = event {
            usage = metadata.usage;
        }
    }
    assert!(usage.unwrap().output_tokens() > 0);
    assert!(
        world
            .rows(3)
            .await
            .iter()
            .all(|row| row.status == "ok" && !row.estimated)
    );
}

#[tokio::test]
async fn the_key_may_be_a_bedrock_api_key_of_the_clients_or_x_api_key() {
    let world = World::create().await;
    let proxy = world.start().await;
    let endpoint = format!("{}/bedrock", proxy.url());
    let bearer = aws(endpoint.clone()).bearer_token(Token::new(world.key.expose(), None));
    let bearer = Client::from_conf(bearer.build());
    let asked = bearer
        .converse()
        .model_id(MODEL)
        .messages(user("good morning"));
    asked.send().await.unwrap();
    let response = client()
        .post(format!("{endpoint}/model/{ENCODED}/invoke"))
        .header("x-api-key", world.key.expose())
        .body(body("invoke"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    let key = digest(format!("Bearer {}", world.key.expose()).as_bytes());
    assert!(
        world
            .fakes
            .bedrock
            .requests()
            .iter()
            .all(|seen| seen.header("authorization") != Some(key.as_str()))
    );
}

#[tokio::test]
async fn every_kind_of_credential_is_taken_by_bedrock() {
    let session = AwsCredentials {
        access_key_id: "ASIASESSION".to_owned(),
        secret_access_key: "session/secret+".to_owned(),
        session_token: Some("token==".to_owned()),
    };
    let mut config = Config::default();
    config.aws_credentials.push(session.clone());
    config.region = Some("us-east-1".to_owned());
    let world = World::with_upstreams(config).await;
    let secrets = [
        (
            "session",
            BedrockSecret::AccessKeys {
                access_key_id: session.access_key_id,
                secret_access_key: session.secret_access_key.into(),
                session_token: Some("token==".into()),
            },
        ),
        ("bearer", BedrockSecret::ApiKey(BEDROCK_API_KEY.into())),
        ("pod", BedrockSecret::PodIdentity),
    ];
    let mut keys = Vec::new();
    for (name, secret) in &secrets {
        let credential = world.tenant.write_bedrock(name, secret).await;
        let key = AccessKeyToken::generate().unwrap();
        world
            .tenant
            .write_key(name, &key, |row| row.bedrock_key_id = Some(credential))
            .await;
        keys.push(key);
    }
    let mut proxy = world.spawn(&[
        ("AWS_ACCESS_KEY_ID", AWS_ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", AWS_SECRET_ACCESS_KEY),
    ]);
    proxy.ready().await;
    for (key, (name, _)) in keys.iter().zip(&secrets) {
        for _ in 0..2 {
            let client = in_path(&proxy, key.expose());
            let answer = client
                .converse()
                .model_id(MODEL)
                .messages(user("good morning"));
            assert!(answer.send().await.is_ok(), "{name}");
        }
    }
    let seen = world.fakes.bedrock.requests();
    assert_eq!(
        seen[2].header("authorization"),
        Some(digest(format!("Bearer {BEDROCK_API_KEY}").as_bytes()).as_str())
    );
    assert!(
        seen[0]
            .signed_headers
            .iter()
            .any(|name| name == "x-amz-security-token")
    );
}
