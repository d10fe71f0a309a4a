//! The rules of Spillway, without I/O.

pub mod bedrock;
pub mod models;
pub mod money;
pub mod pool;
pub mod pricing;
pub mod tokens;
pub mod upstream;
pub mod usage;
