//! What the stories run on.

pub mod claude;
pub mod conversation;
pub mod database;
pub mod programs;
pub mod script;
pub mod tap;
pub mod task;
pub mod world;

use std::time::Duration;

pub use world::{Api, World};

/// How long anything may take that is not a whole task.
pub const LIMIT: Duration = Duration::from_secs(30);
