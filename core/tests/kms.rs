//! The envelope with AWS KMS, against a server that speaks KMS' protocol (moto).

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use secrecy::ExposeSecret;
use spillway_core::security::envelope::{Envelope, EnvelopeError, RecordBinding};
use uuid::Uuid;

/// A KMS of this test's own, ended with it.
struct Kms {
    process: Child,
    client: aws_sdk_kms::Client,
}

impl Kms {
    async fn start() -> Self {
        spillway_core::telemetry::install_tls_provider();
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
        let script = Path::new(&package).join("../hack/moto-server.sh");
        let process = Command::new(script)
            .arg(port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("hack/moto-server.sh starts");
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("eu-central-1"))
            .endpoint_url(format!("http://127.0.0.1:{port}"))
            .credentials_provider(Credentials::new("AKIATEST", "secret", None, None, "test"))
            .build();
        let mut kms = Self {
            process,
            client: aws_sdk_kms::Client::from_conf(config),
        };
        while kms.client.list_keys().send().await.is_err() {
            assert!(
                kms.process.try_wait().unwrap().is_none(),
                "moto's server ended: run hack/moto-server.sh by hand"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        kms
    }

    async fn new_key(&self) -> String {
        self.client
            .create_key()
            .send()
            .await
            .unwrap()
            .key_metadata
            .unwrap()
            .key_id
    }
}

impl Drop for Kms {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn binding(row: u128) -> RecordBinding {
    RecordBinding {
        table: "plan_keys",
        row: Uuid::from_u128(row),
        column: "sealed",
    }
}

#[tokio::test]
async fn a_record_opens_with_the_kms_key_that_wrapped_it_for_its_own_row_only() {
    let kms = Kms::start().await;
    let key = kms.new_key().await;
    let envelope = Envelope::kms(kms.client.clone(), &key, None).unwrap();
    assert_eq!(envelope.encrypted_with(), format!("kms:{key}"));
    let sealed = envelope.seal(&binding(1), b"sk-ant-secret").await.unwrap();
    assert_eq!(
        envelope
            .open(&binding(1), &sealed)
            .await
            .unwrap()
            .expose_secret(),
        "sk-ant-secret"
    );

    // KMS itself refuses another row: the encryption context differs.
    let error = envelope.open(&binding(2), &sealed).await.unwrap_err();
    assert!(
        matches!(
            &error,
            EnvelopeError::Kms {
                operation: "Decrypt",
                retryable: false,
                ..
            }
        ),
        "{error}"
    );

    // A newer key seals, and what the former one wrapped still opens.
    let newer = Envelope::kms(kms.client.clone(), kms.new_key().await, None).unwrap();
    assert_eq!(
        newer
            .open(&binding(1), &sealed)
            .await
            .unwrap()
            .expose_secret(),
        "sk-ant-secret"
    );
}

#[tokio::test]
async fn what_a_local_key_sealed_still_opens_after_the_move_to_kms() {
    let kms = Kms::start().await;
    let local_key = "0123456789abcdef0123456789abcdef".into();
    let sealed = Envelope::local(&local_key)
        .unwrap()
        .seal(&binding(1), b"secret")
        .await
        .unwrap();
    let both = Envelope::kms(kms.client.clone(), kms.new_key().await, Some(&local_key)).unwrap();
    assert_eq!(
        both.open(&binding(1), &sealed)
            .await
            .unwrap()
            .expose_secret(),
        "secret"
    );
    let kms_only = Envelope::kms(kms.client.clone(), kms.new_key().await, None).unwrap();
    assert!(matches!(
        kms_only.open(&binding(1), &sealed).await,
        Err(EnvelopeError::UnknownKey(_))
    ));
}

#[tokio::test]
async fn an_unknown_key_is_terminal_and_an_unreachable_kms_is_not() {
    let mut kms = Kms::start().await;
    let missing = Envelope::kms(kms.client.clone(), Uuid::nil().to_string(), None).unwrap();
    let error = missing.seal(&binding(1), b"secret").await.unwrap_err();
    assert!(
        !error.is_retryable() && error.to_string().contains("NotFoundException"),
        "{error}"
    );

    kms.process.kill().unwrap();
    kms.process.wait().unwrap();
    let error = missing.seal(&binding(1), b"secret").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
}
