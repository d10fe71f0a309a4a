//! What a pair of fake upstreams listens on and which credentials it takes.

use std::net::{Ipv4Addr, SocketAddr};

/// Plan key that [`Config::default`] accepts.
pub const PLAN_API_KEY: &str = "sk-ant-fake-plan-0000000000000000";
/// AWS access key id that [`Config::default`] accepts.
pub const AWS_ACCESS_KEY_ID: &str = "AKIAFAKEUPSTREAM0001";
/// Secret of [`AWS_ACCESS_KEY_ID`]; its `/` and `+` are there because they break sloppy encoders.
pub const AWS_SECRET_ACCESS_KEY: &str = "fake/upstream+secret/0123456789ABCDEFGHIJ";
/// Bedrock API key (bearer token) that [`Config::default`] accepts.
pub const BEDROCK_API_KEY: &str = "bedrock-api-key-fake-0000000000000000";

/// One AWS principal whose signatures the Bedrock fake verifies.
#[derive(Clone)]
pub struct AwsCredentials {
    /// Access key id, as in `Credential=` of the signature.
    pub access_key_id: String,
    /// Secret the signature is recomputed with.
    pub secret_access_key: String,
    /// When set, `x-amz-security-token` must be present, signed and equal to it.
    pub session_token: Option<String>,
}

/// How to start [`FakeUpstreams`](super::FakeUpstreams).
#[derive(Clone)]
pub struct Config {
    /// Address of the Plan fake; port 0 takes a free one.
    pub plan_listen: SocketAddr,
    /// Address of the Bedrock fake; port 0 takes a free one.
    pub bedrock_listen: SocketAddr,
    /// Keys that the Plan accepts, as `x-api-key` or else as bearer token.
    pub plan_keys: Vec<String>,
    /// Principals that Bedrock accepts signatures of.
    pub aws_credentials: Vec<AwsCredentials>,
    /// Bearer tokens that Bedrock accepts.
    pub bedrock_api_keys: Vec<String>,
    /// Region a signature must be scoped to; `None` takes any.
    pub region: Option<String>,
    /// Whether thinking is believed that the fakes did not sign themselves, such as a test's script made up. The real services
    /// never do.
    pub foreign_signatures: bool,
    /// Body bytes the journal keeps; beyond them the oldest entries go. 0 keeps no entries at all.
    pub journal_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            plan_listen: loopback,
            bedrock_listen: loopback,
            plan_keys: vec![PLAN_API_KEY.to_owned()],
            aws_credentials: vec![AwsCredentials {
                access_key_id: AWS_ACCESS_KEY_ID.to_owned(),
                secret_access_key: AWS_SECRET_ACCESS_KEY.to_owned(),
                session_token: None,
            }],
            bedrock_api_keys: vec![BEDROCK_API_KEY.to_owned()],
            region: None,
            foreign_signatures: true,
            journal_bytes: 64 * 1024 * 1024,
        }
    }
}
