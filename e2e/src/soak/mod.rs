//! A steady load for a long time, with everything failing in turn: does memory stay flat, and is every request in the
//! database once?

mod faults;
mod load;
mod memory;
mod rows;
mod run;

pub use run::{Options, SoakError, run};
