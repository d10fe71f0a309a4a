//! The order of the tests: side by side, then one at a time, the uninstall last, and everything removed at the end.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

use super::world::World;

/// How many tests that disturb nobody run at once: they wait for pods most of the time.
const SIDE_BY_SIDE: usize = 5;

/// What a test asks of the others.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing.
    SideBySide,
    /// That none runs at the same time.
    Alone,
    /// That all have ended.
    Last,
}

type Body = Arc<dyn Fn(Arc<World>) -> Pin<Box<dyn Future<Output = ()>>> + Send + Sync>;

struct Test {
    when: When,
    tenant: &'static str,
    name: &'static str,
    body: Body,
}

/// All tests.
#[derive(Default)]
pub struct Suite(Vec<Test>);

impl Suite {
    /// Adds a test. Its tenant (a namespace and, in the platform's, a pool of that name) is only its own.
    pub fn add<F>(
        &mut self,
        when: When,
        tenant: &'static str,
        name: &'static str,
        body: fn(Arc<World>) -> F,
    ) where
        F: Future<Output = ()> + 'static,
    {
        let body: Body = Arc::new(move |world| Box::pin(body(world)));
        self.0.push(Test {
            when,
            tenant,
            name,
            body,
        });
    }

    /// Runs what the command line asks for, as `cargo test` would.
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        let tenants: Vec<_> = self.0.iter().map(|test| test.tenant).collect();
        let shared = Arc::new(Shared {
            runtime: Runtime::new().expect("a runtime"),
            tenants,
            world: OnceLock::new(),
        });
        let threads = arguments.test_threads.unwrap_or(SIDE_BY_SIDE);
        let mut failed = false;
        for (when, threads) in [
            (When::SideBySide, threads),
            (When::Alone, 1),
            (When::Last, 1),
        ] {
            let trials: Vec<_> = self
                .0
                .iter()
                .filter(|test| test.when == when)
                .map(|test| shared.trial(test))
                .collect();
            arguments.test_threads = Some(threads);
            failed |= libtest_mimic::run(&arguments, trials).has_failed();
        }
        if let Some(world) = shared.world.get() {
            shared.runtime.block_on(world.clone().remove());
        }
        if failed {
            ExitCode::from(101)
        } else {
            ExitCode::SUCCESS
        }
    }
}

/// What the tests share. The installation is made by the first test, so that `--list` needs no cluster.
struct Shared {
    runtime: Runtime,
    tenants: Vec<&'static str>,
    world: OnceLock<Arc<World>>,
}

impl Shared {
    fn trial(self: &Arc<Self>, test: &Test) -> Trial {
        let (shared, body) = (Arc::clone(self), Arc::clone(&test.body));
        Trial::test(test.name, move || {
            shared.runtime.block_on(body(shared.world()));
            Ok(())
        })
    }

    fn world(&self) -> Arc<World> {
        Arc::clone(
            self.world
                .get_or_init(|| self.runtime.block_on(World::install(&self.tenants))),
        )
    }
}
