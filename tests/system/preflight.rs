//! Findings about a host as the kernel describes it.

use std::net::UdpSocket;

use tund::config::{Code, Options, Severity, parse};
use tund::device;
use tund::packet::layer::Mode;
use tund::preflight::{check_host, check_port};
use tund::route::netlink::Netlink;

use crate::namespace::{isolated, sh};

const TEXT: &str = r#"remote = "mon.tn:1417"
listen = 1417
bind-device = "nic7"
[key]
mode = "static"
file = "static.key"
[device]
name = "link0"
address = ["192.168.86.81", "2001:db8:86::81/64"]
peer = ["192.168.86.18", "2001:db8:86::18"]
[[route]]
to = "192.168.66.0/24"
[[route]]
to = "2001:db8:66::/64"
[[route]]
to = "192.168.56.0/24"
via = "net_gateway"
"#;

#[test]
fn a_host_in_the_way_is_found_and_the_own_device_is_not() {
    isolated(|| {
        let mut netlink = Netlink::open().unwrap();
        let parsed = parse("l", TEXT, &Options::new("/"));
        let (config, places) = (parsed.config.unwrap(), parsed.places);
        let mut found = |own| -> Vec<(Code, String)> {
            let found = check_host(&config, &places, own, &mut netlink);
            assert!(found.iter().all(|d| d.severity == Severity::Warning && d.span.is_some()), "{found:#?}");
            found.into_iter().map(|d| (d.code, TEXT[d.span.unwrap()].trim_matches('"').to_owned())).collect()
        };
        const OWN: &str = "[\"192.168.86.81\", \"2001:db8:86::81/64\"]";
        const PEER: &str = "[\"192.168.86.18\", \"2001:db8:86::18\"]";
        let of = |code: Code, text: &str| (code, text.to_owned());
        let empty = [of(Code::NoDefaultRoute, "net_gateway"), of(Code::NoInterface, "nic7")];
        assert_eq!(found(None), empty);

        sh("ip link add nic7 type veth peer name far7");
        sh("ip link set nic7 up");
        sh("ip link set far7 up");
        sh("ip addr add 192.168.86.1/24 dev nic7");
        sh("ip addr add 2001:db8:86::1/64 dev nic7 nodad");
        sh("ip route add default via 192.168.86.2 dev nic7");
        sh("ip route add 192.168.66.0/24 via 192.168.86.2 dev nic7");
        sh("ip route add 2001:db8:66::/64 via 2001:db8:86::2 dev nic7");
        let port = UdpSocket::bind("0.0.0.0:1417").unwrap();
        assert_eq!(
            found(None),
            [
                of(Code::NetworkTaken, OWN),
                of(Code::NetworkTaken, OWN),
                of(Code::NetworkTaken, PEER),
                of(Code::NetworkTaken, PEER),
                of(Code::RouteTaken, "192.168.66.0/24"),
                of(Code::RouteTaken, "2001:db8:66::/64"),
            ]
        );
        let taken = check_port(&config, &places).unwrap();
        assert_eq!(taken.code, Code::PortTaken);
        assert!(taken.message.contains(&format!("(pid {})", std::process::id())), "{taken:?}");
        drop(port);

        sh("ip link del nic7");
        sh("ip link add nic7 type veth peer name far7");
        let device = device::open(Mode::Tun, Some("link0"), 1).unwrap();
        sh("ip link set link0 up");
        sh("ip addr add 192.168.86.81 peer 192.168.86.18 dev link0");
        sh("ip route add 192.168.66.0/24 dev link0");
        assert_eq!(found(Some(device.index)), empty[..1], "the link runs");
        assert!(found(None).contains(&of(Code::InterfaceTaken, "link0")));
        assert!(found(None).contains(&of(Code::AddressTaken, OWN)));
    });
}

#[test]
fn a_remote_that_is_this_end_itself_is_found() {
    isolated(|| {
        sh("ip link set lo up");
        let mut netlink = Netlink::open().unwrap();
        for (remote, finds) in [("127.0.0.1", true), ("192.0.2.1", false)] {
            let parsed = parse("l", &TEXT.replace("mon.tn", remote), &Options::new("/"));
            let found = check_host(&parsed.config.unwrap(), &parsed.places, None, &mut netlink);
            assert_eq!(found.iter().any(|d| d.code == Code::OwnRemote), finds, "{remote}: {found:#?}");
        }
    });
}
