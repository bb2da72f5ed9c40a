use super::*;
use crate::config::{Options, parse};
use crate::packet::layer::Mode;
use crate::route::plan::{Host, device_steps};

const DEVICE: u32 = 9;
const BRIDGE: u32 = 4;

/// A configuration, the steps for its device, and a host on which they took effect.
struct Rig {
    config: Config,
    steps: Vec<Step>,
    seen: Seen,
}

fn interface(index: u32, name: &str, kind: &str) -> Link {
    let (name, kind) = (name.to_owned(), Some(kind.to_owned()));
    Link { index, name, mtu: 1500, up: true, carrier: true, kind, queues: None, master: None, mac: None }
}

fn route(to: &str, interface: u32) -> KernelRoute {
    let (to, interface_name) = (to.parse().unwrap(), "tun0".to_owned());
    KernelRoute { to, gateway: None, interface, interface_name, metric: None, table: TABLE_MAIN, protocol: 2 }
}

fn device() -> Interface {
    Interface { index: DEVICE, name: "dev0".to_owned() }
}

impl Rig {
    fn new(text: &str) -> Self {
        let parsed = parse("l", &format!("listen = 1417\n{text}"), &Options::new("/"));
        let config = parsed.config.unwrap_or_else(|| panic!("{:#?}", parsed.diagnostics));
        let bridge = Interface { index: BRIDGE, name: "br0".to_owned() };
        let host = Host { routes: Vec::new(), bridge: Some(bridge), mac: Some([0xfe, 1, 2, 3, 4, 5]) };
        let steps = device_steps(&config, &device(), &host).unwrap();
        let master = config.device.bridge.as_ref().map(|_| BRIDGE);
        let mac =
            steps.iter().find_map(|step| if let Step::SetLink { mac, .. } = step { *mac } else { None });
        let kind = if config.device.mode == Mode::Tun { "tun" } else { "tap" };
        let own = Link { mtu: config.device.mtu, master, mac, ..interface(DEVICE, "dev0", kind) };
        let links = vec![interface(2, "eth0", "veth"), interface(BRIDGE, "br0", "bridge"), own];
        let addresses: Vec<_> = steps
            .iter()
            .filter_map(|step| {
                let Step::AddAddress { address, peer, .. } = step else { return None };
                Some(Address { interface: DEVICE, address: *address, peer: *peer, tentative: false })
            })
            .collect();
        let net = |own: &Address| own.peer.map_or(own.address.trunc(), IpNet::from).to_string();
        let routes = addresses.iter().map(|own| route(&net(own), DEVICE)).collect();
        Self { config, steps, seen: Seen { links, addresses, routes, ..Seen::default() } }
    }

    fn tun() -> Self {
        Self::new(
            "[key]\nfile = 'k'\n[device]\naddress = ['10.8.0.2', 'fd00::2', '10.9.0.1/24']\npeer = ['10.8.0.1', 'fd00::1']",
        )
    }

    fn tap() -> Self {
        Self::new("[key]\nfile = 'k'\n[device]\nmode = 'tap'\nname = 'dev0'\nbridge = 'br0'")
    }

    fn own(&mut self) -> &mut Link {
        self.seen.links.iter_mut().find(|link| link.index == DEVICE).unwrap()
    }

    fn wanted<'a>(&'a self, device: &'a Interface) -> Wanted<'a> {
        Wanted { config: &self.config, device, device_steps: &self.steps, own_socket: true }
    }

    fn findings(&self) -> Vec<Finding> {
        compare(self.wanted(&device()), &self.seen)
    }

    fn codes(&self) -> Vec<&'static str> {
        self.findings().iter().map(|finding| finding.difference.code()).collect()
    }

    fn mends(&self) -> Vec<String> {
        self.findings().iter().flat_map(|finding| &finding.mends).map(Step::to_string).collect()
    }
}

#[test]
fn where_all_is_as_it_was_set_nothing_differs() {
    for rig in [Rig::tun(), Rig::tap()] {
        assert_eq!(rig.findings(), []);
    }
}

