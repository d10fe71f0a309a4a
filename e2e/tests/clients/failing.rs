//! Plan fails while Claude Code works: between turns, and in the middle of an answer.

use spillway_e2e::upstream::{
    Action, Exchange, Failure, Kind, Operation, Outcome, Point, Reply, Rule, Script, When,
};

use crate::support::claude::{Claude, Told};
use crate::support::conversation::replayed;
use crate::support::database::UsageRow;
use crate::support::task::{
    ANSWER, PROMPT, TURNS, agent, assert_booked, assert_changed, assert_done, assert_whole, give,
    served,
};
use crate::support::{Api, World};

/// Plan fails once, in the turn that brings so many results back.
fn fail_turn(world: &World, rounds: usize, reply: impl Into<Reply>) {
    world.fakes.plan.clear_rules();
    world.fakes.plan.push(Rule::once(reply).when(When {
        rounds: Some(rounds),
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
    assert_eq!(
        served(&rows),
        [plan, ("bedrock", Some(reason)), plan, plan, plan]
    );
    assert_booked(world, &rows);
    rows
}

#[tokio::test]
async fn between_turns_to_invoke_model_and_back() {
    let fail = async |world: &World| fail_turn(world, 1, Failure::status(529));
    let (world, told) = story(Api::InvokeModel, fail).await;
    assert_moved(&world, &told, "overloaded", Operation::InvokeStream).await;
}

#[tokio::test]
async fn between_turns_to_converse_and_back() {
    let fail = async |world: &World| fail_turn(world, 1, Failure::status(500));
    let (world, told) = story(Api::Converse, fail).await;
    assert_moved(&world, &told, "server_error", Operation::ConverseStream).await;
}

#[tokio::test]
async fn within_a_stream_before_content_is_not_seen() {
    let fail = async |world: &World| {
        fail_turn(world, 1, broken(world, Point::Content, overloaded()));
    };
    let (world, told) = story(Api::InvokeModel, fail).await;
    assert_moved(&world, &told, "overloaded", Operation::InvokeStream).await;
    assert_eq!(
        world.generated(Kind::Plan)[1].answer.outcome,
        Outcome::ErrorSent
    );
}

/// What was shown cannot be taken back: the client gets an `error` event and asks for the turn again by itself, this time of a
/// Plan that works.
async fn after_content(rounds: usize, at: Point, action: Action) {
    let fail = async |world: &World| fail_turn(world, rounds, broken(world, at, action));
    let (world, told) = story(Api::InvokeModel, fail).await;
    assert_eq!(told.answer(), ANSWER);
    assert_changed(&world);
    assert_eq!(world.generated(Kind::Bedrock).len(), 0);
    let asked = world.generated(Kind::Plan);
    assert_eq!(asked.len(), TURNS + 1);
    // Where text was shown, it adds a reminder that the answer was cut off.
    let [before, again] = [rounds, rounds + 1].map(|turn| replayed(&asked[turn]));
    assert_eq!(before, again);
    assert_whole(&world, asked.last().unwrap());

    let mut rows = world.database.usage(TURNS + 1).await;
    let broken = rows.remove(rounds);
    assert_eq!(served(&rows), [("plan", None); TURNS]);
    assert_booked(&world, &rows);
    assert_eq!(
        (broken.status.as_str(), broken.http_status),
        ("upstream_error", 200)
    );
    // What it read is known from the stream's beginning, what it wrote is not.
    assert!(broken.estimated && broken.output_tokens > 0, "{broken:?}");
    let read = i64::try_from(asked[rounds].answer.usage.unwrap().input_tokens);
    assert_eq!(Ok(broken.input_tokens), read);
}

#[tokio::test]
async fn within_a_stream_after_thoughts_the_turn_is_asked_for_again() {
    after_content(1, Point::Deltas(2), overloaded()).await;
}

#[tokio::test]
async fn within_a_stream_after_text_the_turn_is_asked_for_again() {
    after_content(4, Point::Deltas(3), overloaded()).await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_inside_of_an_event_is_asked_for_again() {
    after_content(4, Point::Deltas(3), Action::CutInside).await;
}
