//! A file of manifests, and a directory of key Secrets, as the world that reconcilers read and write.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use spillway_crds::{ACCESS_KEY_ANNOTATION, AccessKey, BedrockCredential, ProxyPool, ProxyUser};
use zeroize::Zeroizing;

use super::manifest::{Manifests, Named};
use crate::controllers::error::ReconcileError;
use crate::controllers::world::{ProxyState, World, WorldError, Written};

/// Readable by its owner alone.
const PRIVATE_FILE: u32 = 0o600;
const PRIVATE_DIRECTORY: u32 = 0o700;

/// What is in a Secret's file cannot be used.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it is no manifest of a Secret: {0}")]
    Malformed(serde_yaml::Error),
}

/// A file of manifests and a directory of key Secrets.
pub(super) struct Files {
    manifests: Manifests,
    secrets_dir: PathBuf,
    base_url: String,
}

/// Makes the directory of Secrets where it is not there.
pub(super) fn prepare(directory: &Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(PRIVATE_DIRECTORY)
        .create(directory)
}

impl Files {
    /// `base_url` is where clients reach the proxies.
    pub(super) const fn new(manifests: Manifests, secrets_dir: PathBuf, base_url: String) -> Self {
        Self {
            manifests,
            secrets_dir,
            base_url,
        }
    }

    fn path(&self, secret: &str) -> PathBuf {
        self.secrets_dir.join(format!("{secret}.yaml"))
    }

    fn written(
        &self,
        secret: &Secret,
        write: impl FnOnce(&Path, &[u8]) -> io::Result<()>,
    ) -> Result<Written, WorldError> {
        let path = self.path(&secret.name_any());
        let failed =
            |source: FileError| WorldError::new(format!("write {}", path.display()), source);
        let text = to_text(secret).map_err(|error| failed(FileError::Malformed(error)))?;
        match write(&path, text.as_bytes()) {
            Ok(()) => Ok(Written::Done),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Written::Conflict),
            Err(error) => Err(failed(error.into())),
        }
    }
}

/// The Secret as a person can read it.
fn to_text(secret: &Secret) -> Result<Zeroizing<String>, serde_yaml::Error> {
    let mut readable = secret.clone();
    readable.metadata.resource_version = None;
    let data = readable.data.take().unwrap_or_default();
    readable.string_data = Some(
        data.into_iter()
            .map(|(key, value)| (key, String::from_utf8_lossy(&value.0).into_owned()))
            .collect(),
    );
    serde_yaml::to_string(&readable).map(Zeroizing::new)
}

fn from_text(text: &str) -> Result<Secret, serde_yaml::Error> {
    let mut secret: Secret = serde_yaml::from_str(text)?;
    let data = secret.data.get_or_insert_default();
    data.extend(
        secret
            .string_data
            .take()
            .unwrap_or_default()
            .into_iter()
            .map(|(key, value)| (key, ByteString(value.into_bytes()))),
    );
    Ok(secret)
}

fn create(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PRIVATE_FILE)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Replaces the file as a whole, so that a reader sees the former or the new one.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("yaml.new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    create(&beside, text)?;
    fs::rename(&beside, path)
}

fn found<K: Clone>(all: &Named<K>, namespace: &str, name: &str) -> Option<K> {
    all.get(&(namespace.to_owned(), name.to_owned())).cloned()
}

#[async_trait]
impl World for Files {
    async fn pool(&self, namespace: &str, name: &str) -> Result<Option<ProxyPool>, WorldError> {
        Ok(found(&self.manifests.pools, namespace, name))
    }

    async fn user(&self, namespace: &str, name: &str) -> Result<Option<ProxyUser>, WorldError> {
        Ok(found(&self.manifests.users, namespace, name))
    }

    async fn bedrock_credential(
        &self,
        namespace: &str,
        name: &str,
    ) -> Result<Option<BedrockCredential>, WorldError> {
        Ok(found(&self.manifests.bedrock_credentials, namespace, name))
    }

    /// Every namespace has its name as label; a file says no more.
    async fn namespace_labels(
        &self,
        namespace: &str,
    ) -> Result<BTreeMap<String, String>, WorldError> {
        Ok([(
            "kubernetes.io/metadata.name".to_owned(),
            namespace.to_owned(),
        )]
        .into())
    }

    /// A Secret of the file, else one of the directory. One of the file that is a key's own is where the directory begins.
    async fn secret(&self, namespace: &str, name: &str) -> Result<Option<Secret>, WorldError> {
        let given = found(&self.manifests.secrets, namespace, name);
        if given
            .as_ref()
            .is_some_and(|secret| !secret.annotations().contains_key(ACCESS_KEY_ANNOTATION))
        {
            return Ok(given);
        }
        let path = self.path(name);
        let failed =
            |source: FileError| WorldError::new(format!("read {}", path.display()), source);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(given),
            Err(error) => return Err(failed(error.into())),
        };
        from_text(&text)
            .map(Some)
            .map_err(|error| failed(FileError::Malformed(error)))
    }

    async fn create_secret(&self, secret: &Secret) -> Result<Written, WorldError> {
        self.written(secret, create)
    }

    async fn replace_secret(&self, secret: &Secret) -> Result<Written, WorldError> {
        self.written(secret, replace)
    }

    fn owner_of(&self, _: &AccessKey) -> Option<OwnerReference> {
        None
    }

    fn pool_url(&self, _: &ProxyPool) -> String {
        self.base_url.clone()
    }

    /// Proxies are started by whoever wrote the file.
    async fn proxies(&self, _: &ProxyPool) -> Result<Option<ProxyState>, ReconcileError> {
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use spillway_core::security::key::AccessKeyToken;

    use super::*;
    use crate::resources::key_secret::{KeySecretOwner, key_secret};

    fn secret() -> Secret {
        let owner = KeySecretOwner {
            namespace: "default".into(),
            access_key: "k1".into(),
            secret: "k1-secret".into(),
            owner: None,
        };
        key_secret(
            &owner,
            &AccessKeyToken::generate().unwrap(),
            "http://127.0.0.1:8080",
        )
    }

    #[tokio::test]
    async fn a_secret_is_kept_as_it_was_made_and_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let files = Files::new(
            Manifests::default(),
            directory.path().join("secrets"),
            String::new(),
        );
        prepare(&files.secrets_dir).unwrap();
        let secret = secret();
        assert_eq!(files.secret("default", "k1-secret").await.unwrap(), None);
        assert_eq!(files.create_secret(&secret).await.unwrap(), Written::Done);
        assert_eq!(
            files.create_secret(&secret).await.unwrap(),
            Written::Conflict
        );
        assert_eq!(
            files.secret("default", "k1-secret").await.unwrap().as_ref(),
            Some(&secret)
        );
        let path = files.path("k1-secret");
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            PRIVATE_FILE
        );
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .contains("stringData:\n  ACCESS_KEY: sk-spw-")
        );
        assert_eq!(files.replace_secret(&secret).await.unwrap(), Written::Done);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            PRIVATE_FILE
        );
        assert_eq!(fs::read_dir(&files.secrets_dir).unwrap().count(), 1);
    }
}
