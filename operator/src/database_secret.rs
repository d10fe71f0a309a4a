//! `spillway-operator database-secret`: the password of the chart's evaluation database, made once.
//!
//! It runs as an init container, for the containers after it take their URL from the Secret. A password in a template
//! would change with every rendering, and a tool that applies Git's state renders all the time; here it never leaves the cluster.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Args;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use secrecy::{ExposeSecret, SecretString};
use tracing::info;
use zeroize::Zeroizing;

use crate::events::CONTROLLER;

/// The entry that the database server reads.
const PASSWORD: &str = "password";

/// The entry that operator and proxies read.
const URL: &str = "url";

/// User and database, as the chart sets them up.
const USER: &str = "spillway";

/// What `database-secret` is told.
#[derive(Debug, Args)]
pub struct DatabaseSecretFlags {
    /// The Secret's name
    #[arg(long, value_name = "SECRET")]
    name: String,
    /// Host name of the database server
    #[arg(long, value_name = "HOST")]
    host: String,
    /// Where the Secret is wanted, separated by commas: the database's namespace first, then others that use it
    #[arg(
        long,
        value_name = "NAMESPACES",
        value_delimiter = ',',
        required = true
    )]
    namespaces: Vec<String>,
}

/// Why the Secret is not everywhere it is wanted. Running the command again goes on where it ended.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseSecretError {
    /// The system gave no random bytes.
    #[error("no random bytes for a password")]
    Random(#[source] getrandom::Error),
    /// A Secret could not be read.
    #[error("Secret {namespace}/{name} could not be read")]
    Read {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// A Secret could not be created.
    #[error("Secret {namespace}/{name} could not be created")]
    Create {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// A Secret of that name holds something else.
    #[error(
        "Secret {namespace}/{name} has no readable entry `{PASSWORD}`: restore it, or delete it together with the database's volume"
    )]
    NoPassword {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// A copy is of another database.
    #[error(
        "Secret {namespace}/{name} holds another password than that of the database: delete it, it will be made again"
    )]
    Differs {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
}

/// Makes the Secret in the first namespace unless it is there, and copies of it in the others.
pub async fn run(client: &Client, flags: &DatabaseSecretFlags) -> Result<(), DatabaseSecretError> {
    let mut password: Option<SecretString> = None;
    for namespace in &flags.namespaces {
        let there = match &password {
            None => ensure(client, namespace, flags, &generate()?).await?,
            Some(password) => ensure(client, namespace, flags, password).await?,
        };
        if password
            .as_ref()
            .is_some_and(|password| password.expose_secret() != there.expose_secret())
        {
            return Err(DatabaseSecretError::Differs {
                namespace: namespace.clone(),
                name: flags.name.clone(),
            });
        }
        password = Some(there);
    }
    Ok(())
}

/// Creates the Secret with `wanted`; returns the password that it holds now.
async fn ensure(
    client: &Client,
    namespace: &str,
    flags: &DatabaseSecretFlags,
    wanted: &SecretString,
) -> Result<SecretString, DatabaseSecretError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (namespace, name) = (namespace.to_owned(), flags.name.clone());
    match secrets
        .create(
            &PostParams::default(),
            &manifest(&name, &flags.host, wanted),
        )
        .await
    {
        Ok(_) => {
            info!(namespace, secret = name, "created the database's secret");
            Ok(wanted.clone())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => {
            let secret = match secrets.get(&name).await {
                Ok(secret) => secret,
                Err(source) => {
                    return Err(DatabaseSecretError::Read {
                        namespace,
                        name,
                        source,
                    });
                }
            };
            password_of(&secret).ok_or(DatabaseSecretError::NoPassword { namespace, name })
        }
        Err(source) => Err(DatabaseSecretError::Create {
            namespace,
            name,
            source,
        }),
    }
}

/// 256 random bits that need no escaping in a URL.
fn generate() -> Result<SecretString, DatabaseSecretError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut_slice()).map_err(DatabaseSecretError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes.as_slice()).into())
}

fn manifest(name: &str, host: &str, password: &SecretString) -> Secret {
    let password = password.expose_secret();
    // The server is inside the cluster and has no certificate.
    let url = format!("postgres://{USER}:{password}@{host}:5432/{USER}?sslmode=disable");
    let labels = [
        ("app.kubernetes.io/name", "spillway"),
        ("app.kubernetes.io/managed-by", CONTROLLER),
    ];
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                labels
                    .iter()
                    .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                    .collect(),
            ),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([
            (
                PASSWORD.to_owned(),
                ByteString(password.as_bytes().to_vec()),
            ),
            (URL.to_owned(), ByteString(url.into_bytes())),
        ])),
        ..Secret::default()
    }
}

fn password_of(secret: &Secret) -> Option<SecretString> {
    let entry = secret.data.as_ref()?.get(PASSWORD)?;
    std::str::from_utf8(&entry.0)
        .ok()
        .filter(|text| !text.is_empty())
        .map(SecretString::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_serves_both_ends_and_has_no_owner() {
        let password = generate().unwrap();
        let secret = manifest("db", "db.spillway.svc", &password);
        assert_eq!(
            secret.metadata.owner_references, None,
            "it outlives the release, as the volume does"
        );
        assert_eq!(
            password_of(&secret).unwrap().expose_secret(),
            password.expose_secret()
        );
        let url = String::from_utf8(secret.data.unwrap()[URL].0.clone()).unwrap();
        let parsed = url::Url::parse(&url).unwrap();
        assert_eq!(
            parsed.password(),
            Some(password.expose_secret()),
            "nothing is escaped"
        );
        assert_eq!(
            (parsed.host_str(), parsed.path(), parsed.query()),
            (
                Some("db.spillway.svc"),
                "/spillway",
                Some("sslmode=disable")
            )
        );
    }

    #[test]
    fn passwords_are_long_and_never_the_same() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_eq!(one.expose_secret().len(), 43);
        assert_ne!(one.expose_secret(), two.expose_secret());
    }

    #[test]
    fn a_foreign_secret_is_not_taken_for_ours() {
        assert!(password_of(&Secret::default()).is_none());
    }
}