#[test]
fn a_device_that_is_down_is_one_difference_whatever_is_lost_with_it() {
    let mut rig = Rig::tun();
    rig.own().up = false;
    rig.seen.addresses.retain(|own| own.address.addr().is_ipv4());
    rig.seen.routes.clear();
    rig.seen.missing = vec![Step::AddRoute(route("10.66.0.0/16", DEVICE))];
    assert_eq!((rig.codes(), rig.mends()), (vec!["device-down"], vec!["ip link set dev dev0 up".to_owned()]));
    // Routes not through the device are compared as well; so is what keeps a full tunnel closed.
    let block = Step::Block { to: "::/0".parse().unwrap(), table: 7 };
    rig.seen.missing.extend([Step::AddRoute(route("10.66.0.0/16", 2)), block]);
    assert_eq!(rig.codes(), ["device-down", "rule-missing", "route-missing"]);
    assert_eq!(rig.findings()[2].mends.len(), 1);
}

#[test]
fn a_device_that_tund_has_not_set_up_is_said_to_be_down_and_left_alone() {
    let mut rig = Rig::tun();
    rig.steps.clear();
    rig.own().up = false;
    let findings = rig.findings();
    assert_eq!(rig.codes(), ["device-down"]);
    assert!(!findings[0].is_mendable() && findings[0].difference.stops_frames());
}

#[test]
fn a_device_in_another_namespace_is_said_and_nothing_is_set_at_its_index() {
    let mut rig = Rig::tun();
    rig.seen.links.retain(|link| link.index != DEVICE);
    rig.seen.missing = vec![Step::AddRoute(route("10.66.0.0/16", DEVICE))];
    assert_eq!((rig.codes(), rig.mends()), (vec!["device-gone"], vec![]));
}

#[test]
fn an_address_hides_what_depends_on_it_in_its_own_family_only() {
    let mut rig = Rig::tun();
    rig.seen.addresses.retain(|own| own.address.addr().is_ipv4());
    rig.seen.routes.retain(|route| route.to.addr().is_ipv4());
    let missing = ["fd66::/64", "10.66.0.0/16"].map(|to| Step::AddRoute(route(to, DEVICE)));
    rig.seen.missing = missing.into();
    assert_eq!(rig.codes(), ["address-missing", "route-missing"]);
    assert_eq!(
        rig.mends(),
        ["ip addr add fd00::2 peer fd00::1 dev dev0", "ip route add 10.66.0.0/16 dev tun0"]
    );
}

#[test]
fn an_address_with_another_peer_makes_room() {
    let mut rig = Rig::tun();
    rig.seen.addresses[1].peer = None;
    assert_eq!(rig.mends()[0], "ip addr del fd00::2/128 dev dev0");
    assert_eq!(rig.mends()[1], "ip addr add fd00::2 peer fd00::1 dev dev0");
}

#[test]
fn the_kernels_own_routes_belong_to_the_addresses() {
    let mut rig = Rig::tun();
    rig.seen.routes.clear();
    // To the same destinations, but not through the device.
    rig.seen.routes.push(route("10.8.0.1/32", 2));
    assert_eq!(rig.codes(), ["connected-route-missing"]);
    let expected =
        ["10.8.0.1/32", "fd00::1/128", "10.9.0.0/24"].map(|to| format!("ip route add {to} dev dev0"));
    assert_eq!(rig.mends(), expected);
    rig.seen.addresses.iter_mut().for_each(|own| own.tentative = own.address.addr().is_ipv6());
    assert_eq!(
        rig.mends(),
        [expected[0].as_str(), &expected[2]],
        "the kernel has not taken the other into use"
    );
    // A device in a VRF has them there.
    rig.own().master = Some(2);
    assert_eq!(rig.findings(), []);
}

#[test]
fn a_bridge_is_known_by_its_name() {
    let mut rig = Rig::tap();
    rig.own().master = None;
    assert_eq!(
        (rig.codes(), rig.mends()),
        (vec!["bridge-port-missing"], vec!["ip link set dev dev0 master br0".to_owned()])
    );
    rig.seen.links.retain(|link| link.index != BRIDGE);
    assert_eq!((rig.codes(), rig.mends()), (vec!["bridge-missing"], vec![]));
    rig.seen.links.push(interface(BRIDGE, "br0", "veth"));
    assert_eq!(rig.codes(), ["bridge-missing"], "not every interface is a bridge");
    rig.seen.links.push(interface(70, "br0", "bridge"));
    let mends = rig.findings().remove(0).mends;
    assert!(matches!(mends[..], [Step::Join { bridge: 70, .. }]), "{mends:?}");
    rig.own().master = Some(70);
    assert_eq!(rig.findings(), []);
    rig.seen.links.last_mut().unwrap().up = false;
    assert_eq!((rig.codes(), rig.mends()), (vec!["bridge-down"], vec![]));
}

