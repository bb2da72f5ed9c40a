//! The two files, commented like the examples.

use super::plan::{Inside, Link, TapEnd};

/// Where the package installs the output of `tund schema`, with which editors complete and check the file.
const SCHEMA: &str = "#:schema /usr/share/tund/tund.schema.json\n";

/// The file of each end.
pub fn texts(link: &Link) -> [String; 2] {
    [0, 1].map(|end| {
        let parts = [head(link, end), outer(link, end), key(link, end), device(link, end)];
        let mut text = parts.join("\n");
        text.push_str(&routes(link, end));
        if link.full_tunnel && end == 0 {
            text.push_str(&format!(
                "\n# All traffic of this host goes through {}.\n[full-tunnel]\n\
                 fail           = \"open\"     # \"closed\": nothing leaves while the link is down\n\
                 local-networks = \"reach\"    # \"refuse\": not even to the networks of this host\n",
                link.ends[1].name
            ));
        }
        text
    })
}

fn head(link: &Link, end: usize) -> String {
    let (own, peer) = (&link.ends[end].name, &link.ends[1 - end].name);
    let kind = match link.inside {
        Inside::Tun(_) => "routed",
        Inside::Tap(_) => "bridged",
    };
    let file = &link.files()[1 - end];
    let mut text =
        format!("{SCHEMA}# A {kind} link, the end at {own}. The other end is {file} at {peer}.\n#\n#   ");
    let [here, there] = [0, 1].map(|end| {
        let name = &link.ends[end].name;
        match &link.inside {
            Inside::Tun(addresses) => format!("{name} {}", addresses[end]),
            Inside::Tap(ends) => format!("{name} {}", ends[end]),
        }
    });
    let nets = |end: usize| link.behind[end].iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let [left, right] = [0, 1].map(nets);
    text.push_str(&if left.is_empty() { left } else { format!("{left} -- ") });
    text.push_str(&format!("{here} ======== {there}"));
    text.push_str(&if right.is_empty() { right } else { format!(" -- {right}") });
    text.push('\n');
    if !link.behind[end].is_empty() {
        text.push_str(&format!(
            "#\n# {own} has to forward: net.ipv4.ip_forward = 1, or its like for IPv6.\n"
        ));
    }
    if let (true, 1, Inside::Tun([client, _])) = (link.full_tunnel, end, &link.inside) {
        text.push_str(&masquerade(own, peer, client));
    }
    text
}

/// What the Internet-facing end of a full tunnel has to do.
fn masquerade(own: &str, peer: &str, client: &std::net::IpAddr) -> String {
    let (setting, family) = match client.is_ipv4() {
        true => ("net.ipv4.ip_forward", "ip"),
        false => ("net.ipv6.conf.all.forwarding", "ip6"),
    };
    format!(
        "#\n# All traffic of {peer} comes through here. {own} forwards and masquerades: {setting} = 1, and with nftables\n\
         #   nft add table {family} nat\n\
         #   nft 'add chain {family} nat postrouting {{ type nat hook postrouting priority srcnat; }}'\n\
         #   nft add rule {family} nat postrouting {family} saddr {client} masquerade\n"
    )
}

fn outer(link: &Link, end: usize) -> String {
    let peer = &link.ends[1 - end].name;
    let mut text = String::new();
    if let Some(remote) = link.remote(1 - end) {
        text.push_str(&format!(
            "# Where {peer} is: a name or an address, and its UDP port.\nremote = \"{remote}\"\n"
        ));
    }
    if link.ends[end].outer.is_some() {
        let waits = link.remote(1 - end).is_none();
        let why = match waits {
            true => format!("# Waits for {peer}, wherever {peer} is, at this UDP port.\n"),
            false => format!("# The UDP port that {peer} calls.\n"),
        };
        text.push_str(&format!("{why}listen = {}\n", link.port(end)));
    }
    text
}

fn key(link: &Link, end: usize) -> String {
    if link.has_unit(end) {
        let file = format!("{}.key", link.name(end));
        return format!(
            "[key]\ncredential = \"key\"    # {file}, which systemd hands over; the same at both ends\n"
        );
    }
    format!("[key]\nfile = \"{}\"    # the same file at both ends: who has it is the peer\n", link.key())
}

fn device(link: &Link, end: usize) -> String {
    let (own, peer) = (&link.ends[end].name, &link.ends[1 - end].name);
    match &link.inside {
        Inside::Tun(addresses) => {
            let [address, other] = [end, 1 - end].map(|end| format!("\"{}\"", addresses[end]));
            let width = address.len().max(other.len());
            format!(
                "[device]\nmode    = {:width$}    # IP packets\n\
                 address = {address:width$}    # {own} inside the tunnel\n\
                 peer    = {other:width$}    # {peer} inside the tunnel\n",
                "\"tun\""
            )
        }
        Inside::Tap(ends) => {
            let (name, why) = match &ends[end] {
                TapEnd::Bridge(_) => ("bridge", "must exist; the device becomes a port of it".to_owned()),
                TapEnd::Address(_) => ("address", format!("{own} on the segment of {peer}")),
            };
            let value = format!("\"{}\"", ends[end]);
            format!(
                "[device]\nmode    = {:width$}    # Ethernet frames\n{name:7} = {value}    # {why}\n",
                "\"tap\"",
                width = value.len().max(5)
            )
        }
    }
}

fn routes(link: &Link, end: usize) -> String {
    let peer = &link.ends[1 - end].name;
    let route = |net| format!("\n# A network behind {peer}.\n[[route]]\nto = \"{net}\"\n");
    link.behind[1 - end].iter().map(route).collect()
}
