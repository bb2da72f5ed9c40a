//! The full tunnel: everything goes through the link but the link's own datagrams.
//!
//! The default route stays as it is; two routes of half the addresses each are more specific. A family that the link
//! does not carry is refused instead, since it would otherwise pass beside the tunnel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::plan::{self, Host, Interface, KernelRoute, PlanError};
use super::step::{ROUTE_PROTOCOL, Step, TABLE_MAIN};
use crate::config::Config;

/// The halves of each family's addresses.
fn halves() -> [IpNet; 4] {
    let four = |first: u8| IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(first, 0, 0, 0), 1));
    let six = |first: u16| IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0), 1));
    [four(0), four(128), six(0), six(0x8000)]
}

/// What refuses packets whenever the tunnel is not there, with `fail = "closed"`.
pub fn blocks(config: &Config) -> Vec<Step> {
    let closed = config.full_tunnel.is_some_and(|full| full.closed);
    halves().into_iter().filter(|_| closed).map(Step::Block).collect()
}

/// The ways to the outer addresses, the refusal of what the link does not carry, then the routes into the tunnel.
pub fn steps(
    config: &Config,
    device: &Interface,
    host: &Host,
    outer: &[IpAddr],
) -> Result<Vec<Step>, PlanError> {
    let Some(full) = config.full_tunnel else { return Ok(Vec::new()) };
    let mut steps = pins(device, host, outer);
    let (carried, other): (Vec<_>, Vec<_>) = halves().into_iter().partition(|net| carries(config, net));
    steps.extend(other.into_iter().filter(|_| !full.closed).map(Step::Block));
    for net in carried {
        steps.push(plan::pushed_step(config, device, host, net)?);
    }
    Ok(steps)
}

/// A link whose addresses a script sets carries both families, for all that is known.
fn carries(config: &Config, net: &IpNet) -> bool {
    let addresses = &config.device.addresses;
    addresses.is_empty() || addresses.iter().any(|own| own.addr().is_ipv4() == net.addr().is_ipv4())
}

/// A route for each outer address that the halves would lead into the tunnel: along its present way. Addresses with
/// a more specific route keep that.
fn pins(device: &Interface, host: &Host, outer: &[IpAddr]) -> Vec<Step> {
    let mut outer = outer.to_vec();
    outer.sort();
    outer.dedup();
    let pin = |address: &IpAddr| {
        let others = host.routes.iter().filter(|route| {
            let own_pin = route.protocol == ROUTE_PROTOCOL && route.to == IpNet::from(*address);
            route.to.contains(address) && route.interface != device.index && !own_pin
        });
        let way = others
            .max_by_key(|route| (route.to.prefix_len(), std::cmp::Reverse(route.metric.unwrap_or(0))))?;
        (way.to.prefix_len() <= 1).then(|| {
            Step::AddRoute(KernelRoute {
                to: IpNet::from(*address),
                gateway: way.gateway,
                interface: way.interface,
                interface_name: way.interface_name.clone(),
                metric: None,
                table: TABLE_MAIN,
                protocol: ROUTE_PROTOCOL,
            })
        })
    };
    outer.iter().filter_map(pin).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};

    fn config(addresses: &str, fail: &str) -> Config {
        let text = format!(
            "remote = '203.0.113.9'\n[key]\nfile = 'k'\n[device]\naddress = {addresses}\npeer = '10.9.0.2'\n\
             [full-tunnel]\nmode = 'def1'\nfail = '{fail}'\n"
        );
        parse("l", &text, &Options::new("/")).config.unwrap()
    }

    fn device() -> Interface {
        Interface { index: 7, name: "tun0".into() }
    }

    fn route(to: &str, gateway: Option<&str>, interface: u32) -> KernelRoute {
        KernelRoute {
            to: to.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface,
            interface_name: format!("eth{interface}"),
            metric: None,
            table: TABLE_MAIN,
            protocol: 2,
        }
    }

    fn shown(config: &Config, routes: Vec<KernelRoute>, outer: &[&str]) -> Vec<String> {
        let outer: Vec<_> = outer.iter().map(|address| address.parse().unwrap()).collect();
        let host = Host { routes, ..Host::default() };
        let blocks = blocks(config).into_iter();
        blocks.chain(steps(config, &device(), &host, &outer).unwrap()).map(|step| step.to_string()).collect()
    }

    #[test]
    fn the_remote_keeps_its_way_and_the_rest_goes_into_the_tunnel() {
        let routes = vec![
            route("0.0.0.0/0", Some("10.0.0.1"), 2),
            route("10.0.0.0/24", None, 2),
            route("203.0.113.128/25", Some("10.0.0.7"), 3),
            route("0.0.0.0/1", None, 7),
        ];
        let outer = ["203.0.113.9", "203.0.113.200", "10.0.0.5", "203.0.113.9", "2001:db8::9"];
        assert_eq!(
            shown(&config("['10.9.0.1']", "open"), routes, &outer),
            [
                "ip route add 203.0.113.9/32 via 10.0.0.1 dev eth2",
                "ip route add unreachable ::/1 metric 4294967295",
                "ip route add unreachable 8000::/1 metric 4294967295",
                "ip route add 0.0.0.0/1 via 10.9.0.2 dev tun0",
                "ip route add 128.0.0.0/1 via 10.9.0.2 dev tun0",
            ]
        );
    }

    #[test]
    fn closed_refuses_both_families_and_a_link_with_both_carries_both() {
        let text = shown(&config("['10.9.0.1', 'fd00::1']", "closed"), vec![], &[]);
        assert_eq!(text.iter().filter(|line| line.contains("unreachable")).count(), 4);
        assert!(text.contains(&"ip route add ::/1 dev tun0".to_owned()), "{text:?}");
        let text = shown(&config("['10.9.0.1', 'fd00::1']", "open"), vec![], &[]);
        assert!(!text.iter().any(|line| line.contains("unreachable")), "{text:?}");
    }

    /// A pin that is set already must not seem to be a way of its own, or it would be taken back.
    #[test]
    fn a_pin_that_is_set_is_planned_again() {
        let mut pin = route("203.0.113.9/32", Some("10.0.0.1"), 2);
        pin.protocol = ROUTE_PROTOCOL;
        let routes = vec![route("0.0.0.0/0", Some("10.0.0.1"), 2), pin];
        let text = shown(&config("['10.9.0.1']", "open"), routes, &["203.0.113.9"]);
        assert!(text.contains(&"ip route add 203.0.113.9/32 via 10.0.0.1 dev eth2".to_owned()), "{text:?}");
    }

    #[test]
    fn without_the_table_there_is_nothing() {
        let config = Config { full_tunnel: None, ..config("['10.9.0.1']", "open") };
        assert_eq!(shown(&config, vec![route("0.0.0.0/0", Some("10.0.0.1"), 2)], &["203.0.113.9"]), [""; 0]);
    }
}
