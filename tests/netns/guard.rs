//! The bridge guard on real bridges, with real programs in the peer's segment.

use tund_lab::frame::ethernet;
use tund_lab::{Host, wait_until};

use super::support::*;

/// A DHCP server and a router: dnsmasq is both.
fn serve(host: &Host) -> tund_lab::Process {
    serve_dhcp(host, &["--dhcp-range=fd05::,ra-only", "--enable-ra", "--ra-param=eth0,4,60"])
}

#[test]
fn servers_routers_trees_and_floods_of_the_peers_segment_are_kept_out_and_named() {
    let pair = pair();
    let (a, b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    a.run("ip addr flush dev eth0").unwrap();
    a.run("ip addr add 10.5.0.1/24 dev eth0").unwrap();
    let bad = pair.mon.port("bad").unwrap();
    pair.mon.run("ip link set bad master br0").unwrap();
    let _server = serve(&b);
    let guard = "[guard]\nmacs = 16\nbpdu = 'drop'\ndhcp-server = 'drop'\nrouter-advertisement = 'drop'\nvlans = '100'";
    let (fri, _mon) = pair.link(&Toml::tap_fri().with(guard), &Toml::tap_mon());
    assert_pings(&a, "10.5.0.2");

    let lease = script(&a, "lease", "[ \"$1\" = bound ] && touch bound; exit 0");
    let client = a.run(&format!("udhcpc -f -n -q -t 3 -T 1 -i eth0 -s {}", lease.display()));
    assert!(client.is_err(), "a lease: {client:?}");
    fri.wait_line("[guard-dhcp-server]", SOON).unwrap();
    fri.wait_line("[guard-router-advertisement]", SOON).unwrap();
    let addresses = a.run("ip -6 addr show dev eth0").unwrap();
    assert!(!addresses.contains("fd05:"), "an address from the advertisement: {addresses}");

    // The kernel drops a tagged frame that ends after its tag.
    let tagged = [&[0, 200, 8, 6][..], &[0; 46]].concat();
    bad.send(&ethernet([0xff; 6], [2, 0, 0, 0, 9, 1], 0x8100, &tagged)).unwrap();
    let line = fri.wait_line("[guard-vlan]", SOON).unwrap();
    assert!(line.contains("02:00:00:00:09:01 in VLAN 200"), "who and where: {line}");
    (0..200).for_each(|host| {
        let frame = ethernet([0xff; 6], [2, 0, 0, 0, 9, host], 0x88b5, &[0; 46]);
        bad.send(&frame).unwrap();
    });
    fri.wait_line("[guard-macs]", SOON).unwrap();
    assert_pings(&a, "10.5.0.2");

    // The ports of a bridge forward nothing for a while when its tree starts.
    pair.mon.run("ip link set br0 type bridge stp_state 1").unwrap();
    fri.wait_line("[guard-bpdu]", SOON).unwrap();
    let stats = super::operation::ask(&pair.fri, &["stats", "fri"]).1;
    for reason in
        ["guard-dhcp-server", "guard-router-advertisement", "guard-bpdu", "guard-vlan", "guard-macs"]
    {
        let sample = format!("reason=\"{reason}\"}} ");
        let count =
            stats.lines().find_map(|line| line.split_once(&sample)).map(|(_, count)| count.to_owned());
        assert!(count.is_some_and(|count| count != "0"), "{reason}: {stats}");
    }
    assert_eq!(fri.text().matches("[guard-macs]").count(), 1, "said once");
}

#[test]
fn a_storm_is_cut_and_a_host_here_is_not_taken_over_from_there() {
    let pair = pair();
    let (a, _b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    let bad = pair.mon.port("bad").unwrap();
    pair.mon.run("ip link set bad master br0").unwrap();
    let guard = "[guard]\nstorm = 100\nown-macs = 'drop'";
    let (fri, _mon) = pair.link(&Toml::tap_fri().with(guard), &Toml::tap_mon());
    assert_pings(&a, "10.5.0.2");
    let (before, _) = counters(&a, "eth0");
    let storm = ethernet([0xff; 6], [2, 0, 0, 0, 9, 1], 0x88b5, &[0; 46]);
    (0..3000).for_each(|_| bad.send(&storm).unwrap());
    let line = fri.wait_line("[guard-storm]", SOON).unwrap();
    assert!(line.contains("02:00:00:00:09:01"), "{line}");
    let (after, _) = counters(&a, "eth0");
    assert!(after - before < 1500, "{} of 3000", after - before);

    let shown = a.run("ip -brief link show eth0").unwrap();
    let text = shown.split_whitespace().nth(2).unwrap();
    let mac: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    // The storm is over.
    std::thread::sleep(std::time::Duration::from_secs(1));
    assert_pings(&a, "10.5.0.2");
    bad.send(&ethernet([0xff; 6], mac.try_into().unwrap(), 0x88b5, &[0; 46])).unwrap();
    let line = fri.wait_line("[guard-own-mac]", SOON).unwrap();
    assert!(line.contains(text), "{line}");
    let stats = super::operation::ask(&pair.fri, &["stats", "fri"]).1;
    assert!(stats.contains("\ntund_condition{link=\"fri\",code=\"guard-own-mac\"} 1\n"), "{stats}");
    let status = super::operation::status(&pair.fri, "fri");
    let since = [&status, &status["problems"][0]].map(|of| of["since"].as_u64());
    assert!(since[0] < since[1], "when the condition began, not the link: {status}");
    let table = pair.fri.run("bridge fdb show br br0").unwrap();
    let place = table.lines().find(|line| line.starts_with(text));
    assert!(place.is_some_and(|line| line.contains("lan0")), "{table}");
    assert_pings(&a, "10.5.0.2");
}

#[test]
fn a_router_of_the_peers_segment_is_heard_here_only_if_it_may_be() {
    tund_lab::rights::require("radvd").unwrap();
    let pair = pair();
    let (a, b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    let rules = "interface eth0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; prefix fd06::/64 {}; };";
    let (rules, pid) = (b.file("radvd.conf", rules).unwrap(), b.dir().join("radvd.pid"));
    b.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
    let [rules, pid] = [&rules, &pid].map(|path| path.to_str().unwrap());
    let _router = b.spawn(&["radvd", "-n", "-m", "stderr", "-C", rules, "-p", pid]).unwrap();
    let strict = Toml::tap_fri().with("[guard]\nrouter-advertisement = 'drop'");
    let (mut fri, _mon) = pair.link(&strict, &Toml::tap_mon());
    let heard = || a.run("ip -6 addr show dev eth0").unwrap().contains("fd06:");
    fri.wait_line("[guard-router-advertisement]", SOON).unwrap();
    assert_pings(&a, "-6 fd05::2");
    assert!(!heard(), "an address from what was dropped");
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    let _fri = pair.start_fri(&Toml::tap_fri());
    wait_until("an address of the router's network", SOON, heard).unwrap();
}

#[test]
fn who_sends_most_into_either_segment_is_shown_if_asked_for() {
    let pair = pair();
    let (a, _b) = (bridge_with_host(&pair, &pair.fri, "a", 1), bridge_with_host(&pair, &pair.mon, "b", 2));
    let busy = pair.mon.port("busy").unwrap();
    pair.mon.run("ip link set busy master br0").unwrap();
    let _link = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    assert_pings(&a, "10.5.0.2");
    let tagged = [&[0, 100, 8, 6][..], &[0; 1400]].concat();
    let frame = ethernet([0xff; 6], [2, 0, 0, 0, 9, 1], 0x8100, &tagged);
    (0..200).for_each(|_| busy.send(&frame).unwrap());
    let plain = || super::operation::ask(&pair.fri, &["status", "fri"]).1;
    let shown = || super::operation::ask(&pair.fri, &["status", "fri", "--macs"]).1;
    wait_until("the flood", SOON, || shown().contains("there     02:00:00:00:09:01 in VLAN 100, ")).unwrap();
    let own = a.run("ip -brief link show eth0").unwrap();
    let own = own.split_whitespace().nth(2).unwrap();
    let (here, there) = shown().split_once("there ").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(here.contains(own) && !there.contains(own), "{}", shown());
    assert!(!plain().contains("09:01"), "only if asked");
}

/// A bridge that has forgotten a silent host floods frames for it.
#[test]
fn what_is_for_a_host_of_the_same_segment_does_not_cross() {
    const QUIET: [u8; 6] = [2, 0, 0, 0, 9, 1];
    let pair = pair();
    for host in [&pair.fri, &pair.mon] {
        host.run("ip link add br0 type bridge").unwrap();
        host.run("ip link set br0 up").unwrap();
    }
    let [far, quiet, other] =
        [(&pair.fri, "far"), (&pair.mon, "quiet"), (&pair.mon, "other")].map(|(host, name)| {
            let port = host.port(name).unwrap();
            host.run(&format!("ip link set {name} master br0")).unwrap();
            port
        });
    let _link = pair.link(&Toml::tap_fri(), &Toml::tap_mon());
    let frame = |to, from| ethernet(to, from, 0x88b5, &[0; 46]);
    let hello = frame([0xff; 6], QUIET);
    quiet.send(&hello).unwrap();
    assert!(far.wait_frame(SOON, |seen| seen == hello).is_some(), "a broadcast crosses");
    pair.mon.run("bridge fdb del 02:00:00:00:09:01 dev quiet master").unwrap();
    let [local, unknown] = [QUIET, [2, 0, 0, 0, 9, 3]].map(|to| frame(to, [2, 0, 0, 0, 9, 2]));
    for frame in [&local, &unknown] {
        other.send(frame).unwrap();
    }
    let first = far.wait_frame(SOON, |seen| *seen == local || *seen == unknown);
    assert_eq!(first, Some(unknown), "the bridge sends both");
    let stats = super::operation::ask(&pair.mon, &["stats", "mon"]).1;
    assert!(stats.contains("reason=\"guard-local\"} 1\n"), "{stats}");
}
