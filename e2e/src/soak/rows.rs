//! The usage rows, compared with what was sent.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::load::Sent;

/// How long the last rows may take.
const LIMIT: Duration = Duration::from_mins(1);

/// What became of the requests in the database.
#[derive(Debug, Default)]
pub(super) struct Comparison {
    pub(super) rows: usize,
    /// Requests that were admitted, without a row.
    pub(super) lost: Vec<String>,
    /// Requests with more than one.
    pub(super) twice: Vec<String>,
}

/// Waits until every request of `sent` that was admitted has its row, or long enough.
///
/// # Errors
/// The database cannot be asked.
pub(super) async fn compare(database_url: &str, sent: &[Sent]) -> io::Result<Comparison> {
    let until = Instant::now() + LIMIT;
    loop {
        let comparison = against(sent, &read(database_url).await?);
        if comparison.lost.is_empty() || Instant::now() > until {
            return Ok(comparison);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn read(database_url: &str) -> io::Result<String> {
    let output = Command::new("psql")
        .args(["-qAt", database_url, "-c"])
        .arg("SELECT session_id FROM token_usages WHERE session_id LIKE 'soak-%'")
        .output()
        .await?;
    if !output.status.success() {
        return Err(io::Error::other(
            String::from_utf8_lossy(&output.stderr).into_owned(),
        ));
    }
    String::from_utf8(output.stdout).map_err(io::Error::other)
}

fn against(sent: &[Sent], rows: &str) -> Comparison {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for name in rows.lines() {
        *counts.entry(name).or_default() += 1;
    }
    Comparison {
        rows: counts.values().sum(),
        lost: sent
            .iter()
            .filter(|sent| sent.ending.is_admitted() && !counts.contains_key(sent.name.as_str()))
            .map(|sent| sent.name.clone())
            .collect(),
        twice: counts
            .iter()
            .filter(|(_, count)| **count > 1)
            .map(|(name, _)| (*name).to_owned())
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::soak::load::Ending;

    #[test]
    fn every_admitted_request_has_one_row_and_no_other_more_than_one() {
        let sent: Vec<Sent> = [
            Ending::Whole,
            Ending::CutOff("reset".to_owned()),
            Ending::Left,
            Ending::Unanswered("refused".to_owned()),
            Ending::Refused(503),
            Ending::Throttled(429),
        ]
        .into_iter()
        .enumerate()
        .map(|(number, ending)| Sent {
            name: format!("soak-{number}"),
            ending,
        })
        .collect();
        let compared = against(&sent, "soak-0\nsoak-2\nsoak-2\nsoak-3\n");
        assert_eq!(compared.rows, 4);
        assert_eq!(compared.lost, ["soak-1", "soak-5"]);
        assert_eq!(compared.twice, ["soak-2"]);
    }
}
