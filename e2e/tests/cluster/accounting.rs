//! One row for each request, whatever is killed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spillway_e2e::upstream::{Kind, Point, Rule, Script, When};
use tokio::task::JoinSet;

use crate::support::database::UsageRow;
use crate::support::message::Answer;
use crate::support::tenant::Key;
use crate::support::{Tenant, World};

/// Streams that stand still while the process is killed.
const HELD: usize = 4;
/// Clients that ask one request after the other meanwhile.
const CLIENTS: usize = 4;

type Asked = Result<Answer, reqwest::Error>;

pub async fn killed(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "killed", 1).await;
    let own = Key {
        base: tenant.proxies().await.remove(0),
        ..key
    };
    let streams = hold_streams(&tenant, &own).await;
    let stop = Arc::new(AtomicBool::new(false));
    let load = load(&world, &own, &stop);
    tenant.usage(20).await;
    let pod = tenant.proxy_pods().await.remove(0);
    world.kill(&pod).await;
    stop.store(true, Ordering::Relaxed);
    let answers: Vec<Asked> = load.join_all().await.into_iter().flatten().collect();
    let held = streams.join_all().await;
    assert!(held.iter().all(is_cut), "the streams were cut");
    world.restarted(&pod).await;

    // The spool is replayed at once; afterwards nothing is left to be written.
    let asked = tenant.fakes.generated(Kind::Plan).await.len();
    let rows = tenant.usage(asked).await;
    let complete: Vec<_> = answers
        .iter()
        .flatten()
        .filter(|answer| answer.is_complete())
        .collect();
    assert!(!complete.is_empty());
    answered_have_one_row(&complete, &rows);
    let cut = answers.len() - complete.len();
    let interrupted: Vec<_> = rows
        .iter()
        .filter(|row| row.status == "interrupted")
        .collect();
    println!(
        "    {} answered, {HELD} streams and {cut} other requests cut off, {} interrupted rows",
        complete.len(),
        interrupted.len()
    );
    assert!(
        (HELD..=HELD + cut).contains(&interrupted.len()),
        "{} rows for {cut} requests",
        interrupted.len()
    );
    assert!(
        interrupted.iter().all(|row| row.estimated),
        "what was not counted is marked as estimated"
    );
    assert!(
        rows.iter()
            .all(|row| ["ok", "interrupted"].contains(&row.status.as_str())),
        "{rows:?}"
    );
}

/// Begins streams that stand still after their first content.
async fn hold_streams(tenant: &Tenant, key: &Key) -> JoinSet<Asked> {
    let held = Script::text("half a story that never ends").hold(Point::Deltas(1), "held");
    let marked = When {
        body_contains: Some("hold me".to_owned()),
        ..When::default()
    };
    tenant.fakes.push(Rule::forever(held).when(marked)).await;
    let mut streams = JoinSet::new();
    for _ in 0..HELD {
        let (world, key) = (Arc::clone(&tenant.world), key.clone());
        streams.spawn(async move { world.try_ask(&key.base, &key.token, "hold me", true).await });
    }
    tenant.fakes.wait_held("held", HELD).await;
    streams
}

/// Clients that ask until they are told to stop, or are cut off.
fn load(world: &Arc<World>, key: &Key, stop: &Arc<AtomicBool>) -> JoinSet<Vec<Asked>> {
    let mut load = JoinSet::new();
    for client in 0..CLIENTS {
        let (world, key, stop) = (Arc::clone(world), key.clone(), Arc::clone(stop));
        load.spawn(async move {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) && !answers.last().is_some_and(is_cut) {
                answers.push(
                    world
                        .try_ask(&key.base, &key.token, "hello", client % 2 == 0)
                        .await,
                );
            }
            answers
        });
    }
    load
}

fn is_cut(asked: &Asked) -> bool {
    !asked.as_ref().is_ok_and(Answer::is_complete)
}

fn answered_have_one_row(complete: &[&Answer], rows: &[UsageRow]) {
    let mut written: HashMap<&str, Vec<&str>> = HashMap::new();
    for row in rows {
        if let Some(id) = &row.upstream_request_id {
            written.entry(id).or_default().push(&row.status);
        }
    }
    assert!(
        written.values().all(|rows| rows.len() == 1),
        "a request has two rows: {written:?}"
    );
    for answer in complete {
        assert_eq!(
            written.get(answer.request_id.as_str()),
            Some(&vec!["ok"]),
            "the row of {answer:?}"
        );
    }
}
