//! Plan keys and Bedrock credentials.

use super::*;

#[sqlx::test(migrations = "../migrations")]
async fn credentials_follow_their_secret_and_unused_plan_keys_go(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, ..) = tenant(&mut connection).await;
    let plan = NewPlanKey {
        id: Uuid::new_v4(),
        secret: origin("plan-key", "secret-uid"),
        secret_key: "ANTHROPIC_API_KEY".into(),
        secret_version: "1".into(),
        fingerprint: vec![1],
        sealed: Sealed(vec![1, 2, 3]),
        encrypted_with: "local:0".into(),
    };
    plan_keys::upsert(&mut connection, &plan).await.unwrap();
    let user = UserRow {
        plan_key_id: Some(plan.id),
        ..user(Some(pool_id))
    };
    users::upsert(&mut connection, &origin("alice", "user-uid"), &user)
        .await
        .unwrap();
    assert_eq!(plan_keys::prune(&mut connection, CLUSTER).await.unwrap(), 0);
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.plan_keys[0].sealed, plan.sealed);
    users::soft_delete(&mut connection, CLUSTER, "user-uid")
        .await
        .unwrap();
    assert_eq!(plan_keys::prune(&mut connection, CLUSTER).await.unwrap(), 1);
    assert!(
        plan_keys::find(
            &mut connection,
            CLUSTER,
            "team-a",
            "plan-key",
            "ANTHROPIC_API_KEY"
        )
        .await
        .unwrap()
        .is_none()
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deleted_bedrock_credential_serves_nobody_any_more(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_row) = tenant(&mut connection).await;
    let new = |id, uid: &str| NewBedrockKey {
        id,
        origin: origin("bedrock", uid),
        region: "eu-central-1".into(),
        endpoint_url: None,
        auth_kind: "api_key",
        secret_version: Some("7".into()),
        fingerprint: vec![1],
        sealed: Sealed(vec![9]),
        encrypted_with: "local:0".into(),
    };
    let shared = new(Uuid::new_v4(), "bc-uid");
    bedrock_keys::upsert(&mut connection, &shared)
        .await
        .unwrap();
    let with = AccessKeyRow {
        bedrock_key_id: Some(shared.id),
        ..key(user_id)
    };
    access_keys::upsert(
        &mut connection,
        &origin("laptop", "key-uid"),
        &with,
        &[version(1)],
    )
    .await
    .unwrap();
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.bedrock_keys[0].id, shared.id);
    // Made anew under the same name: the old row ends.
    let anew = new(Uuid::new_v4(), "bc-uid-2");
    bedrock_keys::upsert(&mut connection, &anew).await.unwrap();
    let found = bedrock_keys::find(&mut connection, CLUSTER, "team-a", "bedrock")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.id, anew.id);
    // One that belongs to a key alone goes before the one it names.
    sqlx::query("UPDATE bedrock_keys SET access_key_id = $1 WHERE id = $2")
        .bind(key_row)
        .bind(anew.id)
        .execute(&db)
        .await
        .unwrap();
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.access_keys[0].bedrock_key_id, Some(anew.id));
    bedrock_keys::soft_delete(&mut connection, CLUSTER, "bc-uid-2")
        .await
        .unwrap();
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert!(loaded.bedrock_keys.is_empty());
}
