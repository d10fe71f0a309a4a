//! What the operator stores of resources, and what proxies read of it.

use super::*;

#[sqlx::test(migrations = "../migrations")]
async fn a_snapshot_holds_all_that_a_pool_serves_by(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(loaded.pool.models, pool_config().models);
    assert_eq!(loaded.pool.circuit_breaker.failure_threshold, Some(3));
    assert_eq!(
        (loaded.users[0].id, loaded.users[0].name.as_str()),
        (user_id, "alice")
    );
    assert_eq!(loaded.access_keys[0].id, key_id);
    assert_eq!(loaded.versions[0].key_hash, KeyHash([1; 32]));
    assert!(
        snapshot::load(&db, "cluster-b", "team-a", "default")
            .await
            .unwrap()
            .is_none()
    );
    let json = serde_json::to_string(&loaded).unwrap();
    let read: spillway_core::domain::pool::PoolSnapshot = serde_json::from_str(&json).unwrap();
    assert_eq!(read.versions, loaded.versions);
}

#[sqlx::test(migrations = "../migrations")]
async fn storing_the_same_again_writes_nothing_and_tells_nobody(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, user_id, _) = tenant(&mut connection).await;
    let mut listener = PgListener::connect_with(&db).await.unwrap();
    listener.listen("spillway_changes").await.unwrap();
    let new = NewPool {
        origin: origin("default", "pool-uid"),
        config: pool_config(),
    };
    assert!(!pools::upsert(&mut connection, &new).await.unwrap().changed);
    let same = users::upsert(
        &mut connection,
        &origin("alice", "user-uid"),
        &user(Some(pool_id)),
    )
    .await
    .unwrap();
    assert!(!same.changed);
    let same = access_keys::upsert(
        &mut connection,
        &origin("laptop", "key-uid"),
        &key(user_id),
        &[version(1)],
    )
    .await
    .unwrap();
    assert!(!same.changed);
    // A change is heard, and it is the first thing that is heard.
    let suspended = UserRow {
        suspended: true,
        ..user(Some(pool_id))
    };
    sqlx::query("SELECT pg_notify('spillway_changes', 'before')")
        .execute(&mut *connection)
        .await
        .unwrap();
    users::upsert(&mut connection, &origin("alice", "user-uid"), &suspended)
        .await
        .unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), "before");
    assert_eq!(listener.recv().await.unwrap().payload(), "all");
}

#[sqlx::test(migrations = "../migrations")]
async fn versions_become_exactly_those_wanted(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    let ends = Utc::now() + TimeDelta::hours(24);
    let old = Version {
        expires_at: Some(ends),
        ..version(1)
    };
    let laptop = origin("laptop", "key-uid");
    access_keys::upsert(&mut connection, &laptop, &key(user_id), &[version(2), old])
        .await
        .unwrap();
    let stored = access_keys::versions(&mut connection, key_id)
        .await
        .unwrap();
    assert_eq!(
        stored.iter().map(|v| v.key_hash.0[0]).collect::<Vec<_>>(),
        [2, 1]
    );
    assert!(stored[1].expires_at.is_some() && stored[0].expires_at.is_none());
    access_keys::upsert(&mut connection, &laptop, &key(user_id), &[version(2)])
        .await
        .unwrap();
    let stored = access_keys::versions(&mut connection, key_id)
        .await
        .unwrap();
    assert_eq!(stored.len(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_belongs_to_one_living_access_key_of_a_pool(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, _) = tenant(&mut connection).await;
    let other = origin("desktop", "other-uid");
    let error = access_keys::upsert(&mut connection, &other, &key(user_id), &[version(1)])
        .await
        .unwrap_err();
    assert!(matches!(error, RepositoryError::DuplicateKey), "{error}");
    access_keys::soft_delete(&mut connection, CLUSTER, "key-uid")
        .await
        .unwrap();
    access_keys::upsert(&mut connection, &other, &key(user_id), &[version(1)])
        .await
        .unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deleted_user_takes_its_keys_along_and_leaves_its_history(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    usage::insert(&db, &[record(key_id, user_id, Utc::now())])
        .await
        .unwrap();
    assert!(
        !users::soft_delete(&mut connection, "cluster-b", "user-uid")
            .await
            .unwrap()
    );
    assert!(
        users::soft_delete(&mut connection, CLUSTER, "user-uid")
            .await
            .unwrap()
    );
    assert!(
        !users::soft_delete(&mut connection, CLUSTER, "user-uid")
            .await
            .unwrap()
    );
    let loaded = snapshot::load(&db, CLUSTER, "team-a", "default")
        .await
        .unwrap()
        .unwrap();
    assert!(loaded.users.is_empty() && loaded.access_keys.is_empty() && loaded.versions.is_empty());
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM token_usages WHERE key_name = 'laptop'")
            .fetch_one(&db)
            .await
            .unwrap();
    assert_eq!(kept, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_resource_made_anew_under_an_old_name_is_another_one(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, user_id, key_id) = tenant(&mut connection).await;
    let anew = users::upsert(
        &mut connection,
        &origin("alice", "new-uid"),
        &user(Some(pool_id)),
    )
    .await
    .unwrap();
    assert_ne!(anew.id, user_id);
    let (kept, _, row) = access_keys::find(&mut connection, CLUSTER, "team-a", "laptop")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (kept, row.user_id),
        (key_id, anew.id),
        "keys follow the name that they refer to"
    );
    let again = access_keys::upsert(
        &mut connection,
        &origin("laptop", "new-key-uid"),
        &key(anew.id),
        &[version(1)],
    )
    .await
    .unwrap();
    assert_ne!(again.id, key_id);
}

#[sqlx::test(migrations = "../migrations")]
async fn refusals_are_stored_on_their_own(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (pool_id, user_id, key_id) = tenant(&mut connection).await;
    let ends = DateTime::from_timestamp(1_900_000_000, 0);
    access_keys::restrict(&mut connection, key_id, true, ends)
        .await
        .unwrap();
    users::suspend(&mut connection, user_id, true)
        .await
        .unwrap();
    let found = access_keys::find(&mut connection, CLUSTER, "team-a", "laptop").await;
    let wanted = AccessKeyRow {
        disabled: true,
        expires_at: ends,
        ..key(user_id)
    };
    assert_eq!(found.unwrap().unwrap().2, wanted);
    let found = users::find(&mut connection, CLUSTER, "team-a", "alice").await;
    let wanted = UserRow {
        suspended: true,
        ..user(Some(pool_id))
    };
    assert_eq!(found.unwrap().unwrap().2, wanted);
}

#[sqlx::test(migrations = "../migrations")]
async fn whoever_had_a_key_is_remembered(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, _) = tenant(&mut connection).await;
    let hash = version(1).key_hash;
    let living = |holders: Vec<access_keys::Holder>| {
        let mut living: Vec<_> = holders
            .into_iter()
            .map(|holder| (holder.uid, holder.is_living))
            .collect();
        living.sort();
        living
    };
    let before = access_keys::holders(&mut connection, CLUSTER, &hash)
        .await
        .unwrap();
    assert_eq!(living(before), [("key-uid".to_owned(), true)]);
    access_keys::upsert(
        &mut connection,
        &origin("laptop", "new-uid"),
        &key(user_id),
        &[version(1)],
    )
    .await
    .unwrap();
    let after = access_keys::holders(&mut connection, CLUSTER, &hash)
        .await
        .unwrap();
    assert_eq!(
        living(after),
        [("key-uid".to_owned(), false), ("new-uid".to_owned(), true)]
    );
}
