//! The link as TOML.

use crate::link::{Link, PORT};

/// Returns the text of tund's file.
pub(super) fn write(link: &Link, left_out: &[String], key_file: &str) -> String {
    let mut out = Text(String::new());
    introduction(link, left_out, &mut out);
    outer(link, &mut out);
    match &link.openvpn {
        Some(wire) => wire.write(key_file, &mut out),
        None => {
            out.line("\n[key]");
            out.line("# The old key, converted; handshake keys have forward secrecy, which the old link did not have.");
            out.text("file", key_file);
        }
    }
    device(link, &mut out);
    for route in &link.routes {
        out.line("\n[[route]]");
        out.text("to", route.to.to_string().as_str());
        out.text("via", link.via(route).as_deref());
        out.number("metric", route.metric.or(link.route_metric));
    }
    if link.full_tunnel {
        out.line("\n[full-tunnel]");
    }
    scripts(link, &mut out);
    out.table("keepalive", |out| {
        let seconds =
            |value: Option<i64>| value.filter(|seconds| *seconds > 0).map(|seconds| format!("{seconds}s"));
        out.text("interval", seconds(link.ping).as_deref());
        // The peer gets several intervals in which to be heard.
        let timeout = link
            .ping_restart
            .or(link.ping.filter(|interval| *interval >= 60).map(|interval| interval.saturating_mul(3)));
        out.text("timeout", seconds(timeout).as_deref());
    });
    out.table("run", |out| {
        out.text("user", link.user.as_deref());
        out.text("group", link.group.as_deref());
        if link.daemon {
            out.line("daemon = true");
        }
        out.text("pid-file", link.pid_file.as_deref());
        out.number("verb", link.verb.map(|level| level.clamp(0, 9)));
        out.number("nice", link.nice.map(|level| level.clamp(-20, 19)));
        if link.syslog && !link.daemon {
            out.text("log", "syslog");
        }
    });
    out.table("tuning", |out| {
        out.number("socket-buffer", link.buffer.filter(|size| *size >= 4096));
        if link.copy_dscp {
            out.text("dscp", "copy");
        }
        if link.no_mss_clamp {
            out.line("mss-clamp = false");
        }
    });
    out.0
}

fn introduction(link: &Link, left_out: &[String], out: &mut Text) {
    let peer = match link.openvpn {
        Some(_) => " --wire openvpn`. The peer stays OpenVPN.",
        None => "`. Both ends have to change together.",
    };
    out.line(&format!("# From an OpenVPN configuration with a static key, by `tund import{peer}"));
    for line in left_out {
        out.line(&format!("# {line}"));
    }
}

fn scripts(link: &Link, out: &mut Text) {
    if !link.is_tap() && !link.full_tunnel && !link.scripts.is_empty() {
        out.line("\n[accept]");
        out.line("# The scripts may set routes. Without any, leave this out: only what is routed to the peer may come from it then.");
        out.text("sources", "any");
    }
    if !link.scripts.is_empty() {
        out.line("\n[scripts]");
        out.number("security", Some(link.security.min(3)));
        for (script, command) in &link.scripts {
            out.list(script, command);
        }
    }
}

/// Writes where datagrams go and arrive. Ports are always explicit, as tund's default differs from OpenVPN's.
fn outer(link: &Link, out: &mut Text) {
    let common = link.port.as_deref().unwrap_or(PORT);
    let port = link.remote_port.as_deref().unwrap_or(common);
    let remotes: Vec<_> =
        link.remotes.iter().map(|(host, own)| with_port(host, own.as_deref().unwrap_or(port))).collect();
    out.list("remote", &remotes);
    let own = link.local_port.as_deref().unwrap_or(common);
    match &link.local {
        _ if link.nobind && !remotes.is_empty() => {
            out.line("listen = 0                  # nobind: any free port, so that the peer has no `remote`, or `float`")
        }
        Some(address) => out.text("listen", with_port(address, own).as_str()),
        None => out.text("listen", own),
    }
    if !remotes.is_empty() && link.openvpn.as_ref().is_some_and(|wire| !wire.float) {
        out.line("float = false               # as OpenVPN without `float`");
    }
    out.text("bind-device", link.bind_device.as_deref());
    out.number("fwmark", link.mark);
}

fn with_port(host: &str, port: &str) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn device(link: &Link, out: &mut Text) {
    out.line("\n[device]");
    out.text("mode", if link.is_tap() { "tap" } else { "tun" });
    out.text("name", link.device_name());
    let mut addresses = Vec::new();
    let mut peers = Vec::new();
    for (own, peer) in [&link.ifconfig, &link.ifconfig_ipv6].into_iter().flatten() {
        addresses.push(own.clone());
        peers.extend(peer.clone().filter(|_| !link.is_tap()));
    }
    out.list("address", &addresses);
    out.list("peer", &peers);
    out.number("mtu", link.mtu);
    let scripted = link.scripts.iter().any(|(script, _)| *script == "up");
    // Like OpenVPN, leave a device without addresses to the script.
    if link.noexec || addresses.is_empty() && (scripted || !link.is_tap()) {
        out.line("configure = false           # addresses, MTU and the up state are set by a script");
    }
    out.text("mac", link.mac.as_deref());
    out.number("txqueuelen", link.txqueuelen);
}

pub(super) struct Text(String);

impl Text {
    pub fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    pub fn text<'a>(&mut self, key: &str, value: impl Into<Option<&'a str>>) {
        self.value(key, value.into());
    }

    pub fn number(&mut self, key: &str, value: Option<i64>) {
        self.value(key, value);
    }

    /// Writes one string, or a list unless it is empty.
    fn list(&mut self, key: &str, values: &[String]) {
        match values {
            [] => {}
            [value] => self.value(key, Some(value.as_str())),
            several => self.value(key, Some(several.to_vec())),
        }
    }

    fn value(&mut self, key: &str, value: Option<impl Into<toml::Value>>) {
        if let Some(value) = value {
            self.line(&format!("{key} = {}", value.into()));
        }
    }

    /// Writes a table unless it is empty.
    pub fn table(&mut self, name: &str, fill: impl FnOnce(&mut Text)) {
        let mut inside = Text(String::new());
        fill(&mut inside);
        if !inside.0.is_empty() {
            self.line(&format!("\n[{name}]"));
            self.0.push_str(&inside.0);
        }
    }
}
