//! The next steps, as commands.

use std::path::Path;

use super::INSTALLED;
use super::plan::{Inside, Link, Service, TapEnd};
use crate::config::DEFAULT_PORT;

/// The commands that start the link whose files are in `directory`.
pub fn text(link: &Link, directory: &Path) -> String {
    let [here, there] = [0, 1].map(|end| link.ends[end].name.as_str());
    let files = link.files();
    let at = |name: &str| directory.join(name).display().to_string();
    let mut text = format!(
        "{} is for {here}, {} for {there}, and {} for both.\n\n\
         Copy {there}'s file and the key to {there}:\n\n",
        at(&files[0]),
        at(&files[1]),
        at(&link.key())
    );
    let host = link.ends[1].outer.as_ref().map_or(there, |(host, _)| host);
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let folder = if link.service.is_some() { format!("{INSTALLED}/") } else { String::new() };
    let (file, key) = (at(&files[1]), at(&link.key()));
    text.push_str(&match link.has_unit(1) {
        true => format!(
            "    scp {file} root@{host}:{folder}\n    scp {key} root@{host}:{folder}{}.key\n",
            link.name(1)
        ),
        false => format!("    scp {file} {key} root@{host}:{folder}\n"),
    });
    for end in [1, 0] {
        let name = [here, there][end];
        text.push_str(&format!("\nOn {name}, as root:\n\n"));
        if end == 0 && link.service.is_some() && directory != Path::new(INSTALLED) {
            text.push_str(&format!("    install -m 0644 {} {folder}\n", at(&files[0])));
            text.push_str(&format!("    install -m 0600 {key} {folder}\n"));
        }
        text.push_str(&start(link, end, &if end == 0 { at(&files[0]) } else { files[1].clone() }));
    }
    let peer = match &link.inside {
        Inside::Tun(addresses) => Some(addresses[1].to_string()),
        Inside::Tap(ends) => match &ends[1] {
            TapEnd::Address(address) => Some(address.addr().to_string()),
            TapEnd::Bridge(_) => None,
        },
    };
    let test = peer.map_or_else(|| format!("tund status {}", link.name(0)), |peer| format!("ping {peer}"));
    text.push_str(&format!("\nThen, on {here}:\n\n    {test}\n"));
    text
}

/// How one end is started.
fn start(link: &Link, end: usize, file: &str) -> String {
    let name = link.name(end);
    let server = end == link.server();
    match link.service {
        Some(Service::Systemd) => format!("    systemctl enable --now tund@{name}\n"),
        Some(Service::Socket) if server => socket(&name, link.port(end)),
        Some(Service::Xinetd) if server => xinetd(&name, link.port(end)),
        Some(Service::Inetd) if server => format!(
            "    cat >>/etc/inetd.conf <<END\n{} dgram udp wait root /usr/sbin/tund tund --inetd --cd {INSTALLED} --config {name}.toml\nEND\n    systemctl reload inetd\n",
            link.port(end)
        ),
        Some(_) => format!("    tund --cd {INSTALLED} --config {name}.toml --daemon\n"),
        None => format!("    tund --config {file} --daemon\n"),
    }
}

fn socket(name: &str, port: u16) -> String {
    let enable = format!("    systemctl enable --now tund@{name}.socket\n");
    if port == DEFAULT_PORT {
        return enable;
    }
    let folder = format!("/etc/systemd/system/tund@{name}.socket.d");
    format!(
        "    mkdir -p {folder}\n    cat >{folder}/port.conf <<END\n[Socket]\nListenDatagram=\nListenDatagram={port}\nEND\n    systemctl daemon-reload\n{enable}"
    )
}

fn xinetd(name: &str, port: u16) -> String {
    format!(
        "    cat >/etc/xinetd.d/{name} <<END\nservice {name}
{{
    id            = {name}
    type          = UNLISTED
    port          = {port}
    socket_type   = dgram
    protocol      = udp
    wait          = yes
    user          = root
    server        = /usr/sbin/tund
    server_args   = --inetd --cd {INSTALLED} --config {name}.toml
    disable       = no
}}
END
    systemctl reload xinetd\n"
    )
}
