//! Circuits that pods share: what one found, all honour; one probes for all; nothing is forgotten, and nothing waits for Postgres.

#![allow(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

mod support;

use std::time::{Duration, Instant};

use spillway_core::repository::circuits;
use spillway_e2e::upstream::{Failure, Point, Script};
use support::{Proxy, Settings, World, client, message, send, within};
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// A pod with a folder of its own.
struct Pod {
    proxy: Proxy,
    dir: TempDir,
    reset_timeout: &'static str,
}

impl Pod {
    async fn start(world: &World, reset_timeout: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let proxy = Self::spawn(world, &dir, reset_timeout).await;
        Self {
            proxy,
            dir,
            reset_timeout,
        }
    }

    async fn spawn(world: &World, dir: &TempDir, reset_timeout: &str) -> Proxy {
        let mut proxy = Proxy::spawn(&Settings {
            database_url: &world.postgres.url(),
            plan_url: &world.fakes.plan_url,
            bedrock_url: &world.fakes.bedrock_url,
            dir: dir.path(),
            extra: &[
                ("PROXY_CIRCUIT_FAILURE_THRESHOLD", "2"),
                ("PROXY_CIRCUIT_RESET_TIMEOUT", reset_timeout),
            ],
        });
        proxy.ready().await;
        proxy
    }

    /// Kills it and starts it again on the same folder.
    async fn restart(&mut self, world: &World) {
        self.proxy.kill();
        self.proxy = Self::spawn(world, &self.dir, self.reset_timeout).await;
    }

    /// Sends a message that has to be answered.
    async fn send(&self, world: &World) {
        let response = send(&self.proxy, world.key.expose(), &message("hello", true)).await;
        assert_eq!(response.status(), 200, "{}", self.proxy.log());
        response.text().await.unwrap();
    }

    /// What `/metrics` says of circuits, as model and state.
    async fn circuits(&self) -> Vec<(String, f64)> {
        let (_, text) = self.proxy.admin("/metrics").await.unwrap();
        let of = |line: &str| {
            let rest = line.strip_prefix("spillway_circuit_state{")?;
            let (labels, value) = rest.split_once("} ")?;
            let model = labels.split("model=\"").nth(1)?.strip_suffix('"')?;
            Some((model.to_owned(), value.parse().ok()?))
        };
        text.lines().filter_map(of).collect()
    }

    /// Sends messages until one of them is at the Plan's `gate`, and gives that. Others were answered from Bedrock, for a busy
    /// machine may be slow to grant a probe.
    async fn probe(
        &self,
        world: &World,
        gate: &str,
    ) -> JoinHandle<reqwest::Result<reqwest::Response>> {
        let began = Instant::now();
        loop {
            let request = client()
                .post(format!("{}/v1/messages", self.proxy.url()))
                .header("x-api-key", world.key.expose())
                .json(&message("probe", true));
            let mut request = tokio::spawn(request.send());
            tokio::select! {
                held = world.fakes.gates.wait_held(gate, 1, within()) => {
                    assert!(held, "{}", self.warnings());
                    return request;
                }
                answered = &mut request => assert_eq!(answered.unwrap().unwrap().status(), 200),
            }
            assert!(began.elapsed() < within(), "{}", self.warnings());
        }
    }

    /// What it complained about.
    fn warnings(&self) -> String {
        let log = self.proxy.log();
        let warnings = log.lines().filter(|line| line.contains("\"WARN\""));
        warnings.collect::<Vec<_>>().join("\n")
    }

