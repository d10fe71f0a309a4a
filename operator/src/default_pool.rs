//! The default `ProxyPool`, which the leader makes when there is none of its name.
//!
//! A chart cannot hold a CRD and an object of it, so the chart mounts the manifest as a file. Once the pool is there it
//! belongs to people: it is never changed from the file, and only made again when the leader starts and it is gone.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::api::PostParams;
use kube::{Api, Client};
use spillway_crds::ProxyPool;
use tokio::time::sleep;
use tracing::{info, warn};

use crate::report::chain;
use crate::settings::PoolName;

/// Pause before the API server is asked again: the CRDs may come later than the operator.
const RETRY: Duration = Duration::from_secs(5);

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It could not be read.
    #[error("PROXY_DEFAULT_POOL_FILE: {} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("PROXY_DEFAULT_POOL_FILE: {} holds no ProxyPool manifest", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where the parser stopped.
        #[source]
        source: serde_yaml::Error,
    },
    /// It holds another pool.
    #[error(
        "PROXY_DEFAULT_POOL_FILE: the manifest is of pool {found}, and PROXY_DEFAULT_POOL is {wanted}: make them the same"
    )]
    OtherPool {
        /// The pool in the file.
        found: String,
        /// The default pool.
        wanted: PoolName,
    },
}

/// Reads the manifest of the pool `wanted`; a namespace may be missing in it.
pub fn read_manifest(path: &Path, wanted: &PoolName) -> Result<ProxyPool, ManifestError> {
    let text = std::fs::read_to_string(path).map_err(|source| ManifestError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut pool: ProxyPool =
        serde_yaml::from_str(&text).map_err(|source| ManifestError::Parse {
            path: path.to_owned(),
            source,
        })?;
    let namespace = pool
        .metadata
        .namespace
        .get_or_insert_with(|| wanted.namespace.clone())
        .clone();
    let name = pool.metadata.name.clone().unwrap_or_default();
    if namespace != wanted.namespace || name != wanted.name {
        return Err(ManifestError::OtherPool {
            found: format!("{namespace}/{name}"),
            wanted: wanted.clone(),
        });
    }
    Ok(pool)
}

/// Makes the pool unless one of its name is there. Tries until the API server has decided; a manifest that it refuses
/// is logged, for only a person can mend it.
pub async fn ensure(client: Client, pool: ProxyPool) {
    let namespace = pool.metadata.namespace.clone().unwrap_or_default();
    let name = pool.metadata.name.clone().unwrap_or_default();
    let pools: Api<ProxyPool> = Api::namespaced(client, &namespace);
    loop {
        match create_unless_there(&pools, &name, &pool).await {
            Ok(true) => return info!(namespace, name, "created the default pool"),
            Ok(false) => return info!(namespace, name, "the default pool is there"),
            Err(kube::Error::Api(status)) if status.is_invalid() => {
                return warn!(
                    namespace,
                    name,
                    error = status.message,
                    "the default pool's manifest is refused: mend it"
                );
            }
            Err(error) => warn!(
                namespace,
                name,
                error = chain(&error),
                "the default pool could not be created yet"
            ),
        }
        sleep(RETRY).await;
    }
}

/// Whether the pool was made now. Looked up before it is made, so that an admission webhook is not bothered each time.
async fn create_unless_there(
    pools: &Api<ProxyPool>,
    name: &str,
    pool: &ProxyPool,
) -> Result<bool, kube::Error> {
    if pools.get_metadata_opt(name).await?.is_some() {
        return Ok(false);
    }
    match pools.create(&PostParams::default(), pool).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(manifest: &str) -> Result<ProxyPool, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(manifest.as_bytes()).unwrap();
        let wanted = PoolName {
            namespace: "spillway".into(),
            name: "default".into(),
        };
        read_manifest(file.path(), &wanted).map_err(|error| chain(&error))
    }

    const HEAD: &str = "apiVersion: spillway.dev/v1alpha1\nkind: ProxyPool\n";

    #[test]
    fn a_manifest_without_namespace_gets_the_default_pools() {
        let pool = read(&format!(
            "{HEAD}metadata: {{name: default}}\nspec: {{replicas: 3}}\n"
        ))
        .unwrap();
        assert_eq!(pool.metadata.namespace.as_deref(), Some("spillway"));
        assert_eq!(pool.spec.replicas, 3);
    }

    #[test]
    fn another_pools_manifest_and_a_broken_one_are_refused_by_name() {
        let other = read(&format!("{HEAD}metadata: {{name: other}}\nspec: {{}}\n")).unwrap_err();
        assert!(
            other.contains("pool spillway/other")
                && other.contains("PROXY_DEFAULT_POOL is spillway/default"),
            "{other}"
        );
        let broken = read(&format!(
            "{HEAD}metadata: {{name: default}}\nspec: {{replicas: many}}\n"
        ))
        .unwrap_err();
        assert!(
            broken.starts_with("PROXY_DEFAULT_POOL_FILE: ") && broken.contains("replicas"),
            "{broken}"
        );
    }
}
