//! Names of peers.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.2 mon.tn
//! ```

use super::support::*;

#[test]
fn a_name_that_does_not_resolve_yet_is_said_and_tried_again() {
    let pair = pair();
    let fri = pair.start_fri(&Toml::tun_fri().top("remote = 'mon.tn:1417'"));
    let mon = pair.start_mon(&Toml::tun_mon());
    fri.wait_line("mon.tn", SOON).unwrap();
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let patience = 3 * SOON;
    fri.wait_line(UP, patience).unwrap();
    mon.wait_line(UP, patience).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn the_port_of_the_command_line_is_that_of_the_remote_and_of_the_socket() {
    let pair = pair();
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let _fri =
        start_with(&pair.fri, "fri", &Toml::tun_fri().top("remote = 'mon.tn'").text(), &["--port", "2222"]);
    let mon = start_with(&pair.mon, "mon", &Toml::tun_mon().top("").text(), &["--port", "2222"]);
    mon.wait_line(UP, SOON).unwrap();
    let sockets = pair.mon.run("ss -lun").unwrap();
    assert!(sockets.contains(":2222"), "{sockets}");
}

/// What only root may read is what only a process of root's could have answered from.
#[test]
fn commands_look_names_up_without_privileges_too() {
    use std::os::unix::fs::PermissionsExt;

    let pair = pair();
    let _mon = pair.start_mon(&Toml::tun_mon().handshake());
    pair.fri.add_name("10.0.0.2", "mon.tn").unwrap();
    let file = pair.fri.file("fri.toml", &Toml::tun_fri().handshake().top("remote = 'mon.tn:1417'").text());
    let file = file.unwrap();
    let names = pair.fri.path("/etc/hosts");
    let ask =
        |words: &[&str]| super::operation::ask(&pair.fri, &[words, &[file.to_str().unwrap()]].concat()).1;
    std::fs::set_permissions(&names, std::fs::Permissions::from_mode(0o600)).unwrap();
    let (check, doctor) = (ask(&["check", "--host"]), ask(&["doctor"]));
    assert!(check.contains("mon.tn cannot be resolved now"), "{check}");
    assert!(doctor.contains("problem  name: mon.tn does not resolve"), "{doctor}");
    std::fs::set_permissions(&names, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (check, doctor) = (ask(&["check", "--host"]), ask(&["doctor"]));
    assert!(!check.contains("resolved") && check.contains("configuration is good"), "{check}");
    assert!(doctor.contains("ok       name: mon.tn is 10.0.0.2"), "{doctor}");
}

/// Two hosts on one cable with nothing but link-local addresses, and a cable that is plugged in later.
#[test]
fn a_link_local_remote_names_an_interface_that_may_come_later() {
    let pair = Pair::unplugged();
    let mon = pair.start_mon(&Toml::tun_mon());
    let fri = pair.start_fri(&Toml::tun_fri().top("remote = '[fe80::2%eth0]:1417'"));
    fri.wait_line("there is no interface eth0", SOON).unwrap();
    pair.net.cable(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
    pair.mon.run("ip addr add fe80::2/64 dev eth0 nodad").unwrap();
    fri.wait_line("link up with [fe80::2%eth0]:1417", 3 * SOON).unwrap();
    mon.wait_line("%eth0]:1417", SOON).unwrap();
    assert_pings(&pair.fri, "192.168.86.18");
    let (_, status) = super::operation::ask(&pair.fri, &["status"]);
    assert!(status.contains("[fe80::2%eth0]:1417"), "{status}");
}
