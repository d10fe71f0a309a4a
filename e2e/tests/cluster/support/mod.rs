//! What the tests need: the installation, tenants with upstreams of their own, clients, and ways to break things.

pub mod commands;
pub mod database;
pub mod fakes;
pub mod install;
pub mod kill;
pub mod message;
pub mod objects;
pub mod operator;
pub mod outage;
pub mod python;
pub mod suite;
pub mod tenant;
pub mod wait;
pub mod world;

pub use tenant::Tenant;
pub use wait::eventually;
pub use world::{PLATFORM, World};
