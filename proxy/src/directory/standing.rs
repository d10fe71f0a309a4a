//! Whether a key that exists may be used now. Pure.

use chrono::{DateTime, Utc};

use crate::http::error::Refusal;

/// What decides about a living key of a living user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// The user is suspended.
    pub suspended: bool,
    /// The key is disabled.
    pub disabled: bool,
    /// The key's own end, or that of a version which was replaced, whichever comes first.
    pub expires_at: Option<DateTime<Utc>>,
}

impl Standing {
    /// The standing with the earlier of two ends.
    pub fn new(
        suspended: bool,
        disabled: bool,
        key_ends: Option<DateTime<Utc>>,
        version_ends: Option<DateTime<Utc>>,
    ) -> Self {
        let expires_at = match (key_ends, version_ends) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (one, other) => one.or(other),
        };
        Self {
            suspended,
            disabled,
            expires_at,
        }
    }

    /// Lets the key pass at `now`.
    ///
    /// # Errors
    /// 403 that says which.
    pub fn admit(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        if self.suspended {
            Err(Refusal::forbidden(
                "suspended",
                "The user of this access key is suspended; ask your platform team",
            ))
        } else if self.disabled {
            Err(Refusal::forbidden(
                "disabled",
                "This access key is disabled; ask your platform team",
            ))
        } else if self.expires_at.is_some_and(|end| end <= now) {
            Err(Refusal::forbidden(
                "expired",
                "This access key has expired; use its current version or ask for a new one",
            ))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;

    #[test]
    fn each_state_is_refused_by_its_name() {
        let now = Utc::now();
        let past = Some(now - TimeDelta::seconds(1));
        let future = Some(now + TimeDelta::seconds(1));
        for (standing, word) in [
            (Standing::new(true, true, past, None), "suspended"),
            (Standing::new(false, true, past, None), "disabled"),
            (Standing::new(false, false, past, future), "expired"),
            (Standing::new(false, false, None, past), "expired"),
            (Standing::new(false, false, Some(now), None), "expired"),
        ] {
            let refusal = standing.admit(now).unwrap_err();
            assert_eq!((refusal.status.as_u16(), refusal.reason), (403, word));
            assert!(refusal.message.contains(word), "{}", refusal.message);
        }
        assert_eq!(
            Standing::new(false, false, future, future).admit(now),
            Ok(())
        );
        assert_eq!(Standing::default().admit(now), Ok(()));
    }
}
