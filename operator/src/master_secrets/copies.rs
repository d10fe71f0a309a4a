//! Copies of the master secrets in the pool namespaces, for proxies cannot read a Secret of another namespace.

use kube::Client;
use secrecy::{ExposeSecret, SecretString};
use spillway_core::domain::pool::SecretKind;

use super::{MasterKeys, MasterSecrets, StoreError, secret_name, store};
use crate::settings::SecretKey;

/// Where a pool namespace's proxies find the master secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterSecretRefs {
    /// Holds `PROXY_KEY_HASHER_SECRET`.
    pub hasher: SecretKey,
    /// Holds `PROXY_LOCAL_ENCRYPTION_KEY`; none when AWS KMS does all encryption.
    pub encryption: Option<SecretKey>,
}

/// Why a pool namespace does not have the master secrets.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A Secret could not be read or made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A Secret of the name is there and differs.
    #[error(
        "Secret {namespace}/{name}, key {key}, is not the operator's master secret: delete it, and the operator copies the \
         right one; if it was restored from a backup, restore the operator's own from the same one"
    )]
    Differs {
        /// The pool namespace.
        namespace: String,
        /// The Secret.
        name: &'static str,
        /// The entry of its data.
        key: &'static str,
    },
}

impl MasterSecrets {
    /// Copies the master secrets into a pool namespace where they are missing, and compares those that are there. A copy
    /// is made once and never changed.
    pub async fn ensure_copies(
        &self,
        keys: &MasterKeys,
        namespace: &str,
    ) -> Result<MasterSecretRefs, CopyError> {
        let mut encryption = None;
        for (kind, value) in keys.values.iter() {
            ensure_copy(&self.client, namespace, *kind, value, &self.origin(*kind)).await?;
            if *kind == SecretKind::Encryption {
                encryption = Some(entry(*kind));
            }
        }
        Ok(MasterSecretRefs {
            hasher: entry(SecretKind::Hasher),
            encryption,
        })
    }

    /// What the annotation of a copy says.
    fn origin(&self, kind: SecretKind) -> String {
        match self.given(kind) {
            Some(_) => "environment".to_owned(),
            None => format!("{}/{}", self.namespace, secret_name(kind)),
        }
    }
}

async fn ensure_copy(
    client: &Client,
    namespace: &str,
    kind: SecretKind,
    value: &SecretString,
    origin: &str,
) -> Result<(), CopyError> {
    let there = match store::read(client, namespace, kind).await? {
        Some(there) => there,
        None => store::create(client, namespace, kind, value, Some(origin)).await?,
    };
    if there.expose_secret() == value.expose_secret() {
        return Ok(());
    }
    Err(CopyError::Differs {
        namespace: namespace.to_owned(),
        name: secret_name(kind),
        key: kind.variable(),
    })
}

fn entry(kind: SecretKind) -> SecretKey {
    SecretKey {
        name: secret_name(kind).to_owned(),
        key: kind.variable().to_owned(),
    }
}
