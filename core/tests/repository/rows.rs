//! Usage rows and what they add up to.

use super::*;

#[sqlx::test(migrations = "../migrations")]
async fn usage_is_stored_once_and_added_up_once(db: PgPool) {
    let mut connection = db.acquire().await.unwrap();
    let (_, user_id, key_id) = tenant(&mut connection).await;
    let now = Utc::now();
    usage::ensure_partitions(&db, now, 2).await.unwrap();
    usage::ensure_partitions(&db, now, 2).await.unwrap();
    let records: Vec<_> = (0..5).map(|_| record(key_id, user_id, now)).collect();
    assert_eq!(usage::insert(&db, &records[..3]).await.unwrap(), 3);
    assert_eq!(usage::insert(&db, &records).await.unwrap(), 2);
    let since = now - TimeDelta::hours(1);
    for totals in [
        usage_totals::by_access_key(&db, CLUSTER, since)
            .await
            .unwrap(),
        usage_totals::by_user(&db, CLUSTER, since).await.unwrap(),
    ] {
        assert_eq!(totals.len(), 1);
        assert_eq!(
            (
                totals[0].requests,
                totals[0].input_tokens,
                totals[0].output_tokens,
                totals[0].cost
            ),
            (5, 5 * 22, 100, MicroUsd(5 * 330))
        );
    }
    assert!(
        usage_totals::by_user(&db, "cluster-b", since)
            .await
            .unwrap()
            .is_empty()
    );
    let in_default: i64 = sqlx::query_scalar("SELECT count(*) FROM token_usages_default")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(in_default, 0, "the month's own partition takes the rows");
    let mut fallen_over = record(key_id, user_id, now);
    fallen_over.provider = Some(Provider::Bedrock);
    fallen_over.abandoned = Some(AbandonedUsage {
        provider: Provider::Plan,
        input_tokens: 7,
        output_tokens: 1,
        cost: MicroUsd(70),
    });
    usage::insert(&db, &[fallen_over]).await.unwrap();
    let by_provider: Vec<(String, i64, i64)> = sqlx::query_as(
        "SELECT provider, requests, cost_micro_usd FROM usage_aggregates ORDER BY provider",
    )
    .fetch_all(&db)
    .await
    .unwrap();
    assert_eq!(
        by_provider,
        [
            ("bedrock".to_owned(), 1, 330),
            ("plan".to_owned(), 5, 5 * 330 + 70)
        ],
        "an abandoned attempt is paid to whom it was made at"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn usage_of_a_key_that_is_gone_is_kept_without_it(db: PgPool) {
    let gone = record(Uuid::new_v4(), Uuid::new_v4(), Utc::now());
    assert_eq!(
        usage::insert(&db, std::slice::from_ref(&gone))
            .await
            .unwrap(),
        1
    );
    let (key, name): (Option<Uuid>, String) =
        sqlx::query_as("SELECT access_key_id, key_name FROM token_usages")
            .fetch_one(&db)
            .await
            .unwrap();
    assert_eq!((key, name.as_str()), (None, "laptop"));
    usage::reject(&db, &gone, "why").await.unwrap();
    usage::reject(&db, &gone, "why").await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_row_is_refused_for_what_is_in_it_and_for_nothing_else(db: PgPool) {
    let records = [record(Uuid::new_v4(), Uuid::new_v4(), Utc::now())];
    for (broken, mended, refused) in [
        (
            "ALTER TABLE token_usages ADD CONSTRAINT picky CHECK (input_tokens < 0)",
            "ALTER TABLE token_usages DROP CONSTRAINT picky",
            true,
        ),
        (
            "ALTER TABLE token_usages RENAME TO moved",
            "ALTER TABLE moved RENAME TO token_usages",
            false,
        ),
        (
            "ALTER TABLE token_usages RENAME model TO moved",
            "ALTER TABLE token_usages RENAME moved TO model",
            false,
        ),
    ] {
        sqlx::raw_sql(broken).execute(&db).await.unwrap();
        let error = usage::insert(&db, &records).await.unwrap_err();
        assert_eq!(error.is_row_refused(), refused, "{error}");
        assert!(!error.is_unavailable(), "{error}");
        sqlx::raw_sql(mended).execute(&db).await.unwrap();
    }
    assert_eq!(usage::insert(&db, &records).await.unwrap(), 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_server_that_does_not_answer_in_time_is_hung_up_on(db: PgPool) {
    let records = [record(Uuid::new_v4(), Uuid::new_v4(), Utc::now())];
    let mut lock = db.begin().await.unwrap();
    sqlx::raw_sql("LOCK TABLE token_usages")
        .execute(&mut *lock)
        .await
        .unwrap();
    let before = db.size();
    let patience = Duration::from_millis(100);
    let error = usage::insert_within(patience, &db, &records)
        .await
        .unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert!(db.size() <= before, "its connection is gone");
    lock.rollback().await.unwrap();
    usage::insert(&db, &records).await.unwrap();
    let stored: i64 = sqlx::query_scalar("SELECT count(*) FROM token_usages")
        .fetch_one(&db)
        .await
        .unwrap();
    assert_eq!(stored, 1);
}
