//! Spillway's Kubernetes operator: custom resources become keys, database rows and proxies.

pub mod apply;
pub mod check;
pub mod circuit_status;
pub mod cli;
pub mod commands;
pub mod context;
pub mod controllers;
pub mod database;
pub mod database_secret;
pub mod default_pool;
pub mod events;
pub mod health;
pub mod leader;
pub mod master_secrets;
pub mod metrics;
pub mod pace;
pub mod release;
pub mod report;
pub mod resources;
pub mod run;
pub mod settings;
pub mod shutdown;
pub mod sweep;
pub mod usage_status;