/// A smaller one is no difference: the bridge takes the MTU of its smallest port.
#[test]
fn a_bridge_that_has_grown_is_said_where_its_mtu_is_wanted() {
    let mut rig = Rig::tap();
    rig.seen.links.iter_mut().find(|link| link.index == BRIDGE).unwrap().mtu = 9000;
    assert_eq!(rig.findings(), []);
    rig.config.device.mtu_of_bridge = true;
    assert_eq!((rig.codes(), rig.mends()), (vec!["bridge-mtu"], vec![]));
    for own_socket in [true, false] {
        let found = compare(Wanted { own_socket, ..rig.wanted(&device()) }, &rig.seen);
        assert_eq!(found[0].is_mendable(), own_socket, "{found:?}");
    }
    rig.config.device.take_bridge_mtu(70_000);
    assert_eq!((rig.config.device.mtu, rig.config.device.is_smaller_than(70_000)), (9216, false));
}

#[test]
fn mtu_and_mac_of_the_device_are_set_again() {
    let mut rig = Rig::tap();
    let own = rig.own();
    (own.mtu, own.mac) = (1300, Some([2; 6]));
    assert_eq!(rig.codes(), ["device-mtu", "device-mac"]);
    assert_eq!(
        rig.mends(),
        ["ip link set dev dev0 mtu 1500", "ip link set dev dev0 address fe:01:02:03:04:05"]
    );
    // Nobody sees a tun device's MAC address.
    let mut rig = Rig::tun();
    rig.own().mac = None;
    assert_eq!(rig.findings(), []);
}

#[test]
fn the_socket_is_bound_to_its_interface_and_has_its_address() {
    let mut rig = Rig::tun();
    rig.config.bind_device = Some("ppp0".to_owned());
    assert_eq!(rig.codes(), ["bind-device-missing"]);
    rig.seen.links.push(interface(33, "ppp0", "ppp"));
    assert_eq!(rig.codes(), ["socket-unbound"]);
    assert!(rig.findings()[0].is_mendable());
    rig.seen.bound_to = Some("ppp0".to_owned());
    assert_eq!(rig.findings(), []);
    rig.config.listen.address = Some("192.0.2.7".parse().unwrap());
    assert_eq!(rig.codes(), ["listen-address-missing"]);
    let device = device();
    let passed = Wanted { own_socket: false, ..rig.wanted(&device) };
    assert_eq!(compare(passed, &rig.seen), [], "a socket that was passed has its own address");
    let address =
        Address { interface: 2, address: "192.0.2.7/24".parse().unwrap(), peer: None, tentative: false };
    rig.seen.addresses.push(address);
    assert_eq!(rig.findings(), []);
}

#[test]
fn what_is_there_is_told_beside_what_is_not() {
    let mut rig = Rig::tap();
    assert_eq!(sight(&device(), &rig.seen).unwrap().master.as_deref(), Some("br0"));
    rig = Rig::tun();
    let local =
        Address { interface: DEVICE, address: "fe80::1/64".parse().unwrap(), peer: None, tentative: false };
    rig.seen.addresses.push(local);
    rig.seen.addresses.remove(0);
    rig.seen.missing = vec![Step::AddRoute(route("10.66.0.0/16", DEVICE))];
    let there = sight(&device(), &rig.seen).unwrap();
    assert_eq!((there.up, there.mtu, there.master), (true, 1420, None));
    assert_eq!(there.addresses, rig.seen.addresses[..2].iter().map(|own| own.address).collect::<Vec<_>>());
    let absent = absent(&rig.steps, &rig.seen);
    let expected = ["ip addr add 10.8.0.2 peer 10.8.0.1 dev dev0", "ip route add 10.66.0.0/16 dev tun0"];
    assert_eq!(absent.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    rig.seen.links.clear();
    assert_eq!(sight(&device(), &rig.seen), None);
}
