//! What is wrong is said where it is, with the field and the fix, and heals by itself once mended.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::support::objects::condition;
use crate::support::tenant::upstream_urls;
use crate::support::{PLATFORM, Tenant, World};

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(
            message.contains(part),
            "{message:?} says nothing of {part:?}"
        );
    }
}

pub async fn user_missing(world: Arc<World>) {
    let tenant = Tenant::new(&world, "no-user").await;
    tenant.pool(0).await;
    world.apply(&tenant.access_key("laptop")).await;
    let message = world
        .refused("AccessKey", "no-user", "laptop", "UserNotFound")
        .await;
    says(
        &message,
        &["spec.userRef", "ProxyUser no-user/alice", "create it"],
    );
    assert!(
        world.find("Secret", "no-user", "laptop").await.is_none(),
        "no key is made for nobody"
    );

    world.apply(&tenant.alice()).await;
    world.ready("AccessKey", "no-user", "laptop").await;
    world.secret_entry("no-user", "laptop", "ACCESS_KEY").await;
}

pub async fn entry_missing(world: Arc<World>) {
    let tenant = Tenant::new(&world, "no-entry").await;
    tenant.pool(0).await;
    let remove = json!({ "data": { "AWS_SECRET_ACCESS_KEY": null } });
    world.patch("Secret", "no-entry", "aws", remove).await;
    world.apply(&tenant.alice()).await;
    let message = world
        .refused("BedrockCredential", "no-entry", "aws", "SecretKeyMissing")
        .await;
    says(
        &message,
        &[
            "spec.auth.secretRef",
            "AWS_SECRET_ACCESS_KEY",
            "no-entry/aws",
            "add it",
        ],
    );
    says(
        &world
            .refused("ProxyUser", "no-entry", "alice", "CredentialNotReady")
            .await,
        &["spec.bedrockCredentialRef", "no-entry/aws"],
    );

    let add = json!({ "stringData": { "AWS_SECRET_ACCESS_KEY": tenant.credentials.aws_secret } });
    world.patch("Secret", "no-entry", "aws", add).await;
    world.ready("BedrockCredential", "no-entry", "aws").await;
    world.ready("ProxyUser", "no-entry", "alice").await;
}

pub async fn oauth_token(world: Arc<World>) {
    let tenant = Tenant::new(&world, "oauth").await;
    let token = "sk-ant-oat01-not-a-console-key-0123456789";
    world.keep_secret("OAuth token", token);
    world
        .patch(
            "Secret",
            PLATFORM,
            "oauth-plan",
            json!({ "stringData": { "key": token } }),
        )
        .await;
    tenant.pool(0).await;
    let message = world
        .refused("ProxyPool", PLATFORM, "oauth", "OAuthTokenRefused")
        .await;
    says(
        &message,
        &[
            "spec.plan.apiKeySecretRef",
            "spillway/oauth-plan",
            "Anthropic Console",
        ],
    );
    assert!(!message.contains(token));

    world
        .patch(
            "Secret",
            PLATFORM,
            "oauth-plan",
            json!({ "stringData": { "key": tenant.credentials.plan_key } }),
        )
        .await;
    let is_resolved = |pool: &Value| {
        condition(pool, "ReferencesResolved").is_some_and(|resolved| resolved["status"] == "True")
    };
    world
        .wait("ProxyPool", PLATFORM, "oauth", "has its key", is_resolved)
        .await;
}

pub async fn not_allowed(world: Arc<World>) {
    let tenant = Tenant::new(&world, "not-allowed").await;
    tenant.pool(0).await;
    world
        .patch(
            "Namespace",
            "",
            "not-allowed",
            json!({ "metadata": { "labels": { "spillway.dev/pool": null } } }),
        )
        .await;
    world.apply(&tenant.alice()).await;
    let message = world
        .refused("ProxyUser", "not-allowed", "alice", "PoolNotAllowed")
        .await;
    says(
        &message,
        &[
            "spec.poolRef",
            "spillway/not-allowed",
            "spec.allowedNamespaces",
        ],
    );

    world
        .patch(
            "Namespace",
            "",
            "not-allowed",
            json!({ "metadata": { "labels": { "spillway.dev/pool": "not-allowed" } } }),
        )
        .await;
    world.ready("ProxyUser", "not-allowed", "alice").await;
}

pub async fn pool_elsewhere(world: Arc<World>) {
    Tenant::new(&world, "elsewhere").await;
    let [plan, _] = upstream_urls("elsewhere");
    world
        .apply(&format!(
            r"
apiVersion: spillway.dev/v1alpha1
kind: ProxyPool
metadata: {{name: mine, namespace: elsewhere}}
spec: {{replicas: 1, plan: {{apiUrl: '{plan}'}}}}
"
        ))
        .await;
    let message = world
        .refused("ProxyPool", "elsewhere", "mine", "NamespaceNotAllowed")
        .await;
    says(
        &message,
        &["(spillway)", "not in elsewhere", "--pool-namespaces"],
    );
    let pool = world.get("ProxyPool", "elsewhere", "mine").await;
    assert_eq!(
        condition(&pool, "Accepted").map(|accepted| &accepted["status"]),
        Some(&json!("False"))
    );
    for kind in ["Deployment", "Service"] {
        assert!(
            world
                .find(kind, "elsewhere", "spillway-mine")
                .await
                .is_none(),
            "a tenant gets no {kind} with the master secrets"
        );
    }
    assert!(
        world
            .find("Secret", "elsewhere", "spillway-key-hasher")
            .await
            .is_none()
    );
}
