//! What fails, in turn: one fault begins each [`PERIOD`] and lasts half of it.

use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;

use crate::upstream::{Action, Failure, FakeUpstreams, Point, Rule, Script};

/// From one fault to the next.
const PERIOD: Duration = Duration::from_secs(20);

/// One way to fail.
#[derive(Debug, Clone, Copy)]
enum Fault {
    PlanOverloaded,
    PlanRefusesConnections,
    ErrorInPlansStreams,
    PlansStreamsBreakOff,
    PlanStalls,
    BothThrottle,
    DatabaseHangsUp,
}

const FAULTS: [Fault; 7] = [
    Fault::PlanOverloaded,
    Fault::PlanRefusesConnections,
    Fault::ErrorInPlansStreams,
    Fault::PlansStreamsBreakOff,
    Fault::PlanStalls,
    Fault::BothThrottle,
    Fault::DatabaseHangsUp,
];

/// Injects faults for ever.
pub(super) async fn inject(fakes: &FakeUpstreams, database_url: &str) {
    for fault in FAULTS.into_iter().cycle() {
        sleep(PERIOD / 2).await;
        eprintln!("fault: {fault:?}");
        begin(fault, fakes, database_url).await;
        sleep(PERIOD / 2).await;
        if let Fault::PlanRefusesConnections = fault {
            fakes.plan.up().await;
        }
        fakes.plan.clear_rules();
        fakes.bedrock.clear_rules();
    }
}

async fn begin(fault: Fault, fakes: &FakeUpstreams, database_url: &str) {
    let with = |point, action| Rule::forever(Script::default().fault(point, action));
    match fault {
        Fault::PlanOverloaded => fakes.plan.push(Rule::forever(Failure::status(529))),
        Fault::PlanRefusesConnections => fakes.plan.refuse().await,
        Fault::ErrorInPlansStreams => fakes.plan.push(with(
            Point::Start,
            Action::Error {
                error_type: "overloaded_error".to_owned(),
                message: "Overloaded".to_owned(),
            },
        )),
        Fault::PlansStreamsBreakOff => {
            fakes.plan.push(with(Point::Deltas(1), Action::CutInside));
        }
        Fault::PlanStalls => fakes
            .plan
            // Longer than streams are waited for, and not as long as whole answers are.
            .push(with(Point::Start, Action::Stall { ms: 5000 })),
        Fault::BothThrottle => {
            fakes.plan.push(Rule::forever(Failure::status(429)));
            fakes.bedrock.push(Rule::forever(Failure::status(429)));
        }
        Fault::DatabaseHangsUp => hang_up(database_url).await,
    }
}

/// Ends all of the proxy's connections, as a server that fails over does.
async fn hang_up(database_url: &str) {
    let ended = Command::new("psql")
        .args(["-qAt", database_url, "-c"])
        .arg("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'spillway-proxy'")
        .output()
        .await;
    if let Err(error) = ended {
        eprintln!("the database's connections could not be ended: {error}");
    }
}
