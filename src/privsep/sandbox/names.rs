//! Whether looking a name up takes a service of this host, which is asked over a socket in the file system.

/// What each module asks is in its own manual; glibc's own do without, and ask nscd only if it is there.
const WITHOUT: [&str; 5] = ["files", "dns", "db", "compat", "myhostname"];

/// Whether the `hosts` line of this nsswitch.conf(5) names a module that does nothing without such a socket:
/// mdns4_minimal, sss, winbind and whatever is not known here. nss-resolve(8) asks systemd-resolved; where it cannot,
/// `dns` asks the same by the address that resolv.conf has for that, so that it counts where there is no `dns` alone.
pub(super) fn ask_services(nsswitch: &str) -> bool {
    let lines = nsswitch.lines().map(|line| line.split('#').next().unwrap_or_default());
    // Without a line the C library takes files and dns.
    let Some(hosts) = lines.filter_map(|line| line.trim_start().strip_prefix("hosts:")).next() else {
        return false;
    };
    // What to do after each, such as [NOTFOUND=return], is no module.
    let modules = hosts.split('[').map(|part| part.split_once(']').map_or(part, |(_, after)| after));
    let modules: Vec<&str> = modules.flat_map(str::split_whitespace).collect();
    let resolves = |module: &&str| *module == "resolve" && modules.contains(&"dns");
    !modules.iter().all(|module| WITHOUT.contains(module) || resolves(module))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_modules_that_ask_a_service_need_its_socket() {
        for without in [
            "",
            "passwd: files sss\n",
            "hosts: files dns\n",
            "# hosts: mdns\n  hosts:\tfiles myhostname resolve [!UNAVAIL=return] dns # mdns4\n",
            "hosts: files [NOTFOUND=return UNAVAIL=continue] dns\nhosts: sss",
        ] {
            assert!(!ask_services(without), "{without}");
        }
        for with in [
            "hosts: files mdns4_minimal [NOTFOUND=return] dns\n",
            "hosts: files resolve\n",
            "hosts: files resolve [!UNAVAIL=return]\n",
            "hosts:files[NOTFOUND=continue]sss",
            "hosts: files dns mymachines",
        ] {
            assert!(ask_services(with), "{with}");
        }
    }
}