    /// Waits until the only circuit is in this state (0: there is none), and says how long that took.
    async fn until_state(&self, wanted: u8) -> Duration {
        let began = Instant::now();
        loop {
            let circuits = self.circuits().await;
            let is_wanted = match circuits.as_slice() {
                [] => wanted == 0,
                [(_, state)] => (*state - f64::from(wanted)).abs() < 0.1,
                _ => false,
            };
            if is_wanted {
                return began.elapsed();
            }
            assert!(
                began.elapsed() < within(),
                "{circuits:?} instead of {wanted}: {}",
                self.proxy.log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Two pods of one pool, and an open circuit that the first one found.
async fn opened(reset_timeout: &'static str) -> (World, Pod, Pod) {
    let world = World::create().await;
    let one = Pod::start(&world, reset_timeout).await;
    let two = Pod::start(&world, reset_timeout).await;
    fail_twice(&world, &one).await;
    (world, one, two)
}

async fn fail_twice(world: &World, pod: &Pod) {
    let before = world.fakes.plan.request_count();
    for _ in 0..2 {
        world.fakes.plan.next(Failure::status(529));
        pod.send(world).await;
    }
    assert_eq!(world.fakes.plan.request_count(), before + 2);
}

#[tokio::test]
async fn what_one_pod_opens_all_honour_within_a_second_and_a_reset_closes_it_everywhere() {
    let (world, one, two) = opened("1800").await;
    one.until_state(2).await;
    let took = two.until_state(2).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
    for pod in [&one, &two, &two] {
        pod.send(&world).await;
    }
    assert_eq!(
        world.fakes.plan.request_count(),
        2,
        "the Plan is left alone"
    );

    let mut connection = world.tenant.database.acquire().await.unwrap();
    let closed = circuits::reset(&mut connection, world.tenant.pool_id(), "1").await;
    assert_eq!(closed.unwrap(), 1);
    for pod in [&one, &two] {
        let took = pod.until_state(0).await;
        assert!(took < Duration::from_secs(2), "{took:?}");
        pod.send(&world).await;
    }
    assert_eq!(world.fakes.plan.request_count(), 4, "both ask it again");
}

#[tokio::test]
async fn one_pod_probes_for_all_and_its_success_closes_it_everywhere() {
    let (world, one, two) = opened("1").await;
    for pod in [&one, &two] {
        pod.until_state(1).await;
    }
    // It is asked for a while, so that whoever is asked meanwhile could see it.
    let script = Script::text("well again").hold(Point::Headers, "probe");
    world.fakes.plan.always(script);
    let probe = one.probe(&world, "probe").await;
    for pod in [&two, &one, &two] {
        pod.send(&world).await;
    }
    assert_eq!(
        world.fakes.plan.request_count(),
        3,
        "one probe: {}",
        two.warnings()
    );
    world.fakes.gates.release("probe");
    let answer = probe.await.unwrap().unwrap().text().await.unwrap();
    assert!(answer.contains("well again"), "{answer}");
    for pod in [&one, &two] {
        pod.until_state(0).await;
        pod.send(&world).await;
    }
    assert_eq!(world.fakes.plan.request_count(), 5);
}

#[tokio::test]
async fn a_postgres_that_is_slow_to_grant_the_probe_delays_nobody_and_makes_nobody_probe_without_it()
 {
    let (world, one, two) = opened("1").await;
    for pod in [&one, &two] {
        pod.until_state(1).await;
    }
    let mut slow = world.tenant.database.begin().await.unwrap();
    sqlx::query("SELECT FROM circuit_states FOR UPDATE")
        .fetch_one(&mut *slow)
        .await
        .unwrap();
    for pod in [&one, &two, &one] {
        let began = Instant::now();
        pod.send(&world).await;
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{took:?}");
    }
    assert_eq!(world.fakes.plan.request_count(), 2, "{}", one.warnings());
    slow.rollback().await.unwrap();
    let began = Instant::now();
    while world.fakes.plan.request_count() == 2 {
        two.send(&world).await;
        assert!(began.elapsed() < within(), "{}", two.warnings());
    }
    for pod in [&one, &two] {
        pod.until_state(0).await;
    }
}

#[tokio::test]
async fn a_probe_whose_client_leaves_is_another_pods_to_make() {
    let (world, one, two) = opened("1").await;
    for pod in [&one, &two] {
        pod.until_state(1).await;
    }
    world
        .fakes
        .plan
        .next(Script::text("never read").hold(Point::Headers, "left"));
    let probe = one.probe(&world, "left").await;
    two.send(&world).await;
    assert_eq!(world.fakes.plan.request_count(), 3);
    probe.abort();
    let began = Instant::now();
    while world.fakes.plan.request_count() == 3 {
        two.send(&world).await;
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "the claim is not given back: {}",
            one.proxy.log()
        );
    }
    for pod in [&one, &two] {
        pod.until_state(0).await;
    }
}

#[tokio::test]
async fn a_refused_key_is_left_alone_for_every_model_on_every_pod_and_a_failed_probe_opens_it_again()
 {
    let world = World::create().await;
    let one = Pod::start(&world, "2").await;
    let two = Pod::start(&world, "2").await;
    world.fakes.plan.next(Failure::credit_balance());
    one.send(&world).await;
    two.until_state(2).await;
    assert_eq!(two.circuits().await[0].0, "all");
    let mut other = message("another model", false);
    other["model"] = "claude-opus-4-5".into();
    let answer = send(&two.proxy, world.key.expose(), &other).await;
    assert_eq!(answer.status(), 200);
    assert_eq!(world.fakes.plan.request_count(), 1);
    two.until_state(1).await;
    world.fakes.plan.next(Failure::credit_balance());
    two.send(&world).await;
    assert_eq!(world.fakes.plan.request_count(), 2, "one tried");
    one.until_state(2).await;
}

#[tokio::test]
async fn a_restart_remembers_it_with_postgres_and_without() {
    let (mut world, mut one, two) = opened("1800").await;
    two.until_state(2).await;
    one.restart(&world).await;
    one.send(&world).await;
    assert_eq!(world.fakes.plan.request_count(), 2);
    assert_eq!(one.circuits().await.len(), 1);

    world.postgres.stop();
    one.restart(&world).await;
    one.send(&world).await;
    assert_eq!(
        world.fakes.plan.request_count(),
        2,
        "the mirror remembers it: {}",
        one.proxy.log()
    );
    world.postgres.resume().await;
    let mut connection = world.tenant.database.acquire().await.unwrap();
    circuits::reset(&mut connection, world.tenant.pool_id(), "1")
        .await
        .unwrap();
    one.until_state(0).await;
}

#[tokio::test]
async fn without_postgres_each_pod_goes_by_what_it_knows_and_tells_it_afterwards() {
    let mut world = World::create().await;
    let one = Pod::start(&world, "1800").await;
    let two = Pod::start(&world, "1800").await;
    world.postgres.stop();
    fail_twice(&world, &one).await;
    one.until_state(2).await;
    let began = Instant::now();
    for _ in 0..10 {
        one.send(&world).await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "ten requests took {took:?}");
    assert_eq!(world.fakes.plan.request_count(), 2);
    two.send(&world).await;
    assert_eq!(
        world.fakes.plan.request_count(),
        3,
        "it cannot know of the first one's"
    );
    world.postgres.resume().await;
    two.until_state(2).await;
    two.send(&world).await;
    assert_eq!(world.fakes.plan.request_count(), 3);
}

#[tokio::test]
async fn without_postgres_a_pod_probes_by_itself_and_waits_for_nobody() {
    let (mut world, one, two) = opened("1").await;
    for pod in [&one, &two] {
        pod.until_state(1).await;
    }
    world.postgres.stop();
    for (pod, requests) in [(&one, 3), (&two, 4)] {
        // Until it knows that Postgres is away it goes by what it was told before.
        let began = Instant::now();
        while world.fakes.plan.request_count() < requests {
            let sent = Instant::now();
            pod.send(&world).await;
            let took = sent.elapsed();
            assert!(took < Duration::from_secs(3), "a call waited {took:?}");
            assert!(began.elapsed() < within(), "{}", pod.warnings());
        }
        assert_eq!(world.fakes.plan.request_count(), requests);
        pod.until_state(0).await;
    }
    world.postgres.resume().await;
    // What was found meanwhile counts: nobody opens it again.
    let gone = || async {
        let rows = circuits::load(&world.tenant.database, world.tenant.pool_id()).await;
        rows.is_ok_and(|loaded| loaded.open.is_empty())
    };
    let began = Instant::now();
    while !gone().await {
        assert!(began.elapsed() < within(), "{}", one.proxy.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for pod in [&one, &two] {
        pod.until_state(0).await;
    }
}
