//! Other programs change the device or its bridge while the link runs, and tund repairs that.

use std::time::Duration;

use tund_lab::{Host, leave_dead_socket, wait_until};

use super::operation::ask;
use super::support::*;

const AT_MOST_A_MINUTE: usize = 5;

fn answers(host: &Host, address: &str) -> bool {
    host.run(&format!("ping -n -c 1 -W 1 {address}")).is_ok()
}

fn wait_answer(host: &Host, address: &str) {
    let done = wait_until(address, SOON, || answers(host, address));
    let state = || host.run("ip addr").unwrap() + &routes(host);
    assert!(done.is_ok(), "{address} does not answer\n{}", state());
}

/// Both families, with a route of each through the peer.
fn both_families() -> (Toml, Toml) {
    let device = |own: u8, peer: u8| {
        format!(
            "name = 'tun0'\naddress = ['10.8.0.{own}', 'fd00:8::{own}']\npeer = ['10.8.0.{peer}', 'fd00:8::{peer}']"
        )
    };
    let routes = "[[route]]\nto = '10.66.0.0/24'\n[[route]]\nto = 'fd66::/64'";
    (Toml::tun_fri().device(&device(2, 1)).with(routes), Toml::tun_mon().device(&device(1, 2)))
}

const BEHIND: [&str; 4] = ["10.8.0.1", "fd00:8::1", "10.66.0.1", "fd66::1"];

fn linked() -> (Pair, tund_lab::Process, tund_lab::Process) {
    let pair = pair();
    pair.mon.run("ip addr add 10.66.0.1/24 dev lo").unwrap();
    pair.mon.run("ip addr add fd66::1/64 dev lo").unwrap();
    let (fri, mon) = both_families();
    let (fri, mon) = pair.link(&fri, &mon);
    BEHIND.iter().for_each(|address| wait_answer(&pair.fri, address));
    (pair, fri, mon)
}

#[test]
fn a_device_that_was_set_down_comes_back_with_all_that_was_on_it() {
    let (pair, mut fri, _mon) = linked();
    let mark = fri.mark();
    pair.fri.run("ip link set tun0 down").unwrap();
    fri.wait_line_after(mark, "[device-down]", SOON).unwrap();
    BEHIND.iter().for_each(|address| wait_answer(&pair.fri, address));
    // Down and up at once: the device is up, but has lost its routes.
    pair.fri.run("ip link set tun0 down").unwrap();
    pair.fri.run("ip link set tun0 up").unwrap();
    BEHIND.iter().for_each(|address| wait_answer(&pair.fri, address));
    // Only the link misses the routes that the kernel adds with an address.
    pair.fri.run("ip route flush proto kernel dev tun0").unwrap();
    pair.fri.run("ip -6 route flush dev tun0").unwrap();
    BEHIND.iter().for_each(|address| wait_answer(&pair.fri, address));
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(pair.fri.interfaces().unwrap(), ["eth0", "lo"]);
}

#[test]
fn whoever_keeps_a_device_down_is_fought_five_times_a_minute_and_in_few_lines() {
    let (pair, fri, _mon) = linked();
    let mark = fri.mark();
    let script = "for i in $(seq 100); do ip link set tun0 down; sleep 0.1; done";
    pair.fri.shell(script).unwrap();
    let all = fri.lines();
    let lines = &all[mark..];
    let set = lines.iter().filter(|line| line.contains("again: ip link set dev tun0 up")).count();
    assert!((2..=AT_MOST_A_MINUTE).contains(&set), "{lines:#?}");
    assert!(lines.len() < 40, "{lines:#?}");
    assert!(!fri.text().contains(DOWN), "the peer still answers: {lines:#?}");
    for address in BEHIND {
        let back = wait_until(address, Duration::from_secs(45), || answers(&pair.fri, address));
        back.unwrap();
    }
}

#[test]
fn mtu_and_addresses_are_as_the_file_says_again() {
    let (pair, _fri, _mon) = linked();
    // Below 1280 the kernel removes IPv6 from the device.
    pair.fri.run("ip link set tun0 mtu 1000").unwrap();
    let device = || pair.fri.run("ip addr show tun0").unwrap();
    wait_until("MTU", SOON, || device().contains("mtu 1400")).unwrap();
    pair.fri.run("ip addr del 10.8.0.2 peer 10.8.0.1 dev tun0").unwrap();
    pair.fri.run("ip addr add 10.8.0.2/24 dev tun0").unwrap();
    let has_peer_alone =
        |device: &str| device.contains("10.8.0.2 peer 10.8.0.1/32") && !device.contains("10.8.0.2/24");
    wait_until("its peer", SOON, || has_peer_alone(&device())).unwrap();
    BEHIND.iter().for_each(|address| wait_answer(&pair.fri, address));
}

