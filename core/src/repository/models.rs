//! Models and prices as columns.

use super::error::{RepositoryError, Result};
use crate::domain::models::{ModelMapping, ModelPattern, ModelPatterns};
use crate::domain::money::MicroUsd;
use crate::domain::pricing::Price;

/// A `model_mappings` row.
pub(super) struct MappingRow {
    pub(super) name: String,
    pub(super) bedrock_model_id: Option<String>,
    pub(super) bedrock_api: String,
    pub(super) price_input: Option<i64>,
    pub(super) price_output: Option<i64>,
    pub(super) price_cache_read: Option<i64>,
    pub(super) price_cache_write_5m: Option<i64>,
    pub(super) price_cache_write_1h: Option<i64>,
}

impl MappingRow {
    pub(super) fn into_mapping(self) -> Result<ModelMapping> {
        let unreadable = |problem: String| RepositoryError::Unreadable {
            table: "model_mappings",
            problem,
        };
        let price = || {
            Some(Price {
                input: MicroUsd(self.price_input?),
                output: MicroUsd(self.price_output?),
                cache_read: MicroUsd(self.price_cache_read?),
                cache_write_5m: MicroUsd(self.price_cache_write_5m?),
                cache_write_1h: MicroUsd(self.price_cache_write_1h?),
            })
        };
        Ok(ModelMapping {
            price: price(),
            name: ModelPattern::new(&self.name).map_err(|error| unreadable(error.to_string()))?,
            bedrock_model_id: self.bedrock_model_id,
            bedrock_api: self
                .bedrock_api
                .parse()
                .map_err(|error| unreadable(format!("{error}")))?,
        })
    }
}

/// An `allowed_models` column.
pub(super) fn patterns(table: &'static str, texts: &[String]) -> Result<ModelPatterns> {
    ModelPatterns::new(texts).map_err(|error| RepositoryError::Unreadable {
        table,
        problem: error.to_string(),
    })
}
