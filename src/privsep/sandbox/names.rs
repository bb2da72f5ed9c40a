//! Whether resolving a name asks a service of this host, over a socket in the file system.

/// What each module asks is in its own manual; glibc's own need no service, and ask nscd only if present.
const WITHOUT: [&str; 5] = ["files", "dns", "db", "compat", "myhostname"];

/// Whether the `hosts` line of this nsswitch.conf(5) names a module that needs such a socket: mdns4_minimal, sss, winbind and any unknown one.
/// nss-resolve(8) asks systemd-resolved; it counts only without `dns`, which otherwise asks the same resolver at its address in resolv.conf.
pub(super) fn ask_services(nsswitch: &str) -> bool {
    let lines = nsswitch.lines().map(|line| line.split('#').next().unwrap_or_default());
    // Without this line the C library uses files and dns.
    let Some(hosts) = lines.filter_map(|line| line.trim_start().strip_prefix("hosts:")).next() else {
        return false;
    };
    // Actions, such as [NOTFOUND=return], are not modules.
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
