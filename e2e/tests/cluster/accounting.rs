//! One row for each request, whatever is killed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use spillway_e2e::upstream::{Kind, Point, Rule, Script, When};
use tokio::task::JoinSet;

use crate::support::message::Answer;
use crate::support::{Tenant, World, eventually};

/// Streams that stand still while the process is killed.
const HELD: usize = 4;
/// Clients that ask one request after the other meanwhile.
const CLIENTS: usize = 4;

pub async fn killed(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "killed", 1).await;
    let held = Script::text("half a story that never ends").hold(Point::Deltas(1), "held");
    let marked = When {
        body_contains: Some("hold me".to_owned()),
        ..When::default()
    };
    tenant.fakes.push(Rule::forever(held).when(marked)).await;

    let proxy = tenant.proxies().await.remove(0);
    let mut streams = JoinSet::new();
    for _ in 0..HELD {
        let (world, proxy, token) = (Arc::clone(&world), proxy.clone(), key.token.clone());
        streams.spawn(async move { world.try_ask(&proxy, &token, "hold me", true).await });
    }
    tenant.fakes.wait_held("held", HELD).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = JoinSet::new();
    for client in 0..CLIENTS {
        let (world, proxy, token, stop) = (
            Arc::clone(&world),
            proxy.clone(),
            key.token.clone(),
            Arc::clone(&stop),
        );
        load.spawn(async move {
            let mut answers = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                answers.push(
                    world
                        .try_ask(&proxy, &token, "hello", client % 2 == 0)
                        .await,
                );
                if answers
                    .last()
                    .is_some_and(|last| last.as_ref().map_or(true, |answer| !answer.is_complete()))
                {
                    break;
                }
            }
            answers
        });
    }
    tenant.usage(20).await;
    let pod = tenant.proxy_pods().await.remove(0);
    world.kill(&pod).await;
    stop.store(true, Ordering::Relaxed);
    let answers: Vec<Result<Answer, reqwest::Error>> =
        load.join_all().await.into_iter().flatten().collect();
    let held = streams.join_all().await;
    assert!(
        held.iter()
            .all(|stream| stream.as_ref().map_or(true, |answer| !answer.is_complete())),
        "the streams were cut"
    );
    world.restarted(&pod).await;

    // The spool is replayed at once; afterwards nothing is left to be written.
    let asked = tenant.fakes.generated(Kind::Plan).await.len();
    let rows = eventually(
        "every request that reached an upstream has its row",
        async || {
            let rows = world.usage("killed").await;
            if rows.len() < asked {
                Err(format!("{} of {asked}", rows.len()))
            } else {
                Ok(rows)
            }
        },
    )
    .await;
    let mut written: HashMap<_, usize> = HashMap::new();
    for id in rows
        .iter()
        .filter_map(|row| row.upstream_request_id.as_ref())
    {
        *written.entry(id.as_str()).or_default() += 1;
    }
    assert!(
        written.values().all(|count| *count == 1),
        "a request has two rows"
    );
    let complete: Vec<_> = answers
        .iter()
        .flatten()
        .filter(|answer| answer.is_complete())
        .collect();
    assert!(!complete.is_empty());
    let status: HashMap<_, _> = rows
        .iter()
        .map(|row| (row.upstream_request_id.as_deref(), row.status.as_str()))
        .collect();
    for answer in &complete {
        assert_eq!(
            status.get(&Some(answer.request_id.as_str())),
            Some(&"ok"),
            "an answered request has its row: {answer:?}"
        );
    }
    let interrupted: Vec<_> = rows
        .iter()
        .filter(|row| row.status == "interrupted")
        .collect();
    let cut = answers.len() - complete.len();
    println!(
        "    {} answered, {HELD} streams and {cut} other requests cut off, {} interrupted rows",
        complete.len(),
        interrupted.len()
    );
    assert!(
        (HELD..=HELD + cut).contains(&interrupted.len()),
        "{} interrupted rows, {cut} requests cut",
        interrupted.len()
    );
    assert!(
        interrupted.iter().all(|row| row.estimated),
        "what was not counted is marked as estimated"
    );
    let statuses: HashSet<_> = rows.iter().map(|row| row.status.as_str()).collect();
    assert!(
        statuses.is_subset(&["ok", "interrupted"].into()),
        "{statuses:?}"
    );
}
