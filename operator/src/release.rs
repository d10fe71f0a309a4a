//! `spillway-operator release`: lets every Spillway resource go, so that an uninstall never hangs on a finalizer that
//! nobody is left to remove.
//!
//! A leader that still runs would put the finalizers back. So the Lease is taken from it first, whoever holds it: its
//! next renewal fails and it stops. Nobody leads again until the Lease that was taken has run out, so it is taken again
//! before each page of a list and at the end.

use std::fmt::Debug;
use std::time::Duration;

use kube::api::{ListParams, Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use spillway_crds::{AccessKey, BedrockCredential, GROUP, ProxyPool, ProxyUser};
use tokio::time::sleep;
use tracing::info;

use crate::leader::{Elector, SeizeError};

/// How many objects one list request asks for.
const PAGE: u32 = 500;

/// Pause before what was released is looked at again.
const SETTLE: Duration = Duration::from_secs(2);

/// Passes until the finalizers count as coming back for good.
const MAX_PASSES: u32 = 10;

/// Why not every resource was released. Running the command again continues where it ended.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// The running leader could not be stopped.
    #[error("the lease could not be taken from the running operator")]
    Seize(#[source] SeizeError),
    /// The resources of a kind could not be listed.
    #[error("{kind} resources could not be listed")]
    List {
        /// The kind.
        kind: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// A finalizer could not be removed.
    #[error("the finalizers of {kind} {namespace}/{name} could not be removed")]
    Remove {
        /// The kind.
        kind: String,
        /// The namespace of the resource.
        namespace: String,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: kube::Error,
    },
    /// Something puts the finalizers back.
    #[error(
        "finalizers keep coming back: scale every Deployment of the operator to 0 and run `release` again"
    )]
    ComeBack,
}

/// Takes the Lease and removes Spillway's finalizers from every resource of every namespace. Other finalizers stay.
/// Kinds that the API server does not know are passed over. Returns how many resources were changed.
pub async fn release(client: &Client, elector: Elector) -> Result<u64, ReleaseError> {
    let (mut changed, mut clean_passes) = (0, 0);
    for _ in 0..MAX_PASSES {
        let pass = release_once(client, &elector).await?;
        changed += pass.changed;
        clean_passes = if pass.found == 0 { clean_passes + 1 } else { 0 };
        if clean_passes == 2 {
            // Nobody leads for another duration of the Lease, time enough to uninstall the operator.
            elector.seize().await.map_err(ReleaseError::Seize)?;
            return Ok(changed);
        }
        // The leader may have been in the middle of something when it lost its Lease: look again.
        sleep(SETTLE).await;
    }
    Err(ReleaseError::ComeBack)
}

/// What one look at the resources came to.
#[derive(Debug, Default, Clone, Copy)]
struct Pass {
    /// Resources that had a finalizer of Spillway's.
    found: u64,
    /// Those of them that have none any more.
    changed: u64,
}

impl std::ops::AddAssign for Pass {
    fn add_assign(&mut self, other: Self) {
        self.found += other.found;
        self.changed += other.changed;
    }
}

async fn release_once(client: &Client, elector: &Elector) -> Result<Pass, ReleaseError> {
    let mut pass = Pass::default();
    // Keys and users before the pools and credentials they refer to, as one would delete them.
    pass += release_kind::<AccessKey>(client, elector).await?;
    pass += release_kind::<ProxyUser>(client, elector).await?;
    pass += release_kind::<BedrockCredential>(client, elector).await?;
    pass += release_kind::<ProxyPool>(client, elector).await?;
    Ok(pass)
}

async fn release_kind<K>(client: &Client, elector: &Elector) -> Result<Pass, ReleaseError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug,
{
    let kind = K::kind(&()).into_owned();
    let all: Api<K> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut pass = Pass::default();
    loop {
        // A long list outlasts one Lease: a standby replica must not begin to lead in the middle.
        elector.seize().await.map_err(ReleaseError::Seize)?;
        let page = match all.list_metadata(&params).await {
            Ok(page) => page,
            Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(pass),
            Err(source) => return Err(ReleaseError::List { kind, source }),
        };
        for object in &page.items {
            let Some(kept) = without_ours(object.finalizers()) else {
                continue;
            };
            pass.found += 1;
            let namespace = object.namespace().unwrap_or_default();
            let api: Api<K> = Api::namespaced(client.clone(), &namespace);
            if remove(
                &api,
                &object.name_any(),
                object.metadata.resource_version.as_deref(),
                &kept,
            )
            .await
            .map_err(|source| ReleaseError::Remove {
                kind: kind.clone(),
                namespace: namespace.clone(),
                name: object.name_any(),
                source,
            })? {
                pass.changed += 1;
                info!(kind, namespace, name = object.name_any(), "released");
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(pass),
        }
    }
}

/// Sets the finalizers of one object, if it is still the version that was listed; the next pass sees to one that
/// changed. False: it did, or it is gone.
async fn remove<K>(
    api: &Api<K>,
    name: &str,
    version: Option<&str>,
    kept: &[String],
) -> Result<bool, kube::Error>
where
    K: Clone + DeserializeOwned + Debug,
{
    let patch = json!({ "metadata": { "resourceVersion": version, "finalizers": kept } });
    match api
        .patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The finalizers that are not Spillway's; `None` when none is.
fn without_ours(finalizers: &[String]) -> Option<Vec<String>> {
    let is_ours = |finalizer: &str| finalizer.split('/').next() == Some(GROUP);
    finalizers
        .iter()
        .any(|f| is_ours(f))
        .then(|| finalizers.iter().filter(|f| !is_ours(f)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::without_ours;

    #[test]
    fn only_spillways_finalizers_go() {
        let finalizers = |list: &[&str]| list.iter().map(|f| (*f).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            without_ours(&finalizers(&["spillway.dev/rows", "example.org/keep"])),
            Some(finalizers(&["example.org/keep"]))
        );
        assert_eq!(
            without_ours(&finalizers(&["spillway.dev.example.org/keep"])),
            None
        );
        assert_eq!(without_ours(&[]), None);
    }
}
