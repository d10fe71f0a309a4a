//! Whole-system tests of Spillway and what they need.
//!
//! # Fake upstreams
//!
//! [`upstream::FakeUpstreams`] runs both upstreams in the test's own process, on free ports of the loopback; the binary
//! `fake-upstream` is the same as a program (or a pod), steered by the control API, [`upstream::control`].
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use spillway_e2e::upstream::{Action, FakeUpstreams, Failure, Point, Rule, Script, Usage, When};
//!
//! let fakes = FakeUpstreams::start().await.unwrap();
//! // fakes.plan_url and fakes.bedrock_url go into the proxy's configuration; the credentials are
//! // upstream::{PLAN_API_KEY, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, BEDROCK_API_KEY}.
//!
//! // Nothing said: text "Echo: <last user text>", numbers counted as `Usage` says.
//! // The next message fails, the one after it dies in the middle of its stream, a third reports these numbers.
//! fakes.plan.next(Failure::status(529));
//! fakes.plan.next(Script::text("half a story").fault(Point::Deltas(1), Action::CutInside));
//! fakes.plan.next(Script::text("Hi").usage(Usage { input_tokens: 7, output_tokens: 2, ..Usage::default() }));
//! // Only requests whose body contains the marker; for ever.
//! fakes.bedrock.push(
//!     Rule::forever(Failure::status(429))
//!         .when(When { body_contains: Some("marker-1".to_owned()), ..When::default() }),
//! );
//! // A stream that stops after one delta until the test lets it go on: no sleeping.
//! fakes.plan.next(Script::text("a long answer").hold(Point::Deltas(1), "middle"));
//! // … send it, then `fakes.gates.wait_held("middle", 1, limit).await`, do the deed, `fakes.gates.release("middle")`.
//!
//! fakes.plan.down().await; // 503 for everything; refuse() closes the port; up() ends both
//! let seen = fakes.plan.requests(); // bodies, headers (credentials as digests), answers with the numbers reported
//! # assert!(seen.is_empty());
//! # });
//! ```

pub mod bench;
pub mod soak;
pub mod upstream;
