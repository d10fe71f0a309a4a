//! The four controllers: what each of them watches, and whom a change concerns.

use std::sync::Arc;

use futures::future::join_all;
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Secret, Service, ServiceAccount};
use kube::core::{NamespaceResourceScope, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use kube_runtime::controller::{self, Controller};
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::utils::PredicateConfig;
use kube_runtime::{WatchStreamExt, predicates, watcher};
use spillway_crds::{AccessKey, BedrockCredential, ProxyPool, ProxyUser};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::changes::changes;
use super::driver::{DriveError, Driver};
use super::kind::{Reconciled, change_for_dependants, own_change};
use super::outcome::Rules;
use super::watches::{
    Named, credential_names_secret, credential_of_key, credential_of_pool, credential_of_user,
    key_names_secret, pool_names_secret, referring, user_names_pool, user_names_secret,
};
use crate::context::Context;
use crate::resources::{MANAGED_BY, MANAGED_BY_LABEL};
use crate::settings::{PoolName, WatchScope};

/// How many resources of one kind are reconciled at a time.
const CONCURRENCY: u16 = 8;

type Watched<K> = Result<K, watcher::Error>;

/// Runs all controllers until `shutdown`, and finishes what is under way.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let runs = [
        pools(&context, &shutdown).boxed(),
        users(&context, &shutdown).boxed(),
        access_keys(&context, &shutdown).boxed(),
        bedrock_credentials(&context, &shutdown).boxed(),
    ];
    join_all(runs).await;
}

fn pools(
    context: &Arc<Context>,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let (controller, store) = controller::<ProxyPool>(context);
    let mut controller = controller.watches_stream(
        dependencies::<BedrockCredential>(context),
        named_by(&store, |pool, credential: &BedrockCredential| {
            credential_of_pool(pool) == Some(&credential.name_any())
        }),
    );
    for secrets in secrets(context) {
        controller = controller.watches_stream(secrets, naming_secret(&store, pool_names_secret));
    }
    for namespace in &context.settings.pool_namespaces {
        let made = watcher::Config::default().labels(&format!("{MANAGED_BY_LABEL}={MANAGED_BY}"));
        let client = &context.client;
        controller = controller
            .owns(
                Api::<Deployment>::namespaced(client.clone(), namespace),
                made.clone(),
            )
            .owns(
                Api::<Service>::namespaced(client.clone(), namespace),
                made.clone(),
            )
            .owns(
                Api::<ServiceAccount>::namespaced(client.clone(), namespace),
                made,
            );
    }
    drive(Arc::clone(context), controller, shutdown.clone())
}

fn users(
    context: &Arc<Context>,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let (controller, store) = controller::<ProxyUser>(context);
    let rules = Rules::of(&context.settings);
    let by_pool = {
        let store = store.clone();
        move |pool: ProxyPool| {
            let Named { namespace, name } = Named::of(&pool);
            let pool = PoolName { namespace, name };
            referring(&store, None, |user| user_names_pool(user, &pool, &rules))
        }
    };
    let by_namespace = {
        let store = store.clone();
        move |namespace: PartialObjectMeta<Namespace>| {
            referring(&store, Some(&namespace.name_any()), |_| true)
        }
    };
    let namespaces = watcher(
        Api::<PartialObjectMeta<Namespace>>::all(context.client.clone()),
        watcher::Config::default(),
    )
    .default_backoff()
    .touched_objects()
    .predicate_filter(predicates::labels, PredicateConfig::default());
    let mut controller = controller
        .watches_stream(dependencies::<ProxyPool>(context), by_pool)
        .watches_stream(namespaces, by_namespace)
        .watches_stream(
            dependencies::<BedrockCredential>(context),
            named_by(&store, |user, credential: &BedrockCredential| {
                credential_of_user(user) == Some(&credential.name_any())
            }),
        )
        .watches_stream(dependencies::<AccessKey>(context), |key: AccessKey| {
            Some(
                ObjectRef::new(&key.spec.user_ref.name)
                    .within(&key.namespace().unwrap_or_default()),
            )
        });
    for secrets in secrets(context) {
        controller = controller.watches_stream(secrets, naming_secret(&store, user_names_secret));
    }
    drive(Arc::clone(context), controller, shutdown.clone())
}

fn access_keys(
    context: &Arc<Context>,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let (controller, store) = controller::<AccessKey>(context);
    // The Secrets hold the pool's URL.
    let urls = changes(all::<ProxyPool>(&context.client), |pool: &ProxyPool| {
        u64::try_from(pool.spec.service.port).ok()
    });
    let by_pool = {
        let store = store.clone();
        move |_: ProxyPool| referring(&store, None, |_| true)
    };
    let mut controller = controller
        .watches_stream(urls, by_pool)
        .watches_stream(
            dependencies::<ProxyUser>(context),
            named_by(&store, |key: &AccessKey, user: &ProxyUser| {
                key.spec.user_ref.name == user.name_any()
            }),
        )
        .watches_stream(
            dependencies::<BedrockCredential>(context),
            named_by(&store, |key, credential: &BedrockCredential| {
                credential_of_key(key) == Some(&credential.name_any())
            }),
        );
    for secrets in secrets(context) {
        controller = controller.watches_stream(secrets, naming_secret(&store, key_names_secret));
    }
    drive(Arc::clone(context), controller, shutdown.clone())
}

