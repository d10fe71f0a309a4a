//! What tokens cost: a dated table, a pool's own prices before it, the dearest of the family behind it.

use serde::{Deserialize, Serialize};

use super::money::MicroUsd;
use super::tokens::TokenUsage;

/// The day on which [`TABLE`] was compared with its source, Anthropic's public price list
/// (docs.claude.com, "Pricing"). Bedrock's on-demand prices of these models are the same.
pub const TABLE_DATE: &str = "2026-11-01";

/// Prices in micro-USD per million tokens, by class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// Uncached input.
    pub input: MicroUsd,
    /// Output.
    pub output: MicroUsd,
    /// Input read from the cache.
    pub cache_read: MicroUsd,
    /// Input written to the five-minute cache.
    pub cache_write_5m: MicroUsd,
    /// Input written to the one-hour cache.
    pub cache_write_1h: MicroUsd,
}

impl Price {
    /// A price from input and output alone. The cache classes are the public multiples of the input price: a read costs
    /// a tenth, a five-minute write 1.25 times, a one-hour write twice as much.
    pub const fn of(input: MicroUsd, output: MicroUsd) -> Self {
        Self {
            input,
            output,
            cache_read: MicroUsd(input.0 / 10),
            cache_write_5m: MicroUsd(input.0 / 4 * 5),
            cache_write_1h: MicroUsd(input.0.saturating_mul(2)),
        }
    }

    /// What `tokens` cost, rounded half up once, after the classes were added.
    pub fn cost(&self, tokens: &TokenUsage) -> MicroUsd {
        let class =
            |count: u64, price: MicroUsd| i128::from(count).saturating_mul(i128::from(price.0));
        let per_million = class(tokens.input, self.input)
            .saturating_add(class(tokens.output, self.output))
            .saturating_add(class(tokens.cache_read, self.cache_read))
            .saturating_add(class(tokens.cache_creation_5m, self.cache_write_5m))
            .saturating_add(class(tokens.cache_creation_1h, self.cache_write_1h));
        MicroUsd(i64::try_from(per_million.saturating_add(500_000) / 1_000_000).unwrap_or(i64::MAX))
    }
}

/// Where a price came from, as the usage row says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PriceSource {
    /// The pool's `models[].price`.
    Pool,
    /// The built-in table.
    Table,
    /// The model is not in the table: the dearest price of its family.
    Family,
    /// Not even the family is known: the dearest price of the table.
    Dearest,
}

impl PriceSource {
    /// The name in Postgres.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pool => "pool",
            Self::Table => "table",
            Self::Family => "family",
            Self::Dearest => "dearest",
        }
    }
}

/// A row of the price table: a model name without date, USD per million input and output tokens.
const fn usd(name: &'static str, input_cents: i64, output_cents: i64) -> (&'static str, Price) {
    (
        name,
        Price::of(
            MicroUsd(input_cents * 10_000),
            MicroUsd(output_cents * 10_000),
        ),
    )
}

/// Prices by model, longest name first where one is another's beginning.
const TABLE: &[(&str, Price)] = &[
    usd("claude-opus-4-8", 500, 2_500),
    usd("claude-opus-4-7", 500, 2_500),
    usd("claude-opus-4-6", 500, 2_500),
    usd("claude-opus-4-5", 500, 2_500),
    usd("claude-opus-4-1", 1_500, 7_500),
    usd("claude-opus-4", 1_500, 7_500),
    usd("claude-sonnet-4-6", 300, 1_500),
    usd("claude-sonnet-4-5", 300, 1_500),
    usd("claude-sonnet-4", 300, 1_500),
    usd("claude-3-7-sonnet", 300, 1_500),
    usd("claude-3-5-sonnet", 300, 1_500),
    usd("claude-haiku-4-5", 100, 500),
    usd("claude-3-5-haiku", 80, 400),
    usd("claude-3-haiku", 25, 125),
    usd("claude-3-opus", 1_500, 7_500),
];

/// What every name in the table begins with.
const VENDOR: &str = "claude-";

/// The words that tell a family in a model name.
const FAMILIES: &[&str] = &["opus", "sonnet", "haiku"];

/// The price of `model`, or of the Bedrock id it is called by upstream, with the pool's own price before all others.
pub fn price_of(
    model: &str,
    upstream_model: Option<&str>,
    own: Option<&Price>,
) -> (Price, PriceSource) {
    if let Some(price) = own {
        return (*price, PriceSource::Pool);
    }
    let names = || upstream_model.into_iter().chain([model]);
    if let Some((_, price)) = names().find_map(in_table) {
        return (*price, PriceSource::Table);
    }
    let family = names().find_map(|name| FAMILIES.iter().find(|family| name.contains(**family)));
    let dearest = |of: &str| {
        TABLE
            .iter()
            .filter(|(name, _)| name.contains(of))
            .map(|(_, price)| *price)
            .max_by_key(|price| price.output)
    };
    match family.and_then(|family| dearest(family)) {
        Some(price) => (price, PriceSource::Family),
        None => (
            dearest("").unwrap_or(Price::of(MicroUsd(i64::MAX / 4), MicroUsd(i64::MAX / 4))),
            PriceSource::Dearest,
        ),
    }
}

