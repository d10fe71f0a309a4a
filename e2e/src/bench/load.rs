//! Requests at a fixed rate, whatever becomes of those before: a slow answer does not slow the load down.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};

use super::client::{Connection, Timing};

/// A load.
#[derive(Debug, Clone)]
pub(super) struct Load {
    /// What is sent, as it goes over the wire.
    pub(super) request: Bytes,
    /// Requests a second.
    pub(super) rate: u32,
    /// Requests in all.
    pub(super) count: u32,
}

/// Idle connections. One is opened where none is idle.
#[derive(Clone)]
pub(super) struct Connections {
    address: SocketAddr,
    idle: Rc<RefCell<Vec<Connection>>>,
}

impl Connections {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            idle: Rc::default(),
        }
    }

    async fn exchange(&self, request: &[u8]) -> io::Result<Timing> {
        let idle = self.idle.borrow_mut().pop();
        let mut connection = match idle {
            Some(connection) => connection,
            None => Connection::open(self.address).await?,
        };
        let timing = connection.exchange(request).await?;
        self.idle.borrow_mut().push(connection);
        Ok(timing)
    }
}

/// Sends `load` and returns the timing of every request.
///
/// # Errors
/// A request failed: then nothing that was measured says anything.
pub(super) async fn run(connections: &Connections, load: &Load) -> io::Result<Vec<Timing>> {
    let interval = Duration::from_secs(1) / load.rate.max(1);
    let begun = Instant::now();
    let mut requests = JoinSet::new();
    let local = LocalSet::new();
    for number in 0..load.count {
        let at = begun + interval * number;
        let (connections, request) = (connections.clone(), load.request.clone());
        requests.spawn_local_on(
            async move {
                sleep_until(at).await;
                connections.exchange(&request).await
            },
            &local,
        );
    }
    local
        .run_until(async {
            let mut timings = Vec::with_capacity(requests.len());
            while let Some(done) = requests.join_next().await {
                timings.push(done.map_err(io::Error::other)??);
            }
            Ok(timings)
        })
        .await
}
