use std::io::Write as _;
use std::os::unix::fs::FileExt as _;

use super::*;
use crate::metering::record::tests::record;

async fn stored(spool: &Spool) -> Vec<UsageRecord> {
    spool
        .closed(10_000)
        .await
        .unwrap()
        .iter()
        .map(|row| {
            row.record
                .clone()
                .unwrap_or_else(|| serde_json::from_slice(&row.json).unwrap())
        })
        .collect()
}

async fn numbers(spool: &Spool) -> Vec<u64> {
    let stored = spool.closed(10_000).await.unwrap();
    stored.iter().map(|row| row.number).collect()
}

/// A record so long that a hundred of them fill several segments.
fn long() -> UsageRecord {
    let mut record = record();
    record.user_name = "x".repeat(200_000);
    record
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "usage")
        })
        .collect();
    files.sort();
    files
}

async fn until_empty(spool: &Spool) {
    let emptied = async {
        while spool.records() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let emptied = tokio::time::timeout(Duration::from_secs(10), emptied).await;
    assert!(emptied.is_ok(), "{} records stay", spool.records());
}

/// Makes every append fail until the returned file is put back, as a full disk would.
fn break_disk(spool: &Spool) -> Log {
    let nowhere = tempfile::tempdir().unwrap();
    let mut broken = Log::begin(nowhere.path(), 1).unwrap();
    broken.refuse_writes();
    std::mem::replace(&mut spool.shared.log.lock().log, broken)
}

#[tokio::test]
async fn a_record_is_read_back_once_it_is_closed_and_gone_once_removed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let (opened, mut closed) = (record(), record());
    closed.http_status = 201;
    let slot = spool.begin(&opened).await.unwrap();
    assert!(stored(&spool).await.is_empty());
    spool.close(&slot, closed.clone()).unwrap().await;
    spool.wait_for_closed().await;
    assert_eq!(stored(&spool).await, std::slice::from_ref(&closed));
    assert_eq!(stored(&spool).await, [closed], "until it is removed");
    spool.remove(numbers(&spool).await).await;
    assert_eq!((stored(&spool).await.len(), spool.records()), (0, 0));
}

#[tokio::test]
async fn what_was_open_when_the_process_ended_comes_back_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (opened, mut closed) = (record(), record());
    closed.http_status = 201;
    {
        let spool = Spool::open(dir.path(), 10).unwrap();
        spool.begin(&opened).await.unwrap();
        let slot = spool.begin(&opened).await.unwrap();
        drop(spool.close(&slot, closed.clone()).unwrap());
    }
    for _ in 0..2 {
        let spool = Spool::open(dir.path(), 10).unwrap();
        assert_eq!(stored(&spool).await, [opened.clone(), closed.clone()]);
        assert_eq!(spool.records(), 2);
    }
    let spool = Spool::open(dir.path(), 10).unwrap();
    spool.remove(numbers(&spool).await).await;
    assert_eq!((spool.records(), files(dir.path()).len()), (0, 1));
    drop(spool);
    assert!(
        stored(&Spool::open(dir.path(), 10).unwrap())
            .await
            .is_empty()
    );
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
    spool.close(&slot, record()).unwrap().await;
    spool.remove(numbers(&spool).await).await;
    assert!(!spool.is_blocked());
    spool.begin(&record()).await.unwrap();
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the lock stands for the disk")]
async fn a_client_that_leaves_while_the_disk_stalls_leaves_no_record() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let record = record();
    spool.shared.stalled.store(true, Ordering::Relaxed);
    let stalled = spool.shared.log.lock();
    {
        let mut begin = std::pin::pin!(spool.begin(&record));
        assert!(futures::poll!(&mut begin).is_pending());
    }
    drop(stalled);
    until_empty(&spool).await;
    drop(spool);
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert!(stored(&spool).await.is_empty());
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the lock stands for the disk")]
async fn a_client_that_leaves_when_its_record_was_just_written_leaves_none() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let record = record();
    spool.shared.stalled.store(true, Ordering::Relaxed);
    let stalled = spool.shared.log.lock();
    {
        let mut begin = std::pin::pin!(spool.begin(&record));
        assert!(futures::poll!(&mut begin).is_pending());
        drop(stalled);
        while spool.shared.stalled.load(Ordering::Relaxed) || spool.shared.waiting.lock().is_served
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(spool.records(), 1, "written, and told to nobody yet");
    }
    until_empty(&spool).await;
    drop(spool);
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert!(stored(&spool).await.is_empty());
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the lock stands for the disk")]
async fn a_thread_that_meets_a_stall_hands_over_and_one_thread_waits_for_all() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let slots = [
        spool.begin(&record()).await.unwrap(),
        spool.begin(&record()).await.unwrap(),
    ];
    let stalled = spool.shared.log.lock();
    let mut closings = slots.map(|slot| spool.close(&slot, record()).unwrap());
    for closing in &mut closings {
        assert!(futures::poll!(closing).is_pending());
    }
    let waiting = || spool.shared.waiting.lock().appends.len();
    while waiting() > 1 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(waiting(), 1, "no second thread takes it");
    drop(stalled);
    for closing in closings {
        closing.await;
    }
    assert_eq!(stored(&spool).await.len(), 2);
}