/// The table's own name of `model`: one of few, whatever a client calls it.
pub fn table_name(model: &str) -> Option<&'static str> {
    in_table(model).map(|(name, _)| *name)
}

/// Finds `claude-sonnet-4-5` in `us.anthropic.claude-sonnet-4-5-20250929-v1:0` and in `claude-sonnet-4-5@20250929`, but
/// not in `claude-sonnet-4-50` or `claude-opus-4-9`: what follows a name must be a date, a version mark or nothing.
fn in_table(model: &str) -> Option<&'static (&'static str, Price)> {
    // One search for what all names begin with, instead of one for each name: this is asked twice for every request.
    model
        .match_indices(VENDOR)
        .find_map(|(at, _)| TABLE.iter().find(|(name, _)| is_called(&model[at..], name)))
}

/// Whether `model` begins with `name` and nothing follows but marks.
fn is_called(model: &str, name: &str) -> bool {
    let Some(rest) = model.strip_prefix(name) else {
        return false;
    };
    let is_mark = |part: &str| {
        part.len() == 8 && part.bytes().all(|b| b.is_ascii_digit())
            || part == "latest"
            || part.starts_with('v')
    };
    let mut parts = rest
        .trim_start_matches(['-', '@', ':'])
        .split(['-', ':', '@', '/']);
    rest.is_empty()
        || (!rest.starts_with(|c: char| c.is_ascii_alphanumeric())
            && parts.next().is_some_and(is_mark))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn input_usd(model: &str, upstream: Option<&str>) -> (String, PriceSource) {
        let (price, source) = price_of(model, upstream, None);
        (price.input.to_string(), source)
    }

    #[test]
    fn names_dates_and_bedrock_ids_find_their_price() {
        for (model, upstream, usd, source) in [
            ("claude-sonnet-4-5", None, "3.00", PriceSource::Table),
            (
                "claude-sonnet-4-5-20250929",
                None,
                "3.00",
                PriceSource::Table,
            ),
            ("claude-opus-4-20250514", None, "15.00", PriceSource::Table),
            (
                "claude-opus-4-1-20250805",
                None,
                "15.00",
                PriceSource::Table,
            ),
            ("claude-opus-4-5", None, "5.00", PriceSource::Table),
            (
                "alias",
                Some("us.anthropic.claude-haiku-4-5-20251001-v1:0"),
                "1.00",
                PriceSource::Table,
            ),
            (
                "alias",
                Some("arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-opus-4-8"),
                "5.00",
                PriceSource::Table,
            ),
            ("claude-3-5-haiku-latest", None, "0.80", PriceSource::Table),
            ("claude-opus-4-99", None, "15.00", PriceSource::Family),
            ("claude-haiku-9", None, "1.00", PriceSource::Family),
            ("something-else", None, "15.00", PriceSource::Dearest),
        ] {
            assert_eq!(
                input_usd(model, upstream),
                (usd.to_owned(), source),
                "{model} {upstream:?}"
            );
        }
    }

    #[test]
    fn a_pools_own_price_wins() {
        let own = Price::of(MicroUsd(1), MicroUsd(2));
        assert_eq!(
            price_of("claude-opus-4-8", None, Some(&own)),
            (own, PriceSource::Pool)
        );
    }

    #[test]
    fn a_million_tokens_of_each_class_cost_the_listed_price() {
        let tokens = TokenUsage {
            input: 1_000_000,
            output: 1_000_000,
            cache_read: 1_000_000,
            cache_creation_5m: 1_000_000,
            cache_creation_1h: 1_000_000,
        };
        let (price, _) = price_of("claude-sonnet-4-5", None, None);
        assert_eq!(price.cost(&tokens).to_string(), "28.05"); // 3 + 15 + 0.30 + 3.75 + 6
    }

    proptest! {
        #[test]
        fn a_sum_is_off_by_at_most_the_rounding(a in 0u64..1 << 40, b in 0u64..1 << 40) {
            let (price, _) = price_of("claude-opus-4-8", None, None);
            let cost = |input| price.cost(&TokenUsage { input, ..TokenUsage::default() }).0;
            prop_assert!((cost(a + b) - cost(a) - cost(b)).abs() <= 1);
        }

        #[test]
        fn no_model_is_free(model in ".{0,40}") {
            let (price, _) = price_of(&model, None, None);
            prop_assert!(price.input.0 > 0 && price.output.0 > 0);
        }
    }
}
