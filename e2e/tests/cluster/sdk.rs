//! The official Anthropic Python SDK, newest and of the 0.x line, in every way it can carry the key.

use std::sync::Arc;

use serde_json::Value;
use spillway_e2e::upstream::{Kind, Mode};
use tokio::process::Command;

use crate::support::commands::run as command;
use crate::support::python::with_sdk;
use crate::support::{Tenant, World};

const RELEASES: [&str; 2] = ["2.12.0", "0.125.0"];
const SCRIPT: &str = include_str!("sdk.py");

pub async fn run(world: Arc<World>) {
    let (tenant, key) = Tenant::serving(&world, "sdk", 1).await;
    let mut asked = 0;
    for release in RELEASES {
        let python = with_sdk(release).await;
        let mut answers = Vec::new();
        for mode in [Mode::Up, Mode::down()] {
            tenant.fakes.plan(mode).await;
            let output = command(
                Command::new(&python)
                    .args(["-c", SCRIPT])
                    .env("BASE", &key.base)
                    .env("KEY", &key.token),
            )
            .await;
            let output: Vec<Value> = serde_json::from_slice(&output).expect("the script's answers");
            assert_eq!(
                output.len(),
                6,
                "three ways to carry the key, streamed and not"
            );
            answers.push(output);
        }
        for answer in answers.iter().flatten() {
            assert_eq!(answer["release"], release);
            assert_eq!(answer["text"], "Echo: hello from the SDK", "{answer}");
            assert_eq!(answer["stop_reason"], "end_turn", "{answer}");
            assert!(answer["output_tokens"].as_i64() > Some(0), "{answer}");
        }
        for (plan, bedrock) in answers[0].iter().zip(&answers[1]) {
            assert_eq!(plan, bedrock, "the SDK cannot tell Bedrock from Plan");
        }
        asked += 6;
    }
    tenant.fakes.plan(Mode::Up).await;
    assert_eq!(
        tenant.fakes.generated(Kind::Bedrock).await.len(),
        asked,
        "Plan failed for half of the calls"
    );
    let rows = tenant.usage(2 * asked).await;
    assert_eq!(rows.len(), 2 * asked);
    assert!(rows.iter().all(|row| row.status == "ok"), "{rows:?}");
    let streamed = rows.iter().filter(|row| row.stream).count();
    assert_eq!(streamed, asked, "half of the answers were streamed");
}
