//! Links with several lanes, on multi-queue devices.
//!
//! ```text
//!  fri 10.0.0.1, fd99::1 ---- 10.0.0.2, fd99::2 mon
//! ```

use serde_json::Value;
use tund_lab::{Host, wait_until};

use super::support::*;

/// Queues of a device, attached or not; `None`: it can have one alone.
fn queues(host: &Host, device: &str) -> Option<u64> {
    let links: Value =
        serde_json::from_str(&host.run(&format!("ip -j -d link show {device}")).ok()?).unwrap();
    let details = &links[0]["linkinfo"]["info_data"];
    Some(details["numqueues"].as_u64()? + details["numdisabled"].as_u64()?)
}

fn lanes(toml: Toml, lanes: &str) -> Toml {
    toml.handshake().with(&format!("[tuning]\nlanes = {lanes}"))
}

#[test]
fn each_end_has_a_queue_for_each_of_its_lanes_and_frames_pass() {
    let pair = pair();
    let (fri, mon) = (lanes(Toml::tun_fri(), "2"), lanes(Toml::tun_mon(), "4"));
    let _link = pair.link(&fri, &mon);
    assert_eq!((queues(&pair.fri, "tun0"), queues(&pair.mon, "tun0")), (Some(2), Some(4)));
    assert_pings(&pair.fri, "192.168.86.18");
    assert_eq!(stream(&pair.fri, &pair.mon, "192.168.86.18"), STREAM);
}

#[test]
fn frames_pass_between_an_end_with_lanes_and_one_without() {
    let pair = pair();
    for host in [&pair.fri, &pair.mon] {
        assert_eq!(bridge(host), "");
    }
    let (fri, mon) = (lanes(Toml::tap_fri(), "'auto'"), Toml::tap_mon().handshake());
    let _link = pair.link(&fri, &mon);
    assert_eq!(queues(&pair.mon, "tap0"), None);
    assert_pings(&pair.fri, "10.5.0.2");
}

/// With the address that the host's last one tells.
fn bridge(host: &Host) -> String {
    let last =
        host.run("ip -4 -brief addr show eth0").unwrap().split("10.0.0.").nth(1).unwrap()[..1].to_owned();
    host.run("ip link add br0 type bridge").unwrap();
    host.run("ip link set br0 up").unwrap();
    host.run(&format!("ip addr add 10.5.0.{last}/24 dev br0")).unwrap()
}

#[test]
fn a_device_of_another_program_and_one_that_is_made_again_have_them_too() {
    let pair = pair();
    pair.fri.run("ip tuntap add dev tun0 mode tun multi_queue").unwrap();
    let (mut fri, mon) = pair.link(&lanes(Toml::tun_fri(), "3"), &lanes(Toml::tun_mon(), "3"));
    assert_eq!((queues(&pair.fri, "tun0"), queues(&pair.mon, "tun0")), (Some(3), Some(3)));
    pair.mon.run("ip link del tun0").unwrap();
    mon.wait_line("[device-gone]", SOON).unwrap();
    wait_until("the device", SOON, || queues(&pair.mon, "tun0") == Some(3)).unwrap();
    pair.fri
        .wait_output("ping -n -c 1 -W 1 192.168.86.18", SOON, |text| text.contains("1 received"))
        .unwrap();
    assert_eq!(fri.terminate(SOON).unwrap(), 0);
    assert_eq!(queues(&pair.fri, "tun0"), Some(0), "it is not tund's to remove");
    // One lane is to be had of it, too.
    let fri = pair.start_fri(&lanes(Toml::tun_fri(), "1"));
    fri.wait_line(UP, SOON).unwrap();
    assert_eq!(queues(&pair.fri, "tun0"), Some(1));
    assert_pings(&pair.fri, "192.168.86.18");
}

#[test]
fn a_device_that_was_made_for_one_queue_is_refused_or_taken_as_it_is() {
    let pair = pair();
    pair.fri.run("ip tuntap add dev tun0 mode tun").unwrap();
    let mut fri = pair.start_fri(&lanes(Toml::tun_fri(), "2"));
    assert_eq!(exit_code(&mut fri), 69);
    let (_fri, _mon) = pair.link(&lanes(Toml::tun_fri(), "'auto'"), &lanes(Toml::tun_mon(), "2"));
    assert_eq!(queues(&pair.fri, "tun0"), None);
    assert_pings(&pair.fri, "192.168.86.18");
}
