use super::*;
use crate::metering::record::tests::record;

async fn stored(spool: &Spool) -> Vec<UsageRecord> {
    spool
        .closed(100)
        .await
        .unwrap()
        .iter()
        .map(|row| serde_json::from_slice(&row.json).unwrap())
        .collect()
}

#[tokio::test]
async fn a_record_is_read_back_once_it_is_closed_and_gone_once_removed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let (opened, mut closed) = (record(), record());
    closed.http_status = 201;
    let slot = spool.begin(&opened).await.unwrap();
    assert!(stored(&spool).await.is_empty());
    spool.close(&slot, &closed).unwrap().await;
    spool.wait_for_closed().await;
    assert_eq!(stored(&spool).await, [closed]);
    let seqs = spool
        .closed(100)
        .await
        .unwrap()
        .iter()
        .map(|row| row.seq)
        .collect();
    spool.remove(seqs).await;
    assert_eq!((stored(&spool).await.len(), spool.records()), (0, 0));
}

#[tokio::test]
async fn what_was_open_when_the_process_ended_comes_back_closed() {
    let dir = tempfile::tempdir().unwrap();
    let opened = record();
    {
        let spool = Spool::open(dir.path(), 10).unwrap();
        spool.begin(&opened).await.unwrap();
        let slot = spool.begin(&opened).await.unwrap();
        drop(spool.close(&slot, &opened).unwrap());
    }
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert_eq!(stored(&spool).await, [opened.clone(), opened]);
    assert_eq!(spool.records(), 2);
}

#[tokio::test]
async fn a_full_spool_refuses_and_takes_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1).unwrap();
    let slot = spool.begin(&record()).await.unwrap();
    assert!(matches!(
        spool.begin(&record()).await,
        Err(SpoolError::Full)
    ));
    assert!(spool.is_blocked());
    spool.close(&slot, &record()).unwrap().await;
    spool.remove(vec![slot.0]).await;
    assert!(!spool.is_blocked());
    spool.begin(&record()).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_before_its_record_is_written_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let record = record();
    // Nobody writes while another connection does.
    let other = Connection::open(dir.path().join("spool.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    {
        let mut begin = std::pin::pin!(spool.begin(&record));
        assert!(futures::poll!(&mut begin).is_pending());
    }
    other.execute_batch("ROLLBACK").unwrap();
    spool.remove(Vec::new()).await;
    assert_eq!(spool.records(), 0);
    drop(spool);
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert!(stored(&spool).await.is_empty());
}

#[tokio::test]
async fn one_folder_serves_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1).unwrap();
    let refused = Spool::open(dir.path(), 1).unwrap_err();
    assert!(matches!(refused, SpoolError::Locked { .. }), "{refused}");
    assert!(
        refused.to_string().starts_with("PROXY_SPOOL_DIR"),
        "{refused}"
    );
    drop(spool);
    Spool::open(dir.path(), 1).unwrap();
}

#[tokio::test]
async fn a_damaged_file_is_put_aside() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(
        dir.path().join("spool.db"),
        "this is not a database, whatever its name says".repeat(100),
    )
    .unwrap();
    let spool = Spool::open(dir.path(), 1).unwrap();
    spool.begin(&record()).await.unwrap();
    let names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(
        names
            .iter()
            .any(|name| name.starts_with("spool.db.damaged-")),
        "{names:?}"
    );
}

#[tokio::test]
async fn many_at_once_are_all_kept() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Arc::new(Spool::open(dir.path(), 10_000).unwrap());
    let tasks: Vec<_> = (0..500)
        .map(|_| {
            let spool = Arc::clone(&spool);
            tokio::spawn(async move {
                let slot = spool.begin(&record()).await.unwrap();
                spool.close(&slot, &record()).unwrap().await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(spool.closed(1000).await.unwrap().len(), 500);
}

#[tokio::test]
async fn while_nothing_can_be_written_a_removal_waits_and_the_count_stays_right() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let mut seqs = Vec::new();
    for _ in 0..2 {
        let slot = spool.begin(&record()).await.unwrap();
        spool.close(&slot, &record()).unwrap().await;
        seqs.push(slot.0);
    }
    let other = Connection::open(dir.path().join("spool.db")).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER stuck BEFORE DELETE ON records BEGIN SELECT RAISE(ABORT, 'stuck'); END",
        )
        .unwrap();
    let mut first = std::pin::pin!(spool.remove(seqs.clone()));
    assert!(futures::poll!(&mut first).is_pending());
    while !spool.is_blocked() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert!(
        futures::poll!(&mut first).is_pending(),
        "who goes on would send the records again"
    );
    assert!(matches!(
        spool.begin(&record()).await,
        Err(SpoolError::Unwritable)
    ));
    assert_eq!(spool.records(), 2);
    let second = spool.remove(seqs);
    other.execute_batch("DROP TRIGGER stuck").unwrap();
    tokio::join!(first, second);
    assert_eq!((spool.records(), spool.is_blocked()), (0, false));
    spool.begin(&record()).await.unwrap();
}

#[tokio::test]
async fn a_log_that_has_grown_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 100).unwrap();
    let mut large = record();
    large.user_name = "x".repeat(1024 * 1024);
    for _ in 0..18 {
        spool.begin(&large).await.unwrap();
    }
    let length = || fs::metadata(dir.path().join("spool.db-wal")).unwrap().len();
    assert!(length() > 16 * 1024 * 1024);
    spool.tidy().await;
    // The writer takes its commands in order.
    spool.begin(&record()).await.unwrap();
    spool.remove(Vec::new()).await;
    assert!(length() < 1024 * 1024, "{}", length());
}