#[test]
fn a_port_joins_its_bridge_again_and_one_of_the_same_name_too() {
    let pair = pair();
    let (a, _b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    let (_fri, mut mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    wait_answer(&a, "10.5.0.2");
    let mark = mon.mark();
    pair.mon.run("ip link set tap0 nomaster").unwrap();
    mon.wait_line_after(mark, "[bridge-port-missing]", SOON).unwrap();
    wait_answer(&a, "10.5.0.2");
    let mark = mon.mark();
    pair.mon.run("ip link del br0").unwrap();
    mon.wait_line_after(mark, "[bridge-missing]", SOON).unwrap();
    pair.mon.run("ip link add br0 type bridge").unwrap();
    pair.mon.run("ip link set lan0 master br0").unwrap();
    pair.mon.run("ip link set br0 up").unwrap();
    wait_answer(&a, "10.5.0.2");
    // Another program's bridge.
    pair.mon.run("ip link add br1 type bridge").unwrap();
    pair.mon.run("ip link set tap0 master br1").unwrap();
    wait_answer(&a, "10.5.0.2");
    // A deleted port.
    pair.mon.run("ip link del tap0").unwrap();
    wait_answer(&a, "10.5.0.2");
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    assert_eq!(pair.mon.interfaces().unwrap(), ["br0", "br1", "eth0", "lan0", "lo"]);
}

/// Exit code and JSON of `tund status`.
fn status(host: &Host, name: &str) -> (Option<i32>, serde_json::Value) {
    let (code, text) = ask(host, &["status", "--json", name]);
    let links: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"));
    (code, links[0].clone())
}

fn codes(status: &serde_json::Value) -> Vec<String> {
    let problems = status["problems"].as_array().unwrap().iter();
    problems.map(|problem| problem["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_link_through_which_no_frame_passes_is_not_up() {
    let pair = pair();
    let (a, _b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    let (_fri, _mon) = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    wait_answer(&a, "10.5.0.2");
    let (code, good) = status(&pair.mon, "mon");
    assert_eq!((code, &good["state"], codes(&good)), (Some(0), &"up".into(), vec![]));
    assert_eq!((&good["bridge"], &good["device_up"]), (&"br0".into(), &true.into()));
    pair.mon.run("ip link del br0").unwrap();
    let (code, bad) = status(&pair.mon, "mon");
    assert_eq!(
        (code, &bad["state"], codes(&bad)),
        (Some(1), &"blocked".into(), vec!["bridge-missing".into()])
    );
    assert_eq!((&bad["problem_code"], &bad["bridge"]), (&"bridge-missing".into(), &serde_json::Value::Null));
    assert!(bad["problems"][0]["since"].as_u64().unwrap() >= good["since"].as_u64().unwrap());
    let (code, text) = ask(&pair.mon, &["status", "mon"]);
    assert!(code == Some(1) && text.contains("mon: blocked") && text.contains("[bridge-missing]"), "{text}");
    let (_, text) = ask(&pair.mon, &["stats", "mon"]);
    let lines = ["tund_link_up{link=\"mon\"} 0", "tund_condition{link=\"mon\",code=\"bridge-missing\"} 1"];
    lines.iter().for_each(|line| assert!(text.contains(line), "{text}"));
    let file = pair.mon.dir().join("mon.toml");
    let (code, text) = ask(&pair.mon, &["doctor", file.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("problem  link: ") && text.contains("br0"), "{text}");
    pair.mon.run("ip link add br0 type bridge").unwrap();
    pair.mon.run("ip link set br0 up").unwrap();
    wait_until("up", SOON, || status(&pair.mon, "mon").0 == Some(0)).unwrap();
}

#[test]
fn a_device_that_the_user_sets_up_is_down_until_then() {
    let pair = pair();
    let fri = Toml::tun_fri().device("mode = 'tun'\nname = 'tun0'\nconfigure = false");
    let (_fri, _mon) = pair.link(&fri.handshake(), &Toml::tun_mon().handshake());
    let (code, down) = status(&pair.fri, "fri");
    assert_eq!(
        (code, &down["state"], codes(&down)),
        (Some(1), &"blocked".into(), vec!["device-down".into()])
    );
    pair.fri.run("ip addr add 192.168.86.81 peer 192.168.86.18 dev tun0").unwrap();
    pair.fri.run("ip link set tun0 mtu 1420 up").unwrap();
    let (code, up) = status(&pair.fri, "fri");
    assert_eq!((code, &up["state"], codes(&up)), (Some(0), &"up".into(), vec![]));
    assert_eq!((&up["addresses"][0], &up["mtu"]), (&"192.168.86.81/32".into(), &1420.into()));
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn what_is_missing_is_said_as_long_as_it_is_and_tried_again() {
    let (pair, fri, _mon) = linked();
    let route = "10.66.0.0/24";
    pair.fri.run(&format!("ip route replace {route} dev eth0 proto static")).unwrap();
    fri.wait_line("[route-missing]", SOON).unwrap();
    let (code, other) = status(&pair.fri, "fri");
    assert_eq!((code, &other["state"], codes(&other)), (Some(0), &"up".into(), vec!["route-missing".into()]));
    let command = "ip route add 10.66.0.0/24 via 10.8.0.1 dev tun0";
    assert_eq!(other["missing"], serde_json::json!([command]));
    let (_, text) = ask(&pair.fri, &["status", "fri"]);
    assert!(text.contains(&format!("  missing   {command}\n")), "{text}");
    let file = pair.fri.dir().join("fri.toml");
    let (code, text) = ask(&pair.fri, &["doctor", file.to_str().unwrap()]);
    assert!(code == Some(1) && text.contains("problem  link: "), "{text}");
    pair.fri.run(&format!("ip route del {route} dev eth0")).unwrap();
    wait_until("mended", Duration::from_secs(45), || codes(&status(&pair.fri, "fri").1).is_empty()).unwrap();
    assert_eq!(status(&pair.fri, "fri").1["missing"], serde_json::json!([]));
    let (code, text) = ask(&pair.fri, &["doctor", file.to_str().unwrap()]);
    assert!(code == Some(0) && text.contains("ok       set: "), "{text}");
}

/// With a hundred thousand routes that is nearly all of its cost.
#[test]
fn a_look_reads_the_table_of_each_family_once() {
    let (pair, fri, _mon) = linked();
    let pid = fri.pid().to_string();
    let trace = pair.fri.spawn(&["strace", "-e", "trace=sendto", "-p", &pid]).unwrap();
    trace.wait_line("attached", SOON).unwrap();
    // Each change causes a check; each check reads the addresses once.
    for (address, looks) in [("10.99.1.1", 1), ("10.99.2.1", 2)] {
        pair.fri.run(&format!("ip addr add {address}/32 dev lo")).unwrap();
        let looked = || trace.text().matches("RTM_GETADDR").count() == looks;
        wait_until("a look", SOON, looked).unwrap_or_else(|_| panic!("{}", trace.text()));
    }
    let text = trace.text();
    let between = text.split("RTM_GETADDR").nth(1).unwrap();
    let dumps = between.lines().filter(|line| line.contains("RTM_GETROUTE") && line.contains("NLM_F_DUMP"));
    assert_eq!(dumps.count(), 2, "{text}");
}

/// As a careless clean-up of /run does.
#[test]
fn the_control_socket_is_made_again_with_its_directory() {
    let pair = pair();
    let socket = pair.fri.dir().join("own.sock");
    let fri = Toml::tun_fri().with(&format!("[status]\nsocket = '{}'", socket.display()));
    let (mut fri, mut mon) = pair.link(&fri, &Toml::tun_mon());
    let [of_fri, of_mon] = [&pair.fri, &pair.mon].map(|host| {
        let mut entries = std::fs::read_dir(host.dir().join("run")).unwrap();
        entries.next().unwrap().unwrap().path()
    });
    let mut number = 0;
    let mut removed = |host: &Host, process: &tund_lab::Process, remove: &dyn Fn()| {
        let mark = process.mark();
        remove();
        // Saves waiting for the check once a minute.
        number += 1;
        host.run(&format!("ip addr add 10.99.{number}.1/32 dev lo")).unwrap();
        process.wait_line_after(mark, "[control-socket-missing]", SOON).unwrap();
        let name = if host.name() == pair.fri.name() { "fri" } else { "mon" };
        // Until the first command works, the output is not JSON.
        let answers = || ask(host, &["status", name]).0 == Some(0) && codes(&status(host, name).1).is_empty();
        wait_until("an answer", SOON, answers).unwrap_or_else(|_| panic!("{}", process.text()));
    };
    removed(&pair.mon, &mon, &|| std::fs::remove_file(of_mon.join("control.sock")).unwrap());
    removed(&pair.mon, &mon, &|| std::fs::remove_dir_all(&of_mon).unwrap());
    let (code, found) = status(&pair.mon, "mon");
    let pid = std::fs::read_to_string(of_mon.join("pid")).unwrap();
    assert_eq!((code, found["pid"].to_string().as_str()), (Some(0), pid.trim()));
    assert!(of_mon.join("ledger").exists(), "what is to be taken back after a kill");
    removed(&pair.fri, &fri, &|| std::fs::remove_file(of_fri.join("control.sock")).unwrap());
    removed(&pair.fri, &fri, &|| {
        std::fs::remove_file(&socket).unwrap();
        leave_dead_socket(&socket).unwrap();
    });
    assert_eq!((fri.terminate(SOON).unwrap(), mon.terminate(SOON).unwrap()), (0, 0));
    assert!(!of_fri.exists() && !of_mon.exists() && !socket.exists(), "something is left");
}

#[test]
fn metrics_that_cannot_be_served_at_first_are_served_later() {
    let pair = pair();
    let address = "127.0.0.1:9110";
    let other = pair.fri.within(|| std::net::TcpListener::bind(address).unwrap()).unwrap();
    let fri = Toml::tun_fri().with(&format!("[status]\nmetrics = '{address}'"));
    let (fri, _mon) = pair.link(&fri, &Toml::tun_mon());
    fri.wait_line("[metrics-missing]", SOON).unwrap();
    let (code, found) = status(&pair.fri, "fri");
    assert_eq!((code, codes(&found)), (Some(0), vec!["metrics-missing".into()]));
    drop(other);
    let served = || codes(&status(&pair.fri, "fri").1).is_empty();
    wait_until("metrics", Duration::from_secs(45), served).unwrap();
    assert!(pair.fri.run(&format!("curl -s http://{address}/metrics")).unwrap().contains("tund_link_up"));
}

#[test]
fn a_device_follows_its_bridge_to_a_larger_mtu() {
    let pair = pair();
    let (a, b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    let [fri, mon] = [Toml::tap_fri(), Toml::tap_mon()].map(|toml| {
        let device = format!("{}\nmtu = 'bridge'", toml.device);
        toml.device(&device)
    });
    let (fri, _mon) = pair.link(&fri, &mon);
    wait_answer(&a, "10.5.0.2");
    for (host, gate) in [(&a, &pair.fri), (&b, &pair.mon)] {
        host.run("ip link set eth0 mtu 4000").unwrap();
        gate.run("ip link set lan0 mtu 4000").unwrap();
        gate.run("ip link set br0 mtu 4000").unwrap();
    }
    fri.wait_line("[bridge-mtu]", SOON).unwrap();
    let whole = || a.run("ping -n -c 1 -W 1 -M do -s 3972 10.5.0.2").is_ok();
    assert!(wait_until("full frames", SOON, whole).is_ok(), "{}", fri.text());
    wait_until("up", SOON, || codes(&status(&pair.fri, "fri").1).is_empty()).unwrap();
    assert_eq!(fri.text().matches("[bridge-mtu]").count(), 1, "{}", fri.text());
}

/// As for a PPPoE or mobile connection: the interface reappears under its name.
#[test]
fn the_interface_that_the_socket_is_bound_to_is_taken_again_when_it_is_back() {
    let pair = pair();
    let fri = Toml::tun_fri().top("remote = '10.0.0.2:1417'\nbind-device = 'eth0'");
    let (fri, _mon) = pair.link(&fri, &Toml::tun_mon());
    assert_pings(&pair.fri, "192.168.86.18");
    for round in 0..2 {
        let mark = fri.mark();
        pair.fri.run("ip link del eth0").unwrap();
        fri.wait_line_after(mark, "[bind-device-missing]", SOON).unwrap();
        let (code, gone) = status(&pair.fri, "fri");
        assert_eq!((code, codes(&gone)[0].as_str()), (Some(1), "bind-device-missing"), "round {round}");
        pair.net.cable(&pair.fri, "eth0", &pair.mon, "eth0").unwrap();
        pair.address();
        wait_until("bound again", SOON, || codes(&status(&pair.fri, "fri").1).is_empty())
            .unwrap_or_else(|error| panic!("{error}\n{:#}\n{}", status(&pair.fri, "fri").1, fri.text()));
        wait_answer(&pair.fri, "192.168.86.18");
        // Including the peer's own socket.
        let sockets = || pair.fri.run("ss -Hun").unwrap();
        let own = || sockets().lines().count() == 1 && sockets().contains("%eth0:");
        assert!(wait_until("the peer's socket", SOON, own).is_ok(), "{}", sockets());
    }
    wait_until("up", SOON, || status(&pair.fri, "fri").0 == Some(0)).unwrap();
}

#[test]
fn the_address_of_the_socket_may_go_and_come_back() {
    let pair = pair();
    let mon = Toml::tun_mon().top("listen = '10.0.0.2:1417'");
    let (_fri, mon) = pair.link(&Toml::tun_fri(), &mon);
    pair.mon.run("ip addr del 10.0.0.2/24 dev eth0").unwrap();
    mon.wait_line("[listen-address-missing]", SOON).unwrap();
    assert_eq!(codes(&status(&pair.mon, "mon").1)[0], "listen-address-missing");
    pair.mon.run("ip addr add 10.0.0.2/24 dev eth0").unwrap();
    wait_answer(&pair.fri, "192.168.86.18");
    wait_until("up", SOON, || status(&pair.mon, "mon").0 == Some(0)).unwrap();
}
