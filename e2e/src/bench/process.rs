//! What a process costs, as the kernel counts it.

use std::time::Duration;
use std::{fs, io};

use nix::sys::time::TimeSpec;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time of all threads of a process, those that have ended included.
///
/// # Errors
/// There is no such process.
pub(super) fn cpu(pid: u32) -> io::Result<Duration> {
    let pid = i32::try_from(pid).map_err(io::Error::other)?;
    let clock = clock_getcpuclockid(Pid::from_raw(pid))?;
    Ok(duration(clock_gettime(clock)?))
}

fn duration(time: TimeSpec) -> Duration {
    Duration::new(
        u64::try_from(time.tv_sec()).unwrap_or_default(),
        u32::try_from(time.tv_nsec()).unwrap_or_default(),
    )
}

/// Resident memory in bytes.
///
/// # Errors
/// There is no such process.
pub fn resident(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kilobytes = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .ok_or_else(|| io::Error::other("no VmRSS in the process's status"))?;
    Ok(kilobytes * 1024)
}
