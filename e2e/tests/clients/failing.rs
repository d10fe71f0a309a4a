//! Plan fails while Claude Code works: between turns, and in the middle of an answer.

use spillway_e2e::upstream::{
    Action, Exchange, Failure, Kind, Operation, Outcome, Point, Reply, Rule, Script, When,
};

use crate::support::claude::{Claude, Told};
use crate::support::database::UsageRow;
use crate::support::task::{
    PROMPT, TURNS, agent, assert_booked, assert_done, assert_whole, give, served,
};
use crate::support::{Api, World};

/// Plan fails once, in the turn that brings the first result back.
fn fail_second_turn(world: &World, reply: impl Into<Reply>) {
    world.fakes.plan.clear_rules();
    world.fakes.plan.push(Rule::once(reply).when(When {
        rounds: Some(1),
        ..When::default()
    }));
    world.fakes.plan.push(Rule::forever(agent(world)));
}

/// The agent's answer, with what goes wrong in it.
fn broken(world: &World, at: Point, action: Action) -> Reply {
    agent(world)
        .paced(Script::default().fault(at, action))
        .into()
}

fn overloaded() -> Action {
    Action::Error {
        error_type: "overloaded_error".to_owned(),
        message: "Overloaded".to_owned(),
    }
}

async fn story(api: Api, fail: impl AsyncFnOnce(&World)) -> (World, Told) {
    let world = World::new(api).await;
    give(&world);
    fail(&world).await;
    let told = Claude::new(&world).ask(PROMPT).await;
    (world, told)
}

/// The second turn came from Bedrock, the others from Plan, and neither found anything wrong with what it got.
async fn assert_moved(
    world: &World,
    told: &Told,
    reason: &str,
    operation: Operation,
) -> Vec<UsageRow> {
    assert_done(world, told);
    let asked = world.generated(Kind::Plan);
    assert_eq!(asked.len(), TURNS);
    assert_whole(world, asked.last().unwrap());
    let instead = world.generated(Kind::Bedrock);
    assert_eq!(instead.len(), 1);
    assert_eq!(instead[0].operation, operation);
    let refused = |exchange: &&Exchange| exchange.answer.status == Some(400);
    assert_eq!(
        asked
            .iter()
            .chain(&instead)
            .find(refused)
            .map(|seen| &seen.body),
        None
    );

    let rows = world.database.usage(TURNS).await;
    let plan = ("plan", None);
    assert_eq!(served(&rows), [plan, ("bedrock", Some(reason)), plan, plan]);
    assert_booked(world, &rows);
    rows
}

#[tokio::test]
async fn between_turns_to_invoke_model_and_back() {
    let fail = async |world: &World| fail_second_turn(world, Failure::status(529));
    let (world, told) = story(Api::InvokeModel, fail).await;
    assert_moved(&world, &told, "overloaded", Operation::InvokeStream).await;
}

#[tokio::test]
async fn between_turns_to_converse_and_back() {
    let fail = async |world: &World| fail_second_turn(world, Failure::status(500));
    let (world, told) = story(Api::Converse, fail).await;
    assert_moved(&world, &told, "server_error", Operation::ConverseStream).await;
}

#[tokio::test]
async fn within_a_stream_before_content_is_not_seen() {
    let fail = async |world: &World| {
        fail_second_turn(world, broken(world, Point::Content, overloaded()));
    };
    let (world, told) = story(Api::InvokeModel, fail).await;
    assert_moved(&world, &told, "overloaded", Operation::InvokeStream).await;
    assert_eq!(
        world.generated(Kind::Plan)[1].answer.outcome,
        Outcome::ErrorSent
    );
}
