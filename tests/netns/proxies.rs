//! Networks that only a proxy leads out of.
//!
//! ```text
//!  fri 10.0.0.1 ---- 10.0.0.3 gate 10.1.0.1 ---- 10.1.0.2 mon, TCP 563
//! ```

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tund_lab::{Host, Process, wait_until};

use super::operation::{ask, status};
use super::support::*;

#[derive(Clone, Copy, PartialEq)]
enum Proxy {
    Http,
    Socks5,
}

/// fri reaches mon only through the gate.
fn world() -> (Host, Pair) {
    let pair = Pair::unplugged();
    let gate = pair.net.host("gate").unwrap();
    pair.net.cable(&pair.fri, "eth0", &gate, "eth0").unwrap();
    pair.net.cable(&gate, "eth1", &pair.mon, "eth0").unwrap();
    pair.fri.run("ip addr add 10.0.0.1/24 dev eth0").unwrap();
    gate.run("ip addr add 10.0.0.3/24 dev eth0").unwrap();
    gate.run("ip addr add 10.1.0.1/24 dev eth1").unwrap();
    pair.mon.run("ip addr add 10.1.0.2/24 dev eth0").unwrap();
    (gate, pair)
}

/// A proxy with the user tund, which allows only this port, if it can.
fn serve(gate: &Host, proxy: Proxy, port: u16) -> Process {
    let config =
        format!("Port 3128\nListen 10.0.0.3\nTimeout 600\nBasicAuth tund secret\nConnectPort {port}\n");
    let file = gate.file("tinyproxy.conf", &config).unwrap();
    let command = match proxy {
        Proxy::Http => vec!["tinyproxy", "-d", "-c", file.to_str().unwrap()],
        Proxy::Socks5 => vec!["microsocks", "-i", "10.0.0.3", "-p", "3128", "-u", "tund", "-P", "secret"],
    };
    let server = gate.spawn(&command).unwrap();
    let listens = || !gate.run("ss -Htln sport = :3128").unwrap().is_empty();
    wait_until("the proxy listens", SOON, listens).unwrap();
    server
}

