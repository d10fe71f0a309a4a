//! `helm uninstall` takes the programs and leaves what is the users'.

use std::sync::Arc;

use kube::api::DeleteParams;

use crate::support::objects::name;
use crate::support::{PLATFORM, Tenant, World};

const KINDS: [&str; 4] = ["ProxyPool", "ProxyUser", "AccessKey", "BedrockCredential"];

pub async fn run(world: Arc<World>) {
    let (_tenant, key) = Tenant::serving(&world, "uninstall", 1).await;
    let mut before = Vec::new();
    for kind in KINDS {
        before.extend(world.list(kind, "", "").await);
    }
    world
        .helm(&[
            "uninstall",
            "spillway",
            "--namespace",
            PLATFORM,
            "--wait",
            "--timeout",
            "4m",
        ])
        .await;

    assert!(
        world
            .find("Deployment", PLATFORM, "spillway")
            .await
            .is_none()
    );
    let mut after = Vec::new();
    for kind in KINDS {
        let plural = format!("{}s", kind.to_lowercase());
        assert!(
            world
                .find(
                    "CustomResourceDefinition",
                    "",
                    &format!("{plural}.spillway.dev")
                )
                .await
                .is_some(),
            "{plural} are still defined"
        );
        after.extend(world.list(kind, "", "").await);
    }
    assert_eq!(after.len(), before.len(), "every resource is still there");
    for object in &after {
        let finalizers = &object["metadata"]["finalizers"];
        assert!(
            finalizers.is_null(),
            "{} {} would hang: {finalizers}",
            object["kind"],
            name(object)
        );
    }
    for secret in [
        "spillway-key-hasher",
        "spillway-local-encryption",
        "spillway-postgresql",
    ] {
        assert!(
            world.find("Secret", PLATFORM, secret).await.is_some(),
            "Secret {secret} is kept"
        );
    }
    assert_eq!(
        world
            .secret_entry("uninstall", "laptop", "ACCESS_KEY")
            .await,
        key.token,
        "keys are kept"
    );

    world
        .delete("Namespace", "", "uninstall", &DeleteParams::default())
        .await;
    world.gone("Namespace", "", "uninstall").await;
}
