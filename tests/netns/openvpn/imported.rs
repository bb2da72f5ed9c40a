//! Files from the field, imported by `tund import --wire openvpn`, with an OpenVPN running the other end's file.

use std::process::Command;

use super::*;

/// fri runs the import of this file with the addresses `changed`; mon's OpenVPN has these options. `theirs`: its address.
fn assert_links(name: &str, changed: &[(&str, &str)], mon: &str, theirs: &str) {
    let pair = pair();
    keyed(&pair);
    let all = include_str!("../../import/wire.confs");
    let part = all.split("## ").find_map(|part| part.strip_prefix(name)?.strip_prefix('\n'));
    let mut conf = part.unwrap().to_owned();
    for (from, to) in changed {
        assert!(conf.contains(from), "{from}");
        conf = conf.replace(from, to);
    }
    let conf = pair.fri.file("fri.conf", &conf).unwrap();
    let imported = Command::new(TUND).args(["import", "--wire", "openvpn"]).arg(conf).output().unwrap();
    let toml = String::from_utf8(imported.stdout).unwrap();
    let state = format!("[run]\nstate-dir = '{}'\n", pair.fri.dir().join("state").display());
    let toml = if toml.contains("[run]\n") { toml.replace("[run]\n", &state) } else { toml + &state };

    let mon = mon.replace("KEY", pair.mon.dir().join("openvpn.key").to_str().unwrap());
    let mon = spawn(&pair.mon, &format!("openvpn {mon} --providers legacy default --verb 4"));
    let fri = start(&pair.fri, "fri", &toml);
    fri.wait_line(UP, SOON).unwrap();
    mon.wait_line(READY, SOON).unwrap();
    assert_pings(&pair.fri, theirs);
    assert_pings(&pair.fri, &format!("-s 1472 {theirs}"));
}

#[test]
fn an_imported_end_without_a_port_of_its_own_and_with_a_direction_reaches_the_peer() {
    assert_links(
        "three-sites",
        &[("203.0.113.20", "10.0.0.2"), ("/etc/openvpn/site.key", "openvpn.key")],
        "--dev tun --ifconfig 10.66.0.1 10.66.0.2 --secret KEY 0 --cipher AES-256-CBC --auth SHA256 --keepalive 10 60",
        "10.66.0.1",
    );
}

/// Neither end has `cipher`.
#[test]
fn an_imported_bridged_end_without_a_cipher_reaches_the_peer() {
    assert_links(
        "course",
        &[("192.0.2.40", "10.0.0.2"), ("static.key", "openvpn.key")],
        "--dev tap --ifconfig 10.69.0.1 255.255.255.0 --secret KEY --comp-lzo no --port 5000 --remote 10.0.0.1",
        "10.69.0.1",
    );
}

#[test]
fn an_imported_end_that_cuts_packets_reaches_the_peer() {
    assert_links(
        "windows-pair",
        &[("203.0.113.30", "10.0.0.2"), (r"C:\\Program Files\\OpenVPN\\config\\pair.key", "openvpn.key")],
        "--dev tun --ifconfig 10.68.0.1 10.68.0.2 --secret KEY --fragment 1300 --mssfix --remote 10.0.0.1 --ping 15",
        "10.68.0.1",
    );
}