#[tokio::test]
#[expect(clippy::await_holding_lock, reason = "the lock stands for the disk")]
async fn while_the_disk_stalls_nobody_is_held_up_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let slot = spool.begin(&record()).await.unwrap();
    spool.shared.stalled.store(true, Ordering::Relaxed);
    let stalled = spool.shared.log.lock();
    let mut closing = spool.close(&slot, record()).unwrap();
    assert!(futures::poll!(&mut closing).is_pending());
    drop(stalled);
    closing.await;
    assert_eq!(stored(&spool).await.len(), 1);
    assert!(
        !spool.shared.stalled.load(Ordering::Relaxed),
        "an append was fast again"
    );
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
async fn a_damaged_file_gives_what_is_before_the_damage_and_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    {
        let spool = Spool::open(dir.path(), 10).unwrap();
        for _ in 0..2 {
            let slot = spool.begin(&record()).await.unwrap();
            spool.close(&slot, record()).unwrap().await;
        }
    }
    let file = files(dir.path()).remove(0);
    let length = fs::metadata(&file).unwrap().len();
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .write_all_at(b"?", length - 5)
        .unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert_eq!(stored(&spool).await.len(), 2, "the second as it was opened");
    assert!(file.with_extension("damaged").exists());
    spool.begin(&record()).await.unwrap();
}

#[tokio::test]
async fn a_record_that_was_not_written_to_its_end_counts_as_not_written() {
    let dir = tempfile::tempdir().unwrap();
    {
        let spool = Spool::open(dir.path(), 10).unwrap();
        let slot = spool.begin(&record()).await.unwrap();
        spool.close(&slot, record()).unwrap().await;
        spool.begin(&record()).await.unwrap();
    }
    let file = files(dir.path()).remove(0);
    let length = fs::metadata(&file).unwrap().len();
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_len(length - 3)
        .unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert_eq!((stored(&spool).await.len(), spool.records()), (1, 1));
    assert!(!file.with_extension("damaged").exists());
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
                spool.close(&slot, record()).unwrap().await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(spool.closed(1000).await.unwrap().len(), 500);
}

#[tokio::test]
async fn what_ended_while_nothing_could_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let slot = spool.begin(&record()).await.unwrap();
    let log = break_disk(&spool);
    spool.close(&slot, record()).unwrap().await;
    assert!(spool.is_blocked());
    assert!(matches!(
        spool.begin(&record()).await,
        Err(SpoolError::Unwritable)
    ));
    spool.heal().await;
    assert!(spool.is_blocked(), "the disk still fails");
    assert_eq!(spool.records(), 1);
    spool.shared.log.lock().log = log;
    spool.heal().await;
    assert!(!spool.is_blocked());
    assert_eq!((stored(&spool).await.len(), spool.records()), (1, 1));
    spool.begin(&record()).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_written_is_sent_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    let (first, second) = (
        spool.begin(&record()).await.unwrap(),
        spool.begin(&record()).await.unwrap(),
    );
    let log = break_disk(&spool);
    let mut closed = record();
    closed.http_status = 201;
    spool.close(&first, closed.clone()).unwrap().await;
    spool.close(&second, closed.clone()).unwrap().await;
    for _ in 0..2 {
        assert_eq!(stored(&spool).await, [closed.clone(), closed.clone()]);
    }
    assert_eq!(spool.closed(1).await.unwrap().len(), 1);
    let first = numbers(&spool).await[0];
    spool.remove(vec![first]).await;
    assert_eq!((numbers(&spool).await.len(), spool.records()), (1, 1));
    spool.shared.log.lock().log = log;
    spool.heal().await;
    assert_eq!(
        stored(&spool).await,
        [closed],
        "what was sent is not written any more"
    );
}

#[tokio::test]
async fn a_damaged_file_that_cannot_be_kept_aside_stops_no_start() {
    let dir = tempfile::tempdir().unwrap();
    {
        let spool = Spool::open(dir.path(), 10).unwrap();
        let slot = spool.begin(&record()).await.unwrap();
        spool.close(&slot, record()).unwrap().await;
    }
    let file = files(dir.path()).remove(0);
    let damaged = File::options().append(true).open(&file).unwrap();
    (&damaged).write_all(&[0xff; 64]).unwrap();
    // A folder of that name stands for a disk without room.
    fs::create_dir(file.with_extension("damaged")).unwrap();
    let spool = Spool::open(dir.path(), 10).unwrap();
    assert_eq!(stored(&spool).await.len(), 1);
}

#[tokio::test]
async fn files_go_when_nothing_in_them_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1000).unwrap();
    let first = spool.begin(&record()).await.unwrap();
    for _ in 0..50 {
        let slot = spool.begin(&long()).await.unwrap();
        spool.close(&slot, long()).unwrap().await;
    }
    let before = files(dir.path()).len();
    assert!(before > 3, "{before}");
    spool.remove(numbers(&spool).await).await;
    assert_eq!(
        files(dir.path()).len(),
        2,
        "the one with the open record, and the one in use"
    );
    spool.close(&first, record()).unwrap().await;
    spool.remove(numbers(&spool).await).await;
    assert_eq!((files(dir.path()).len(), spool.records()), (1, 0));
}

#[tokio::test]
async fn a_backlog_is_given_in_parts_of_any_size() {
    let dir = tempfile::tempdir().unwrap();
    let spool = Spool::open(dir.path(), 1000).unwrap();
    for _ in 0..60 {
        let slot = spool.begin(&long()).await.unwrap();
        spool.close(&slot, long()).unwrap().await;
    }
    let mut given = Vec::new();
    loop {
        let part = spool.closed(7).await.unwrap();
        if part.is_empty() {
            break;
        }
        assert!(part.len() <= 7);
        // One of them is refused and comes again.
        let removed: Vec<u64> = part
            .iter()
            .map(|row| row.number)
            .skip(usize::from(part.len() > 1))
            .collect();
        given.extend(removed.clone());
        spool.remove(removed).await;
    }
    given.sort_unstable();
    assert_eq!(given, (1..=60).collect::<Vec<u64>>());
}
