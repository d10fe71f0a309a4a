//! What the proxy costs beside nginx as a plain reverse proxy: the same requests to the same upstream, in rounds that take
//! turns, with the subject alone on one core and everything else on another. Results are ratios; a machine's own speed is in
//! neither.

mod client;
mod load;
mod memory;
mod payload;
mod plan;
mod process;
mod report;
mod run;
mod subject;
mod upstream;

pub use process::resident;
pub use run::{BenchError, Options, run};
