//! Kubernetes quantities by value: `1024Mi` is `1Gi`, `0.5` is `500m`.
//!
//! Format: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>

use std::borrow::Cow;

use serde_json::Value;

/// Whether both are quantities of the same value. A number counts as its text.
pub(super) fn is_same(a: &Value, b: &Value) -> bool {
    match (
        text(a).and_then(|a| nanos(&a)),
        text(b).and_then(|b| nanos(&b)),
    ) {
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.to_string())),
        _ => None,
    }
}

/// In billionths, the finest that a quantity can be. None for what is no quantity or beyond reckoning.
fn nanos(text: &str) -> Option<i128> {
    let end = text
        .find(|c: char| !(c.is_ascii_digit() || "+-.".contains(c)))
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (factor, exponent): (i128, i32) = match suffix {
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "" => (1, 0),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        other => (1, other.strip_prefix(['e', 'E'])?.parse().ok()?),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let decimals = i32::try_from(fraction.len()).ok()?;
    let exponent = exponent.checked_add(9)?.checked_sub(decimals)?;
    let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
    let scaled = digits.checked_mul(factor)?;
    if exponent < 0 {
        // What is finer than a billionth is rounded up.
        Some(scaled / power + i128::from(scaled % power > 0))
    } else {
        scaled.checked_mul(power)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_are_compared_by_value() {
        for (a, b) in [
            (json!("1024Mi"), json!("1Gi")),
            (json!("0.5"), json!("500m")),
            (json!("1000m"), json!("1")),
            (json!(2), json!("2")),
            (json!(0.5), json!("500m")),
            (json!("1e3"), json!("1k")),
            (json!("1.5Gi"), json!("1536Mi")),
            (json!("+100M"), json!("100000k")),
        ] {
            assert!(is_same(&a, &b), "{a} {b}");
        }
        for (a, b) in [
            (json!("1G"), json!("1Gi")),
            (json!("1"), json!("1m")),
            (json!("lots"), json!("lots")),
            (json!(""), json!("0")),
            (json!("1e99"), json!("1e99")),
            (json!(null), json!("0")),
        ] {
            assert!(!is_same(&a, &b), "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_breaking(text in ".{0,40}") {
            let _ = nanos(&text);
        }
    }
}
