//! Why an OpenVPN directive is missing from tund's file.

/// Directives of a link with certificates, which is another kind of link.
pub(super) const TLS: [&str; 17] = [
    "tls-server",
    "tls-client",
    "client",
    "server",
    "server-bridge",
    "server-ipv6",
    "pull",
    "ca",
    "cert",
    "key",
    "dh",
    "pkcs12",
    "auth-user-pass",
    "client-config-dir",
    "tls-auth",
    "tls-crypt",
    "tls-crypt-v2",
];

/// Directives that concern certificates, users, a server with clients, or what it sends them.
const TLS_ONLY: &[&str] = &[
    "allow-pull-fqdn",
    "askpass",
    "auth-gen-token",
    "auth-gen-token-key",
    "auth-gen-token-secret",
    "auth-retry",
    "auth-token",
    "auth-token-user",
    "auth-user-pass-optional",
    "auth-user-pass-verify",
    "block-outside-dns",
    "capath",
    "ccd-exclusive",
    "client-cert-not-required",
    "client-connect",
    "client-crresponse",
    "client-disconnect",
    "client-nat",
    "client-to-client",
    "connect-freq",
    "connect-freq-initial",
    "crl-verify",
    "cryptoapicert",
    "disable",
    "duplicate-cn",
    "ecdh-curve",
    "extra-certs",
    "force-tls-key-material-export",
    "hand-window",
    "hash-size",
    "ifconfig-ipv6-pool",
    "ifconfig-ipv6-push",
    "ifconfig-pool",
    "ifconfig-pool-linear",
    "ifconfig-pool-persist",
    "ifconfig-push",
    "key-derivation",
    "override-username",
    "peer-id",
    "protocol-flags",
    "iroute",
    "iroute-ipv6",
    "key-method",
    "keying-material-exporter",
    "learn-address",
    "max-clients",
    "max-routes-per-client",
    "no-name-remapping",
    "ns-cert-type",
    "opt-verify",
    "peer-fingerprint",
    "pkcs11-cert-private",
    "pkcs11-id",
    "pkcs11-id-management",
    "pkcs11-pin-cache",
    "pkcs11-private-mode",
    "pkcs11-protected-authentication",
    "pkcs11-providers",
    "port-share",
    "pull-filter",
    "push",
    "push-peer-info",
    "push-remove",
    "push-reset",
    "remote-cert-eku",
    "remote-cert-ku",
    "remote-cert-tls",
    "tls-remote",
    "reneg-bytes",
    "reneg-pkts",
    "reneg-sec",
    "route-nopull",
    "server-poll-timeout",
    "session-timeout",
    "single-session",
    "stale-routes-check",
    "static-challenge",
    "tls-cert-profile",
    "tls-cipher",
    "tls-ciphersuites",
    "tls-crypt-v2-max-age",
    "tls-crypt-v2-verify",
    "tls-exit",
    "tls-export-cert",
    "tls-groups",
    "tls-timeout",
    "tls-verify",
    "tls-version-max",
    "tls-version-min",
    "tran-window",
    "username-as-common-name",
    "verify-client-cert",
    "verify-x509-name",
    "vlan-accept",
    "vlan-pvid",
    "vlan-tagging",
    "x509-track",
    "x509-username-field",
    "management-client-auth",
    "management-client-pf",
    "auth-user-pass-file",
];

/// Directives about Windows and name servers.
const WINDOWS: &[&str] = &[
    "allow-nonadmin",
    "dhcp-release",
    "dhcp-renew",
    "dhcp-option",
    "ip-win32",
    "pause-exit",
    "register-dns",
    "route-method",
    "show-adapters",
    "show-net",
    "show-net-up",
    "show-valid-subnets",
    "tap-sleep",
    "win-sys",
    "windows-driver",
    "service",
    "block-ipv6",
    "dns",
    "dns-updown",
];

