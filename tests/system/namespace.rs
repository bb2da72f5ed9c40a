//! Runs a test in its own network namespace, and queries `ip`.

use std::process::Command;

use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use serde_json::Value;
use tund::config::{Config, Options, Route, Via, parse};
use tund::packet::layer::Mode;
use tund::route::netlink::Netlink;
use tund::route::plan::Step;

const INSIDE: &str = "TUND_TEST_INSIDE";

/// Runs `body` in new network and mount namespaces, with loopback up. The test binary restarts itself under unshare(1),
/// and if not root, in a new user namespace too.
pub fn isolated(body: fn()) {
    if std::env::var_os(INSIDE).is_some() {
        let netlink = &mut Netlink::open().unwrap();
        link_up(netlink, "lo");
        return body();
    }
    let name = std::thread::current().name().expect("test threads have names").to_owned();
    let flags = if rustix::process::geteuid().is_root() { "-nm" } else { "-Urnm" };
    let output = Command::new("unshare")
        .args([flags, "--"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare(1) of util-linux must be installed");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "in `unshare {flags}` (it needs root, or user namespaces and access to /dev/net/tun):\n{text}"
    );
}

/// Runs a command line that must succeed and returns its output.
pub fn sh(line: &str) -> String {
    let words: Vec<_> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap_or_else(|e| panic!("{line}: {e}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

pub fn link_up(netlink: &mut Netlink, name: &str) {
    let link = netlink.link(name).unwrap().unwrap_or_else(|| panic!("no interface {name}"));
    let step = Step::SetLink {
        index: link.index,
        name: name.to_owned(),
        mtu: None,
        mac: None,
        txqueuelen: None,
        up: Some(true),
    };
    netlink.apply(&step).unwrap();
}

/// Runs `body` in a thread without capabilities.
pub fn unprivileged<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let mut sets = capabilities(None).unwrap();
            sets.effective = CapabilitySet::empty();
            set_capabilities(None, sets).unwrap();
            body()
        });
        thread.join().unwrap()
    })
}

/// The output of `ip -j`.
pub fn ip(arguments: &str) -> Vec<Value> {
    let text = sh(&format!("ip -j {arguments}"));
    if text.trim().is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
}

/// A minimal configuration: only the device's mode.
pub fn config(mode: Mode) -> Config {
    let mode = if mode == Mode::Tun { "tun" } else { "tap" };
    let text = format!(
        "[key]\nfile = \"k\"\nmode = \"static\"\ndirection = 0\n\
         [device]\nmode = \"{mode}\"\nmtu = 1400\nconfigure = false\n[tuning]\nsocket-buffer = 65536\n"
    );
    let mut config = parse("test", &text, &Options::new("/")).config.unwrap();
    config.device.configure = true;
    config.listen.port = 0;
    config
}

/// A configured route.
pub fn route(to: &str, via: Via, metric: Option<u32>, table: Option<u32>) -> Route {
    Route { to: to.parse().unwrap(), via, metric, table }
}
