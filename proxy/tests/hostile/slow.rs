//! Clients that keep others waiting.

use std::time::{Duration, Instant};

use crate::support::{World, message, within};
use crate::upstream::{RawUpstream, Told, head};
use crate::wire::{Wire, find, post, request};
use crate::{assert_bounded, assert_serves};

#[tokio::test]
async fn hundreds_of_slow_clients_cost_little_and_stop_nobody() {
    let world = World::create().await;
    let proxy = world.start().await;
    let key = world.key.expose();
    let half_head = post(key);
    let half_body = format!("{half_head}content-length: 31000000\r\n\r\n{{\"model\":");
    let mut held = Vec::new();
    for _ in 0..150 {
        for begun in ["", "P", half_head.as_str(), half_body.as_str()] {
            let mut wire = Wire::open(&proxy).await;
            wire.send(begun).await;
            held.push(wire);
        }
    }
    for round in 0..5 {
        let began = Instant::now();
        assert_serves(&world, &proxy, "slow clients").await;
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "{:?}",
            began.elapsed()
        );
        for (at, wire) in held.iter_mut().enumerate() {
            match at % 4 {
                2 => assert!(wire.send(format!("x-{round}: y\r\n")).await),
                3 => assert!(wire.send(" ").await),
                _ => {}
            }
        }
    }
    // What is declared is not set aside before it comes.
    assert_bounded(&proxy, 64, "600 slow clients");
    drop(held);
    let until = Instant::now() + within();
    while proxy.metric("spillway_body_bytes").await != Some(0.0) {
        assert!(
            Instant::now() < until,
            "bodies of clients that left are kept"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_serves(&world, &proxy, "they left").await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_stops_its_upstream_and_is_metered_when_it_leaves() {
    let upstream = RawUpstream::start().await;
    let world = World::create_with(|fakes| fakes.plan_url.clone_from(&upstream.url)).await;
    let proxy = world.start().await;
    let delta = format!(
        "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{}\"}}}}\n\n",
        "x".repeat(4000)
    );
    upstream.next(Told::endless(head("text/event-stream"), delta.repeat(16)));
    let sent = request(
        world.key.expose(),
        message("go on", true).to_string().as_bytes(),
    );
    let mut wire = Wire::open(&proxy).await;
    wire.send(sent).await;
    wire.until(|read| find(read, b"content_block_delta"))
        .await
        .unwrap();
    // From here on nothing is read. Everything in between fills up, and then nothing moves.
    let mut before = 0;
    let until = Instant::now() + within();
    while upstream.sent() != before {
        assert!(Instant::now() < until, "{before} bytes and no end");
        before = upstream.sent();
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    println!("{before} bytes were taken from the upstream");
    assert!(
        before < 32 * 1024 * 1024,
        "{before}: more than the sockets hold"
    );
    assert_bounded(&proxy, 16, "a client that reads nothing");
    drop(wire);
    let row = world.rows(1).await.remove(0);
    assert_eq!(
        (row.status.as_str(), row.estimated),
        ("client_aborted", true)
    );
    assert!(row.output_tokens > 0);
}
