//! Money as whole micro-USD, so that sums are exact.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Sub};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Micro-USD in one USD.
const MICROS_PER_USD: i64 = 1_000_000;

/// An amount in micro-USD (a millionth of a US dollar). Arithmetic saturates.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct MicroUsd(pub i64);

impl MicroUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The amount in whole US cents, rounded half up.
    pub const fn to_cents(self) -> i64 {
        (self.0 + 5_000).div_euclid(10_000)
    }

    /// The amount with all six decimals cut to what is needed, at least two: `0.0042` USD is `"0.0042"`, 5 USD `"5.00"`.
    pub fn to_usd_string(self) -> String {
        let sign = if self.0 < 0 { "-" } else { "" };
        let abs = self.0.unsigned_abs();
        let whole = abs / MICROS_PER_USD.unsigned_abs();
        let mut fraction = format!("{:06}", abs % MICROS_PER_USD.unsigned_abs());
        while fraction.len() > 2 && fraction.ends_with('0') {
            fraction.pop();
        }
        format!("{sign}{whole}.{fraction}")
    }
}

impl fmt::Display for MicroUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_usd_string())
    }
}

impl Add for MicroUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for MicroUsd {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sub for MicroUsd {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Sum for MicroUsd {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

/// Why a text is not an amount of USD.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an amount in USD: write digits with at most six decimals, such as \"3.75\"")]
pub struct ParseUsdError(String);

impl FromStr for MicroUsd {
    type Err = ParseUsdError;

    /// Reads a non-negative decimal amount of USD with at most six decimals, exactly.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseUsdError(text.to_owned());
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || fraction.len() > 6 {
            return Err(refuse());
        }
        let whole: i64 = whole.parse().map_err(|_| refuse())?;
        let micros: i64 = format!("{fraction:0<6}").parse().map_err(|_| refuse())?;
        whole
            .checked_mul(MICROS_PER_USD)
            .and_then(|usd| usd.checked_add(micros))
            .map(Self)
            .ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_read_and_print_exactly() {
        for (text, micros, printed) in [
            ("3.75", 3_750_000, "3.75"),
            ("50.00", 50_000_000, "50.00"),
            ("0.000001", 1, "0.000001"),
            ("15", 15_000_000, "15.00"),
        ] {
            let amount: MicroUsd = text.parse().unwrap();
            assert_eq!(
                (amount.0, amount.to_string().as_str()),
                (micros, printed),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in [
            "",
            "-1",
            "1.",
            ".5",
            "1.0000001",
            "1,5",
            "1e3",
            "99999999999999999999",
            "$1",
        ] {
            assert!(text.parse::<MicroUsd>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn printing_and_reading_are_inverse(micros in 0..i64::MAX / 2) {
            prop_assert_eq!(MicroUsd(micros).to_string().parse::<MicroUsd>().unwrap(), MicroUsd(micros));
        }
    }
}
