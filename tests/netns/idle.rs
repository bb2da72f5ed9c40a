//! An idle link.

use std::fs;
use std::time::{Duration, Instant};

use tund_lab::Host;

use super::support::*;

/// How often the threads of a host's processes have gone to sleep.
fn sleeps(host: &Host) -> u64 {
    let threads = |pid| fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    let statuses = host.processes().into_iter().flat_map(threads).map(|thread| thread.path().join("status"));
    statuses.filter_map(|path| count(fs::read_to_string(path).unwrap())).sum()
}

#[test]
fn a_link_that_nothing_crosses_sleeps_between_its_keepalives() {
    let pair = pair();
    let quiet = |toml: Toml| toml.with("[keepalive]\ninterval = '50s'\ntimeout = '170s'");
    let _link = pair.link(&quiet(Toml::tun_fri()), &quiet(Toml::tun_mon()));
    // The kernel sends packets of its own on a new device, and path MTU discovery runs.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let before = sleeps(&pair.fri);
        std::thread::sleep(Duration::from_secs(4));
        let slept = sleeps(&pair.fri) - before;
        if slept <= 2 {
            return;
        }
        assert!(Instant::now() < deadline, "{slept} times in 4 s");
    }
}
