//! Many streams at once, none of which ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::client::Connection;
use super::process;

/// How many streams are begun at a time.
const AT_ONCE: usize = 50;
/// What a subject may need until nothing of it moves any more.
const SETTLE: Duration = Duration::from_secs(2);

/// Opens `count` streams, each with its first chunk received, and returns them with the subject's resident bytes.
///
/// # Errors
/// A stream failed.
pub(super) async fn open_streams(
    address: SocketAddr,
    request: &[u8],
    count: usize,
    pid: u32,
) -> io::Result<(Vec<Connection>, u64)> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        let mut opening = JoinSet::new();
        for _ in 0..AT_ONCE.min(count - streams.len()) {
            let request = request.to_vec();
            opening.spawn_local(async move {
                let mut connection = Connection::open(address).await?;
                connection.begin(&request).await?;
                io::Result::Ok(connection)
            });
        }
        while let Some(opened) = opening.join_next().await {
            streams.push(opened.map_err(io::Error::other)??);
        }
    }
    sleep(SETTLE).await;
    let resident = process::resident(pid)?;
    Ok((streams, resident))
}
