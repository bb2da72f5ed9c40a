//! What other programs do to the device and its bridge while the link runs, and how it is mended.

use std::time::Duration;

use tund_lab::{Host, wait_until};

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

/// Both families, and a route of each that leads through the peer.
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
    // Down and up at once: the device is up, but what was on it is gone.
    pair.fri.run("ip link set tun0 down").unwrap();
    pair.fri.run("ip link set tun0 up").unwrap();
    BEHIND.iter().for_each(|address| wait_answer(&pair.fri, address));
    // The routes that the kernel sets with an address are nobody's but the link's to miss.
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
    let set = lines.iter().filter(|line| line.contains("set again: ip link set dev tun0 up")).count();
    assert!((2..=AT_MOST_A_MINUTE).contains(&set), "{lines:#?}");
    assert!(lines.len() < 40, "{lines:#?}");
    assert!(!fri.text().contains("link down"), "the peer still answers: {lines:#?}");
    for address in BEHIND {
        let back = wait_until(address, Duration::from_secs(45), || answers(&pair.fri, address));
        back.unwrap();
    }
}

#[test]
fn mtu_and_addresses_are_as_the_file_says_again() {
    let (pair, _fri, _mon) = linked();
    // Below 1280 the kernel takes IPv6 off the device.
    pair.fri.run("ip link set tun0 mtu 1000").unwrap();
    let device = || pair.fri.run("ip addr show tun0").unwrap();
    wait_until("MTU", SOON, || device().contains("mtu 1400")).unwrap();
    pair.fri.run("ip addr del 10.8.0.2 peer 10.8.0.1 dev tun0").unwrap();
    pair.fri.run("ip addr add 10.8.0.2/24 dev tun0").unwrap();
    wait_until("its peer", SOON, || device().contains("10.8.0.2 peer 10.8.0.1/32")).unwrap();
    assert!(!device().contains("10.8.0.2/24"), "{}", device());
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
    // Somebody else's bridge.
    pair.mon.run("ip link add br1 type bridge").unwrap();
    pair.mon.run("ip link set tap0 master br1").unwrap();
    wait_answer(&a, "10.5.0.2");
    assert_eq!(mon.terminate(SOON).unwrap(), 0);
    assert_eq!(pair.mon.interfaces().unwrap(), ["br0", "br1", "eth0", "lan0", "lo"]);
}