/// OpenVPN's directives and tund's equivalents.
pub const EQUALS: &[(&str, &str)] = &[
    ("auth", "remove it: every cipher of tund authenticates"),
    ("bind-dev", "use bind-device"),
    ("cd", "use the option --cd, or paths relative to this file"),
    ("comp-lzo", "remove it: tund does not compress"),
    ("compress", "remove it: tund does not compress"),
    ("data-ciphers", "use key.cipher"),
    ("dev", "use device.mode for tun or tap, device.name for a name"),
    ("dev-node", "remove it: /dev/net/tun is always used"),
    ("dev-type", "use device.mode"),
    ("fast-io", "remove it: there is nothing to choose"),
    ("ifconfig", "use device.address and device.peer (tap: an address with its prefix)"),
    ("ifconfig-ipv6", "use device.address and device.peer, which take IPv6 too"),
    ("ifconfig-noexec", "use device.configure = false"),
    ("ifconfig-nowarn", "remove it"),
    ("inetd", "use the option --inetd"),
    ("ipchange", "use scripts.link-up"),
    ("key-direction", "use key.direction"),
    ("link-mtu", "use device.mtu"),
    ("lladdr", "use device.mac"),
    ("local", "use listen, such as \"192.0.2.1:8863\""),
    ("log-append", "use run.log"),
    ("lport", "use listen"),
    ("mark", "use fwmark"),
    ("mssfix", "use tuning.mss-clamp"),
    ("mtu-disc", "remove it: tund never sends IP fragments"),
    ("multihome", "remove it: answers always leave from the address that was asked"),
    ("nobind", "remove listen"),
    ("passtos", "use tuning.dscp"),
    ("persist-key", "remove it: tund always does this"),
    ("persist-tun", "remove it: tund always does this"),
    ("ping", "use keepalive.interval"),
    ("ping-restart", "use keepalive.timeout"),
    ("port", "use listen; the peer's port goes into remote"),
    ("proto", "remove it: tund speaks UDP"),
    ("rcvbuf", "use tuning.socket-buffer"),
    ("redirect-gateway", "use [full-tunnel]"),
    ("resolv-retry", "remove it: names are retried forever"),
    ("route-gateway", "use device.peer"),
    ("route-metric", "use metric in each [[route]]"),
    ("route-noexec", "remove the [[route]] tables"),
    ("rport", "put the port into remote, such as \"mon.tn:1417\""),
    ("script-security", "use scripts.security"),
    ("secret", "use key.file with a key of `tund genkey`; the direction goes into key.direction"),
    ("sndbuf", "use tuning.socket-buffer"),
    ("tls-auth", "remove it: every datagram is authenticated"),
    ("tls-crypt", "remove it: every datagram is encrypted"),
    ("tun-mtu", "use device.mtu"),
    ("writepid", "use run.pid-file"),
];