fn password(pair: &Pair, text: &str) {
    let file = pair.fri.file("password", &format!("{text}\n")).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

fn fri(proxy: Proxy) -> Toml {
    let scheme = if proxy == Proxy::Http { "http" } else { "socks5" };
    Toml::tun_fri().top(&format!(
        "remote = ['10.1.0.2:1417', 'tcp:10.1.0.2:563']\nproxy = '{scheme}://tund@10.0.0.3:3128'\nproxy-password-file = 'password'"
    ))
}

fn mon() -> Toml {
    Toml::tun_mon().top("listen = [1417, 'tcp:563']")
}

#[test]
fn a_link_comes_up_through_a_proxy_and_again_when_the_connection_is_cut() {
    for (proxy, has_handshakes) in [(Proxy::Http, false), (Proxy::Http, true), (Proxy::Socks5, true)] {
        let keys = |toml: Toml| if has_handshakes { toml.handshake() } else { toml };
        let (gate, pair) = world();
        let _proxy = serve(&gate, proxy, 563);
        password(&pair, "secret");
        let (fri, mon) = pair.link(&keys(fri(proxy)), &keys(mon()));
        assert_pings(&pair.fri, "192.168.86.18");
        assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
        assert_eq!(stream(&pair.mon, &pair.fri, "192.168.86.81"), STREAM);
        let way = status(&pair.fri, "fri")["way"].as_str().unwrap().to_owned();
        assert!(way.contains("TCP through ") && way.contains("://10.0.0.3:3128"), "{way}");
        let through = pair.fri.run("ss -Htn state established dport = :3128").unwrap();
        assert_eq!(through.lines().count(), 1, "{through}");
        pair.mon.run("ss -K sport = :563").unwrap();
        pair.fri
            .wait_output("ping -n -c 1 -W 1 192.168.86.18", SOON, |text| text.contains("1 received"))
            .unwrap();
        assert!(!fri.text().contains(DOWN), "{}\n{}", fri.text(), mon.text());
    }
}

/// Waits until fri's status has a problem with this code.
fn wait_problem(pair: &Pair, code: &str) {
    let has = || status(&pair.fri, "fri")["problems"].to_string().contains(&format!("\"{code}\""));
    wait_until(code, SOON, has).unwrap();
}

#[test]
fn what_a_proxy_refuses_is_a_condition_that_ends_when_it_is_mended() {
    for proxy in [Proxy::Http, Proxy::Socks5] {
        let (gate, pair) = world();
        password(&pair, "wrong");
        let fri = pair.start_fri(&fri(proxy).handshake());
        fri.wait_line("[proxy-unreachable]", SOON).unwrap();
        wait_problem(&pair, "proxy-unreachable");
        let server = serve(&gate, proxy, 443);
        fri.wait_line("[proxy-credentials]", SOON).unwrap();
        wait_problem(&pair, "proxy-credentials");
        password(&pair, "secret");
        // The HTTP proxy forbids port 563; behind SOCKS nobody listens there yet.
        fri.wait_line("[proxy-refuses]", SOON).unwrap();
        wait_problem(&pair, "proxy-refuses");
        drop(server);
        let _server = serve(&gate, proxy, 563);
        let _mon = pair.start_mon(&mon().handshake());
        fri.wait_line(UP, SOON).unwrap();
        let state = status(&pair.fri, "fri");
        assert!(!state["problems"].to_string().contains("proxy-"), "{state}");
    }
}

#[test]
fn a_password_file_that_others_can_read_is_not_used() {
    let (gate, pair) = world();
    password(&pair, "secret");
    let file = pair.fri.dir().join("password");
    let open = || fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    open();
    let mut refused = pair.start_fri(&fri(Proxy::Http).handshake());
    assert_eq!(exit_code(&mut refused), 78);
    password(&pair, "secret");
    let fri = pair.start_fri(&fri(Proxy::Http).handshake());
    fri.wait_line("[proxy-unreachable]", SOON).unwrap();
    open();
    let _proxy = serve(&gate, Proxy::Http, 563);
    let line = fri.wait_line("[proxy-credentials]", SOON).unwrap();
    assert!(line.contains("chmod 600"), "{line}");
}

#[test]
fn doctor_tells_what_passes_through_the_proxy_and_without_it() {
    let (gate, pair) = world();
    password(&pair, "secret");
    let _mon = pair.start_mon(&mon().handshake());
    let file = pair.fri.file("fri.toml", &fri(Proxy::Http).handshake().text()).unwrap();
    let doctor = || ask(&pair.fri, &["doctor", file.to_str().unwrap()]).1;
    let has = |text: &str, lines: &[&str]| {
        lines.iter().for_each(|line| assert!(text.contains(line), "{line} is not in\n{text}"));
    };
    let through = "peer: tcp:10.1.0.2:563 through http://10.0.0.3:3128";
    has(&doctor(), &[&format!("problem  {through}"), "[proxy-unreachable]"]);
    let _proxy = serve(&gate, Proxy::Http, 563);
    has(
        &doctor(),
        &[
            "note     peer: 10.1.0.2:1417",
            "note     peer: tcp:10.1.0.2:563",
            &format!("ok       {through}"),
            "ok       way: ",
        ],
    );
    // Now there is a path without it too.
    pair.fri.run("ip route add 10.1.0.0/24 via 10.0.0.3").unwrap();
    pair.mon.run("ip route add 10.0.0.0/24 via 10.1.0.1").unwrap();
    gate.run("sysctl -qw net.ipv4.ip_forward=1").unwrap();
    has(
        &doctor(),
        &["ok       peer: 10.1.0.2:1417", "ok       peer: tcp:10.1.0.2:563 answers", "note     way: "],
    );
}
