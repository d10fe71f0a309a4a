//! One leader writes, and a secret stays the one that rows were written with.

use super::*;

#[sqlx::test(migrations = "../migrations")]
async fn a_deposed_leader_cannot_write(db: PgPool) {
    let first = leadership::acquire(&db, CLUSTER, "one").await.unwrap();
    let elsewhere = leadership::acquire(&db, "cluster-b", "one").await.unwrap();
    let second = leadership::acquire(&db, CLUSTER, "two").await.unwrap();
    let error = leadership::fenced(&db, &first).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Deposed { ours: 1, found: 2 }),
        "{error}"
    );
    for fence in [&second, &elsewhere] {
        let transaction = leadership::fenced(&db, fence).await.unwrap();
        leadership::commit(transaction).await.unwrap();
    }
    let unknown = Fence {
        cluster_id: "never-led".into(),
        epoch: 1,
    };
    assert!(leadership::fenced(&db, &unknown).await.is_err());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_takeover_waits_for_the_writes_under_way(db: PgPool) {
    let first = leadership::acquire(&db, CLUSTER, "one").await.unwrap();
    let mut writing = leadership::fenced(&db, &first).await.unwrap();
    let takeover = tokio::spawn({
        let db = db.clone();
        async move { leadership::acquire(&db, CLUSTER, "two").await }
    });
    // The takeover is waiting for our lock once the server says so.
    loop {
        let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_locks WHERE NOT granted")
            .fetch_one(&db)
            .await
            .unwrap();
        if waiting > 0 {
            break;
        }
        tokio::task::yield_now().await;
    }
    tenant(&mut writing).await;
    leadership::commit(writing).await.unwrap();
    assert_eq!(takeover.await.unwrap().unwrap().epoch, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_first_check_value_of_a_secret_stays(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let check = |byte| KeyCheck {
        kind: SecretKind::Hasher,
        secret_id: "0".into(),
        value: [byte; 32],
    };
    assert_eq!(
        key_checks::remember(&mut connection, CLUSTER, &check(1))
            .await
            .unwrap(),
        [1; 32]
    );
    assert_eq!(
        key_checks::remember(&mut connection, CLUSTER, &check(2))
            .await
            .unwrap(),
        [1; 32]
    );
    assert_eq!(key_checks::list(&db, CLUSTER).await.unwrap(), [check(1)]);
}
