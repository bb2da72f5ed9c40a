//! `tund doctor`: finds and names every obstacle.

use tund_lab::{Host, wait_until};

use super::operation::{ask, status};
use super::support::*;

fn doctor(host: &Host, toml: &Toml) -> (Option<i32>, String) {
    let file = host.file("fri.toml", &toml.text()).unwrap();
    ask(host, &["doctor", file.to_str().unwrap()])
}

#[test]
fn a_peer_that_answers_is_told_from_one_that_cannot_and_is_not_disturbed() {
    let pair = pair();
    let fri = Toml::tun_fri().handshake();
    let (code, text) = doctor(&pair.fri, &fri);
    assert!(
        code == Some(1) && text.contains("problem  peer: 10.0.0.2:1417: its host says that nothing listens"),
        "{text}"
    );

    let (mon, other) = (pair.start_mon(&Toml::tun_mon().handshake()), pair.net.host("other").unwrap());
    mon.wait_line("[no-remote]", SOON).unwrap();
    let (code, text) = doctor(&pair.fri, &fri);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "ok       configuration",
        "ok       key: handshake keys; their secret shows as",
        "ok       route: 10.0.0.2 is reached through eth0, MTU 1500",
        "ok       peer: 10.0.0.2:1417 ",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    assert!(!mon.text().contains(UP), "{}", mon.text());

    // Another key: the peer is silent, as to any stranger.
    let key = pair.fri.dir().join("static.key");
    let good = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    other.run(&format!("{TUND} genkey -o {}", key.display())).unwrap();
    let (code, text) = doctor(&pair.fri, &fri);
    assert!(code == Some(1) && text.contains("problem  peer: 10.0.0.2:1417 is silent"), "{text}");
    std::fs::write(&key, good).unwrap();

    // A call during a running link does not affect it.
    let process = pair.start_fri(&fri);
    process.wait_line(UP, SOON).unwrap();
    let elsewhere = Toml { device: fri.device.replace("tun0", "tun9"), ..fri.clone() };
    pair.fri.file("twin.toml", &elsewhere.text()).unwrap();
    let twin = pair.fri.dir().join("twin.toml");
    let (_, text) = ask(&pair.fri, &["doctor", twin.to_str().unwrap()]);
    assert!(text.contains("ok       peer: 10.0.0.2:1417 "), "{text}");
    assert_pings(&pair.fri, "192.168.86.18");
    let (code, text) = doctor(&pair.fri, &fri);
    assert!(
        code == Some(0) && text.contains("ok       link: ") && text.contains(&process.pid().to_string()),
        "{text}"
    );
    assert!(!process.text().contains(DOWN) && !mon.text().contains(DOWN));
}

#[test]
fn the_way_of_the_links_own_address_is_taken_and_a_firewall_here_is_named() {
    let pair = pair();
    pair.fri.run("ip addr add 10.0.0.11/24 dev eth0").unwrap();
    // Each address has its own rule, and nothing leaves without one, as with two uplinks.
    pair.fri.run("ip rule add pref 10 from 10.0.0.11 lookup main").unwrap();
    pair.fri.run("ip rule add pref 11 unreachable").unwrap();
    let fri = Toml::tun_fri().handshake().top("remote = '10.0.0.2:1417'\nlisten = '10.0.0.11:1417'");
    let mon = pair.start_mon(&Toml::tun_mon().handshake());
    mon.wait_line("[no-remote]", SOON).unwrap();
    let (code, text) = doctor(&pair.fri, &fri);
    assert_eq!(code, Some(0), "{text}");
    for line in ["ok       route: 10.0.0.2 ", "ok       peer: 10.0.0.2:1417 "] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    let mut process = pair.start_fri(&fri);
    process.wait_line(UP, SOON).unwrap();
    wait_until("the whole path is used", SOON, || status(&pair.fri, "fri")["budget"] == 1472).unwrap();
    assert_eq!(process.terminate(SOON).unwrap(), 0);
    let forbid = "nft add table ip f; nft 'add chain ip f o { type filter hook output priority 0; }'; \
                  nft add rule ip f o udp dport 1417 drop";
    pair.fri.shell(forbid).unwrap();
    let (code, text) = doctor(&pair.fri, &fri);
    let named = text.lines().any(|line| line.starts_with("problem  peer: ") && line.contains("firewall"));
    assert!(code == Some(1) && named, "{text}");
}

#[test]
fn names_routes_files_and_modes_are_looked_at() {
    let pair = pair();
    let fri = Toml::tun_fri().handshake();
    let (code, text) =
        doctor(&pair.fri, &fri.clone().top("remote = ['nowhere.tn:1417', '203.0.113.9:1417']"));
    assert_eq!(code, Some(1));
    for part in ["problem  name: nowhere.tn ", "problem  route: ", "203.0.113.9"] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let (code, text) = doctor(&pair.fri, &fri.clone().top("remot = 'x'"));
    assert!(code == Some(1) && text.contains("problem  configuration: ") && text.contains("remot"), "{text}");
    let (code, text) = doctor(&pair.fri, &Toml::tun_fri());
    assert!(code == Some(0) && text.contains("note     peer: "), "{text}");
    let (code, text) = doctor(&pair.fri, &Toml::tun_mon().handshake());
    assert!(code == Some(0) && text.contains("note     firewall: "), "{text}");
    let mon = pair.start_mon(&Toml::tun_mon());
    mon.wait_line("[no-remote]", SOON).unwrap();
    let (code, text) = doctor(&pair.fri, &fri);
    assert!(code == Some(1) && text.contains("key.mode"), "{text}");
}
