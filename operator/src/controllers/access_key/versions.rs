//! The versions of a key: which one is current, which ones end when.

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};
use spillway_core::repository::access_keys::Version;
use spillway_core::security::hasher::KeyHash;

/// How long a version that was replaced goes on working.
pub const OVERLAP: TimeDelta = TimeDelta::hours(24);

/// How many versions are remembered.
const REMEMBERED: usize = 10;

/// The key that the Secret holds.
#[derive(Debug, Clone, Copy)]
pub struct Current<'a> {
    /// The public part.
    pub key_id: &'a str,
    /// The stored form by the newest hasher secret.
    pub hash: KeyHash,
    /// That secret's id.
    pub hasher_id: &'a str,
    /// The stored forms by every live hasher secret.
    pub hashes: &'a [KeyHash],
}

/// The Secret holds a version that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The version's public part.
    pub key_id: String,
    /// When it ended.
    pub at: DateTime<Utc>,
}

/// The versions as they are to be stored, newest first: the Secret's is current, and any other that has no end yet ends
/// after the overlap.
pub fn next(
    stored: &[Version],
    current: Current<'_>,
    now: DateTime<Utc>,
) -> Result<Vec<Version>, Ended> {
    let known = stored
        .iter()
        .find(|version| current.hashes.contains(&version.key_hash));
    if let Some(Version {
        key_id,
        expires_at: Some(at),
        ..
    }) = known.filter(|version| version.expires_at.is_some_and(|at| at <= now))
    {
        return Err(Ended {
            key_id: key_id.clone(),
            at: *at,
        });
    }
    let newest = match known {
        Some(known) => Version {
            expires_at: None,
            ..known.clone()
        },
        None => Version {
            key_id: current.key_id.to_owned(),
            key_hash: current.hash,
            hasher_id: current.hasher_id.to_owned(),
            expires_at: None,
            created_at: now,
        },
    };
    // Postgres keeps microseconds.
    let end = (now + OVERLAP).trunc_subsecs(6);
    let others = stored
        .iter()
        .filter(|version| version.key_hash != newest.key_hash)
        .map(|version| Version {
            expires_at: version.expires_at.or(Some(end)),
            ..version.clone()
        });
    let mut versions = vec![newest.clone()];
    versions.extend(others);
    versions.truncate(REMEMBERED);
    Ok(versions)
}

/// Whether storing `wanted` would change nothing.
pub fn are_stored(stored: &[Version], wanted: &[Version]) -> bool {
    let same = |a: &Version, b: &Version| a.key_hash == b.key_hash && a.expires_at == b.expires_at;
    stored.len() == wanted.len()
        && wanted
            .iter()
            .all(|wanted| stored.iter().any(|stored| same(stored, wanted)))
}

/// When the next version that has an end reaches it.
pub fn next_end(versions: &[Version], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    versions
        .iter()
        .filter_map(|version| version.expires_at)
        .filter(|at| *at > now)
        .min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(hour: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(hour * 3600, 0).unwrap()
    }

    fn version(n: u8, expires_at: Option<DateTime<Utc>>) -> Version {
        Version {
            key_id: format!("key{n}"),
            key_hash: KeyHash([n; 32]),
            hasher_id: "1".into(),
            expires_at,
            created_at: at(i64::from(n)),
        }
    }

    fn holding(n: u8) -> ([KeyHash; 1], String) {
        ([KeyHash([n; 32])], format!("key{n}"))
    }

    /// The public part of a version, and when it ends.
    type Ending = (String, Option<DateTime<Utc>>);

    fn next_holding(stored: &[Version], n: u8, now: DateTime<Utc>) -> Result<Vec<Ending>, Ended> {
        let (hashes, key_id) = holding(n);
        let current = Current {
            key_id: &key_id,
            hash: hashes[0],
            hasher_id: "1",
            hashes: &hashes,
        };
        let versions = next(stored, current, now)?;
        Ok(versions
            .into_iter()
            .map(|version| (version.key_id, version.expires_at))
            .collect())
    }

    #[test]
    fn the_first_key_has_no_end() {
        assert_eq!(
            next_holding(&[], 1, at(0)).unwrap(),
            [("key1".into(), None)]
        );
    }

    #[test]
    fn a_replaced_version_ends_after_the_overlap_and_once_only() {
        let versions = next_holding(&[version(1, None)], 2, at(10)).unwrap();
        assert_eq!(
            versions,
            [("key2".into(), None), ("key1".into(), Some(at(34)))]
        );
        let later = next_holding(&[version(2, None), version(1, Some(at(34)))], 2, at(20)).unwrap();
        assert_eq!(later, versions);
    }

    #[test]
    fn a_former_secret_that_returns_within_the_overlap_is_current_again() {
        let versions =
            next_holding(&[version(2, None), version(1, Some(at(34)))], 1, at(20)).unwrap();
        assert_eq!(
            versions,
            [("key1".into(), None), ("key2".into(), Some(at(44)))]
        );
    }

    #[test]
    fn a_version_that_ended_stays_ended() {
        let ended =
            next_holding(&[version(2, None), version(1, Some(at(34)))], 1, at(40)).unwrap_err();
        assert_eq!(
            ended,
            Ended {
                key_id: "key1".into(),
                at: at(34)
            }
        );
    }

    #[test]
    fn a_key_hashed_with_an_older_secret_is_still_the_same() {
        let hashes = [KeyHash([9; 32]), KeyHash([1; 32])];
        let current = Current {
            key_id: "key1",
            hash: hashes[0],
            hasher_id: "2",
            hashes: &hashes,
        };
        let stored = [version(1, None)];
        assert!(are_stored(&stored, &next(&stored, current, at(0)).unwrap()));
    }

    #[test]
    fn storing_the_same_versions_changes_nothing() {
        let stored = [version(2, None), version(1, Some(at(34)))];
        assert!(are_stored(&stored, &stored));
        assert!(!are_stored(&stored, &stored[..1]));
        assert!(!are_stored(&[version(2, None), version(1, None)], &stored));
        assert_eq!(next_end(&stored, at(0)), Some(at(34)));
        assert_eq!(next_end(&stored, at(40)), None);
    }
}