fn bedrock_credentials(
    context: &Arc<Context>,
    shutdown: &CancellationToken,
) -> impl Future<Output = ()> + Send + use<> {
    let (controller, store) = controller::<BedrockCredential>(context);
    // For status.usedBy.
    let mut controller = controller
        .watches_stream(dependencies::<ProxyPool>(context), |pool: ProxyPool| {
            local(&pool, credential_of_pool(&pool))
        })
        .watches_stream(dependencies::<ProxyUser>(context), |user: ProxyUser| {
            local(&user, credential_of_user(&user))
        })
        .watches_stream(dependencies::<AccessKey>(context), |key: AccessKey| {
            local(&key, credential_of_key(&key))
        });
    for secrets in secrets(context) {
        controller =
            controller.watches_stream(secrets, naming_secret(&store, credential_names_secret));
    }
    drive(Arc::clone(context), controller, shutdown.clone())
}

/// A controller of one kind that passes over changes of status.
fn controller<K>(context: &Arc<Context>) -> (Controller<K>, Store<K>)
where
    K: Reconciled,
{
    let (store, writer) = reflector::store();
    let own = all::<K>(&context.client)
        .reflect(writer)
        .applied_objects()
        .predicate_filter(own_change::<K>, PredicateConfig::default());
    let config = controller::Config::default().concurrency(CONCURRENCY);
    (
        Controller::for_stream(own, store.clone()).with_config(config),
        store,
    )
}

async fn drive<K>(context: Arc<Context>, controller: Controller<K>, shutdown: CancellationToken)
where
    K: Reconciled,
{
    let driver = Arc::new(Driver::<K>::new(Arc::clone(&context)));
    let pausing = Arc::clone(&driver);
    controller
        .reconcile_all_on(context.database.reconnections())
        .graceful_shutdown_on(shutdown.cancelled_owned())
        .run(
            |resource, driver: Arc<Driver<K>>| driver.reconcile(resource),
            move |resource, error: &DriveError, _| pausing.pause(&resource, error),
            driver,
        )
        .for_each(|result| async move {
            match result {
                Ok((resource, _)) => debug!(kind = K::KIND, resource = %resource, "reconciled"),
                // Told by the driver already.
                Err(controller::Error::ReconcilerFailed(..)) => {}
                Err(controller::Error::ObjectNotFound(resource)) => {
                    debug!(kind = K::KIND, resource = %resource, "gone");
                }
                Err(error) => warn!(
                    kind = K::KIND,
                    error = crate::report::chain(&error),
                    "watch failed"
                ),
            }
        })
        .await;
}

/// Every resource of one kind. The rights on Spillway's own kinds are always cluster-wide.
fn all<K>(
    client: &Client,
) -> impl Stream<Item = Result<watcher::Event<K>, watcher::Error>> + Send + use<K>
where
    K: Reconciled,
{
    watcher(Api::<K>::all(client.clone()), watcher::Config::default()).default_backoff()
}

/// Changes of one kind that those who refer to it have to follow.
fn dependencies<K>(context: &Arc<Context>) -> impl Stream<Item = Watched<K>> + Send + use<K>
where
    K: Reconciled,
{
    changes(all::<K>(&context.client), change_for_dependants::<K>)
}

/// Changes of Secrets, without what is in them.
fn secrets(
    context: &Arc<Context>,
) -> Vec<impl Stream<Item = Watched<PartialObjectMeta<Secret>>> + Send + use<>> {
    let client = &context.client;
    let apis: Vec<Api<PartialObjectMeta<Secret>>> = match &context.settings.watch {
        WatchScope::All => vec![Api::all(client.clone())],
        WatchScope::Named(names) => names
            .iter()
            .map(|name| Api::namespaced(client.clone(), name))
            .collect(),
    };
    apis.into_iter()
        .map(|api| {
            watcher(api, watcher::Config::default())
                .default_backoff()
                .touched_objects()
        })
        .collect()
}

/// Maps a changed object to the resources of its namespace that name it.
fn named_by<K, Other, F>(
    store: &Store<K>,
    names: F,
) -> impl Fn(Other) -> Vec<ObjectRef<K>> + Send + Sync + 'static + use<K, Other, F>
where
    K: Reconciled,
    Other: Resource + 'static,
    F: Fn(&K, &Other) -> bool + Send + Sync + 'static,
{
    let store = store.clone();
    move |other| {
        referring(&store, other.namespace().as_deref(), |resource| {
            names(resource, &other)
        })
    }
}

/// Maps a changed Secret to the resources of its namespace that name it.
fn naming_secret<K: Reconciled>(
    store: &Store<K>,
    names: fn(&K, &str) -> bool,
) -> impl Fn(PartialObjectMeta<Secret>) -> Vec<ObjectRef<K>> + Send + Sync + 'static + use<K> {
    named_by(
        store,
        move |resource: &K, secret: &PartialObjectMeta<Secret>| names(resource, &secret.name_any()),
    )
}

fn local<K: Resource<Scope = NamespaceResourceScope>>(
    resource: &K,
    credential: Option<&str>,
) -> Option<ObjectRef<BedrockCredential>> {
    Some(ObjectRef::new(credential?).within(&resource.namespace()?))
}
