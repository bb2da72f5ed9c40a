//! Resource use of the machine and its processes, from `/proc`.

use std::fs;
use std::time::Duration;

use crate::{At, Error};

/// Ticks of `/proc` per second; Linux guarantees this value on every machine.
const TICKS: u64 = 100;

/// CPU time used by the whole machine since boot: all but idle and stolen time.
pub fn busy() -> Result<Duration, Error> {
    let columns = processor()?;
    let [user, nice, system, _idle, _waiting, hard, soft, ..] = columns[..] else {
        return Err(Error::new("/proc/stat has too few columns"));
    };
    Ok(ticks(user + nice + system + hard + soft))
}

/// CPU time stolen by a hypervisor since boot.
pub fn stolen() -> Result<Duration, Error> {
    Ok(ticks(processor()?.get(7).copied().unwrap_or_default()))
}

fn processor() -> Result<Vec<u64>, Error> {
    let text = fs::read_to_string("/proc/stat").at("/proc/stat")?;
    let line = text.lines().next().unwrap_or_default();
    Ok(line.split_whitespace().skip(1).filter_map(|number| number.parse().ok()).collect())
}

fn ticks(count: u64) -> Duration {
    Duration::from_millis(count * 1000 / TICKS)
}

/// CPU time used by a process and all its threads. Zero if it is gone.
pub fn spent(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The program's name, in parentheses, may contain blanks.
    let after = text.rsplit(") ").next().unwrap_or_default();
    let numbers = after.split_whitespace().skip(11).take(2);
    ticks(numbers.filter_map(|number| number.parse::<u64>().ok()).sum())
}

/// Memory of a process in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident pages.
    pub resident: u64,
    /// The same, each page divided by the number of processes that share it.
    pub proportional: u64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident: self.resident + other.resident,
            proportional: self.proportional + other.proportional,
        }
    }
}

/// Current memory of a process. Zero if it is gone.
pub fn memory(pid: u32) -> Memory {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).unwrap_or_default()
    };
    Memory { resident: kilobytes("Rss:") << 10, proportional: kilobytes("Pss:") << 10 }
}

/// The model of the processor and the number of cores that this process may use.
pub fn processor_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} × {}", model.map_or("unknown processor", |(_, name)| name.trim()))
}

/// The kernel's release.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_the_machine_have_spent_time_and_memory() {
        let own = std::process::id();
        let memory = memory(own);
        assert!(memory.resident >= memory.proportional && memory.proportional > 100 << 10, "{memory:?}");
        let before = (busy().unwrap(), spent(own));
        let mut sum = 0_u64;
        // The two use different clocks, so wait for each.
        while spent(own) == before.1 || busy().unwrap() == before.0 {
            sum = std::hint::black_box(sum).wrapping_add(1);
        }
        assert!(stolen().is_ok());
    }

    #[test]
    fn a_process_that_is_gone_has_nothing() {
        assert_eq!((memory(u32::MAX), spent(u32::MAX)), (Memory::default(), Duration::ZERO));
    }
}
