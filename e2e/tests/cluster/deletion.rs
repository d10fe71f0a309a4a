//! Deletions that Postgres, or nobody, could take note of.

use std::sync::Arc;
use std::time::Instant;

use kube::api::DeleteParams;

use crate::support::{Tenant, World, eventually};

pub async fn without_postgres(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "gone", 1).await;
    world.served(&key, "before", false).await;
    tenant.usage(1).await;
    world.stop_postgres().await;
    let begin = Instant::now();
    world
        .delete("AccessKey", "gone", "laptop", &DeleteParams::default())
        .await;
    world.gone("AccessKey", "gone", "laptop").await;
    println!(
        "    the finalizer let go after {} s",
        begin.elapsed().as_secs()
    );
    let events = world.list("Event", "gone", "").await;
    assert!(
        events
            .iter()
            .any(|event| event["reason"] == "ReleasedWithoutDatabase"),
        "an event says so"
    );
    world
        .served(&key, "the proxies cannot know yet", false)
        .await;

    world.start_postgres().await;
    eventually("the key is refused", async || {
        let answer = world.ask(&key, "after", false).await;
        if answer.status == 401 {
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    })
    .await;
    let deleted: bool = sqlx::query_scalar("SELECT deleted_at IS NOT NULL FROM access_keys WHERE namespace = 'gone' ORDER BY created_at DESC LIMIT 1")
        .fetch_one(world.database().await)
        .await
        .expect("the row is kept");
    assert!(deleted);
    assert!(
        tenant
            .usage(2)
            .await
            .iter()
            .all(|row| row.key_name == "laptop"),
        "history is kept"
    );
}

/// A user with a key and a credential, and a pool, of `$1`, as if resources of a cluster of that name had been there.
const INSERT: &[&str] = &[
    "INSERT INTO pools (id, cluster_id, namespace, name, uid) VALUES (gen_random_uuid(), $1, 'spillway', 'swept', 'swept-pool')",
    "INSERT INTO users (id, cluster_id, namespace, name, uid) VALUES (gen_random_uuid(), $1, 'sweep', 'swept', 'swept-user')",
    "INSERT INTO access_keys (id, cluster_id, namespace, name, uid, user_id) \
     SELECT gen_random_uuid(), $1, 'sweep', 'swept', 'swept-key', id FROM users WHERE cluster_id = $1 AND uid = 'swept-user' AND deleted_at IS NULL",
    "INSERT INTO bedrock_keys (id, cluster_id, namespace, name, uid, region, auth_kind, fingerprint, sealed, encrypted_with) \
     VALUES (gen_random_uuid(), $1, 'sweep', 'swept', 'swept-credential', 'us-east-1', 'pod_identity', '', '', '')",
];

/// How many of them live, and when the last of them was changed.
const LIVING: &str = "SELECT count(*), coalesce(max(changed)::text, '') FROM (
    SELECT updated_at AS changed FROM pools WHERE cluster_id = $1 AND uid = 'swept-pool'
    UNION ALL SELECT updated_at FROM users WHERE cluster_id = $1 AND uid = 'swept-user' AND deleted_at IS NULL
    UNION ALL SELECT updated_at FROM access_keys WHERE cluster_id = $1 AND uid = 'swept-key' AND deleted_at IS NULL
    UNION ALL SELECT updated_at FROM bedrock_keys WHERE cluster_id = $1 AND uid = 'swept-credential' AND deleted_at IS NULL) AS living";

pub async fn sweep(world: Arc<World>) {
    Tenant::new(&world, "sweep").await;
    let namespace = world.get("Namespace", "", "kube-system").await;
    let own = namespace["metadata"]["uid"].as_str().unwrap();
    let another = "another-cluster";
    forget(&world).await;
    for cluster in [own, another] {
        for statement in INSERT {
            sqlx::query(*statement)
                .bind(cluster)
                .execute(world.database().await)
                .await
                .unwrap();
        }
    }
    let before = living(&world, another).await;
    assert_eq!((before.0, living(&world, own).await.0), (4, 4));

    world.restart_operator().await;
    eventually("rows without resource end", async || {
        match living(&world, own).await.0 {
            0 => Ok(()),
            left => Err(format!("{left} live")),
        }
    })
    .await;
    assert_eq!(
        living(&world, another).await,
        before,
        "rows of another cluster are as they were"
    );
    forget(&world).await;
}

async fn forget(world: &World) {
    for table in ["access_keys", "users", "bedrock_keys", "pools"] {
        let statement = format!("DELETE FROM {table} WHERE uid LIKE 'swept-%'");
        sqlx::query(sqlx::AssertSqlSafe(statement))
            .execute(world.database().await)
            .await
            .unwrap();
    }
}

async fn living(world: &World, cluster: &str) -> (i64, String) {
    sqlx::query_as(LIVING)
        .bind(cluster)
        .fetch_one(world.database().await)
        .await
        .unwrap()
}
