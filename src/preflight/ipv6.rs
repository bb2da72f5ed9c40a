//! What in a configuration needs IPv6, on a host without it.

use std::net::IpAddr;

use crate::config::{Code, Config, Diagnostic, Places};
use crate::sys::rights;

/// Why this host has no IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Without {
    /// The kernel has none.
    Kernel,
    /// The sysctl disables it on every device, and on new ones.
    Sysctl,
    /// The sysctl disables it on new devices.
    SysctlOfNew,
}

/// Why this host has no IPv6, if so.
pub(super) fn without() -> Option<Without> {
    let forbids = |which: &str| {
        let value = std::fs::read_to_string(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"));
        value.is_ok_and(|value| value.trim_end() == "1")
    };
    if !rights::has_ipv6() {
        return Some(Without::Kernel);
    }
    if forbids("all") {
        return Some(Without::Sysctl);
    }
    forbids("default").then_some(Without::SysctlOfNew)
}

/// Warns of each setting that needs IPv6.
pub(super) fn check(config: &Config, places: &Places, without: Option<Without>) -> Vec<Diagnostic> {
    let Some(without) = without else { return Vec::new() };
    let (why, help) = match without {
        Without::Kernel => (
            "this kernel has no IPv6 (not built in, or started with ipv6.disable=1), or this service may not use it",
            "use IPv4 addresses, or start the kernel with IPv6",
        ),
        Without::Sysctl | Without::SysctlOfNew => (
            "IPv6 is disabled on this host",
            "set the sysctl net.ipv6.conf.all.disable_ipv6 to 0 (a container: --sysctl net.ipv6.conf.all.disable_ipv6=0), or use \
             IPv4 addresses",
        ),
    };
    let device = config.device.addresses.iter().map(|address| address.addr());
    let device = device.filter(|_| config.device.configure).map(|address| ("device.address", address));
    let outer = config.remotes.iter().filter_map(|remote| remote.address());
    let outer =
        outer.map(|address| ("remote", address)).chain(config.listen.address.map(|own| ("listen", own)));
    let outer = outer.filter(|_| without != Without::SysctlOfNew);
    let finding = |(key, address): (&str, IpAddr)| {
        Diagnostic::warning(Code::NoIpv6, places.of(key), format!("{why}, but {key} has {address}"))
            .help(help)
    };
    device
        .chain(outer)
        .filter(|(_, address)| address.is_ipv6() && !address.is_unspecified())
        .map(finding)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};

    #[test]
    fn what_takes_ipv6_is_named_where_the_host_has_none() {
        let text = "remote = \"[2001:db8::1]:1417\"\n[key]\nfile = \"k\"\n[device]\naddress = [\"10.0.0.1\", \"fd00::1\"]\n\
                    peer = [\"10.0.0.2\", \"fd00::2\"]\n";
        let parsed = parse("l", text, &Options::new("/"));
        let config = parsed.config.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics));
        let found = |without| -> Vec<&str> {
            let found = check(&config, &parsed.places, without);
            assert!(found.iter().all(|finding| finding.code == Code::NoIpv6), "{found:?}");
            found.into_iter().map(|finding| &text[finding.span.unwrap()]).collect()
        };
        assert_eq!(found(None), [""; 0]);
        assert_eq!(found(Some(Without::Sysctl)), ["[\"10.0.0.1\", \"fd00::1\"]", "\"[2001:db8::1]:1417\""]);
        assert_eq!(found(Some(Without::SysctlOfNew)).len(), 1);
        assert_eq!(found(Some(Without::Kernel)).len(), 2);
    }
}