/// What tund always does, so that its file need not say it.
const ALWAYS: &[(&[&str], &str)] = &[
    (&["auth"], "every cipher of tund authenticates as well"),
    (&["persist-tun", "persist-key"], "tund always does this"),
    (&["resolv-retry"], "names are retried forever"),
    (&["fast-io", "dev-node", "tun-ipv6", "ifconfig-nowarn", "up-delay"], "there is nothing to choose"),
    (&["multihome"], "answers always leave from the address that was asked"),
    (&["mtu-disc", "mtu-test"], "tund never sends IP fragments, and finds the path's size by itself"),
    (&["fragment", "link-mtu"], "frames larger than the path are carried whole; there is no size to set"),
    (
        &["replay-window", "replay-persist", "mute-replay-warnings"],
        "replayed datagrams are always rejected, also after a restart",
    ),
    (&["mute"], "repeated lines are limited"),
    (&["ping-timer-rem"], "the timer always runs only while there is a peer"),
    (&["auth-nocache"], "a link with a static key has no password that could be kept"),
    (
        &["errors-to-stderr", "machine-readable-output", "suppress-timestamps", "management-log-cache"],
        "the log goes where run.log says, one line for each event",
    ),
    (
        &[
            "persist-local-ip",
            "persist-remote-ip",
            "remap-usr1",
            "allow-recursive-routing",
            "compat-mode",
            "gremlin",
        ],
        "there is nothing to choose",
    ),
    (
        &[
            "disable-dco",
            "bcast-buffers",
            "tcp-nodelay",
            "tcp-queue-limit",
            "socket-flags",
            "max-packet-size",
        ],
        "tund's data path needs no such setting",
    ),
    (&["tun-max-mtu", "tun-mtu-extra"], "the device has one MTU, device.mtu"),
    (&["disable-occ"], "both ends say in one line what does not match"),
    (&["float"], "it is the default"),
    (&["allow-deprecated-insecure-static-crypto"], "the link becomes one with forward secrecy"),
    (
        &[
            "providers",
            "engine",
            "prng",
            "keysize",
            "ncp-disable",
            "cipher",
            "data-ciphers",
            "data-ciphers-fallback",
            "ncp-ciphers",
        ],
        "the ends agree on AES-256-GCM or ChaCha20-Poly1305",
    ),
    (
        &["mlock"],
        "the process that reads the network keeps keys in its own memory only and leaves no core file",
    ),
    (&["down-pre"], "down always runs while the device still exists"),
    (&["chroot"], "the process that reads the network always has an empty root"),
    (&["key-direction"], "handshake keys have their directions by themselves"),
    (
        &["mode", "connect-retry", "connect-retry-max", "connect-timeout", "explicit-exit-notify", "bind"],
        "a link of two ends always works this way",
    ),
];

/// The same if the wire stays OpenVPN's.
const WIRE: &[(&[&str], &str)] = &[
    (
        &["providers", "engine", "prng", "ncp-disable", "data-ciphers", "ncp-ciphers"],
        "it changes nothing on the wire of a link with a static key",
    ),
    (&["allow-deprecated-insecure-static-crypto"], "tund needs no permission for it"),
    (
        &["comp-noadapt", "allow-compression", "compress"],
        "tund never compresses, and drops what is compressed",
    ),
    (&["disable-occ"], "the peer's questions are answered; it is asked as well, and may be silent"),
    (
        &["mtu-disc", "mtu-test"],
        "what exceeds the path travels as IP fragments, as it does with OpenVPN by default",
    ),
    (&["link-mtu"], "set device.mtu to what the peer has as `tun-mtu`, which is 1500 without the two"),
    (&["explicit-exit-notify"], "nothing is said at the end: OpenVPN up to 2.5 would end as well"),
];

