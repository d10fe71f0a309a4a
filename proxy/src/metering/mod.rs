//! One usage row for each messages request, whatever is killed: open and close records in a local spool, flushed to Postgres.

mod clock;
mod flusher;
mod meter;
pub(crate) mod record;
mod spool;

pub use clock::Clock;
pub use flusher::Flusher;
pub use meter::Meter;
pub use spool::{Spool, SpoolError};