/// What works differently in tund.
const OTHERWISE: &[(&[&str], &str)] = &[
    (
        &["comp-lzo", "compress", "comp-noadapt", "allow-compression"],
        "tund does not compress: compression leaks what encryption hides",
    ),
    (&["no-replay", "no-iv"], "tund always refuses replays, and never repeats a nonce"),
    (&["cd"], "give tund the option --cd, or write paths relative to its own file"),
    (&["inetd"], "give tund the option --inetd"),
    (
        &["management", "management-client", "management-hold"],
        "ask with `tund status` and `tund stats` instead",
    ),
    (&["status", "status-version", "memstats"], "ask with `tund status` instead"),
    (
        &["ping-exit", "inactive"],
        "a link stays; one that inetd or systemd starts ends by keepalive.idle-exit",
    ),
    (&["config"], "other files are not read: import them one by one"),
    (
        &[
            "http-proxy",
            "socks-proxy",
            "http-proxy-option",
            "http-proxy-retry",
            "http-proxy-timeout",
            "socks-proxy-retry",
        ],
        "set `proxy`, and a remote that begins with tcp:",
    ),
    (&["remote-random"], "remotes are tried in their order"),
    (&["route-delay"], "routes are set as soon as the device is ready"),
    (&["route-noexec"], "the routes were left to a script: they are not set by tund either"),
    (
        &["up-restart"],
        "the device stays through restarts, so up runs once; use link-up for what follows the peer",
    ),
    (
        &["topology"],
        "a tun link of two ends has one address at each end; a prefix may stand in device.address",
    ),
    (&["setenv", "setenv-safe"], "scripts get OpenVPN's names, and TUND_ ones, but no others"),
    (&["plugin"], "plugins cannot be loaded; a script may do what it did"),
    (&["shaper"], "use tc(8) on the device"),
    (&["echo", "verify-hash"], "it has no effect with a static key"),
    (TLS_ONLY, "it belongs to links with certificates and has no effect with a static key"),
    (WINDOWS, "it sets up a host of another system, or its name servers; a link-up script can do that"),
    (
        &["log"],
        "use run.log = \"syslog\" or \"journal\", or a shell's redirection: without it the log goes to standard error",
    ),
    (&["iproute"], "routes are set through netlink, without a program"),
    (&["redirect-private", "route-ipv6-gateway"], "name the gateway as via in each [[route]]"),
    (&["remote-random-hostname", "proto-force"], "remotes are taken as they are, by UDP"),
    (
        &["ignore-unknown-option", "setcon", "tmp-dir", "use-prediction-resistance", "enable-small"],
        "tund has no equivalent",
    ),
    (
        &[
            "management-client-group",
            "management-client-user",
            "management-external-cert",
            "management-external-key",
            "management-forget-disconnect",
            "management-query-passwords",
            "management-query-proxy",
            "management-query-remote",
            "management-signal",
            "management-up-down",
        ],
        "ask with `tund status` and `tund stats` instead",
    ),
    (&["http-proxy-user-pass"], "set `proxy` with the user, and `proxy-password-file`"),
    (
        &[
            "genkey",
            "help",
            "mktun",
            "rmtun",
            "show-ciphers",
            "show-curves",
            "show-digests",
            "show-engines",
            "show-gateway",
            "show-groups",
            "show-pkcs11-ids",
            "show-tls",
            "test-crypto",
            "show-proxy-settings",
            "version",
        ],
        "it is a command, not part of a configuration",
    ),
];

/// Returns tund's equivalent of an OpenVPN directive; underscores count as hyphens.
pub fn equal(name: &str) -> Option<&'static str> {
    let name = name.replace('_', "-").to_ascii_lowercase();
    EQUALS.iter().find(|(directive, _)| *directive == name).map(|(_, hint)| *hint)
}

/// Returns why a directive is not translated. `wire`: for a peer that stays OpenVPN.
pub(super) fn reason(name: &str, wire: bool) -> Option<&'static str> {
    let mut lists = WIRE.iter().filter(|_| wire).chain(ALWAYS).chain(OTHERWISE);
    let listed = lists.find(|(names, _)| names.contains(&name)).map(|(_, reason)| *reason);
    listed.or_else(|| equal(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_directive_has_one_reason() {
        let mut seen = std::collections::BTreeSet::new();
        for name in ALWAYS.iter().chain(OTHERWISE).flat_map(|(names, _)| *names).chain(&TLS) {
            assert!(seen.insert(name), "{name} is listed twice");
        }
        assert_eq!(reason("comp-lzo", false).unwrap().split(':').next(), Some("tund does not compress"));
        assert_eq!(reason("no-such-directive", true), None);
    }

    /// openvpn(8) of 2.6 and 2.7: every directive is translated, refused, or left out with a reason.
    #[test]
    fn no_directive_of_the_manual_is_unknown() {
        const TRANSLATED: &[&str] = &[
            "daemon",
            "down",
            "group",
            "keepalive",
            "nice",
            "remote",
            "route",
            "route-ipv6",
            "route-pre-down",
            "route-up",
            "syslog",
            "txqueuelen",
            "up",
            "user",
            "verb",
        ];
        for name in include_str!("directives.txt").split_whitespace() {
            let known = TRANSLATED.contains(&name) || TLS.contains(&name) || reason(name, false).is_some();
            assert!(known, "{name}");
        }
    }
}
