//! Decides which of the routes offered by the peer are accepted: a peer can never attract traffic that it was not given.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::plan::{KernelRoute, is_link_local};
use crate::config::Config;

/// What an accepted route must not disturb.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// All unicast routes of table main.
    pub routes: &'a [KernelRoute],
    /// Index of the tunnel's own interface.
    pub device: u32,
    /// This host's resolvers.
    pub resolvers: &'a [IpAddr],
    /// Outer addresses of the link, its destination and the remotes, unless a firewall mark identifies its datagrams.
    pub outer: &'a [IpAddr],
}

/// The verdict on an offer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The routes to set.
    pub taken: Vec<IpNet>,
    /// The others.
    pub refused: Vec<(IpNet, Refusal)>,
}

/// Why an offered route is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It lies within no prefix of `accept.routes`.
    Outside,
    /// There are more than `accept.limit`.
    Limit,
    /// It overlaps a network that this host is connected to.
    Connected(IpNet),
    /// It contains a gateway.
    Gateway(IpAddr),
    /// It contains a resolver.
    Resolver(IpAddr),
    /// It contains an outer address of the link.
    Outer(IpAddr),
    /// Its addresses mean this host, this link or a group.
    Special,
    /// There is such a route of somebody else.
    Exists,
}

/// The reason and the remedy.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Outside => return f.write_str("it is within no prefix of accept.routes"),
            Refusal::Limit => return f.write_str("there are more than accept.limit"),
            Refusal::Exists => {
                return f.write_str("this host has a route to it: remove that if the peer should have it");
            }
            Refusal::Special => f.write_str("its addresses are loopback, link-local or multicast ones")?,
            Refusal::Connected(net) => write!(f, "this host is connected to {net}")?,
            Refusal::Gateway(address) => write!(f, "the gateway {address} is in it")?,
            Refusal::Resolver(address) => write!(f, "the resolver {address} is in it")?,
            Refusal::Outer(address) => {
                return write!(
                    f,
                    "{address}, an outer address of this link, is in it; use [full-tunnel] to send everything through the \
                     peer, or add [[route]] to = \"{address}\", via = \"net_gateway\""
                );
            }
        }
        f.write_str("; list exactly this prefix in accept.routes if it is wanted")
    }
}

/// Judges an offer. Routes that the file sets itself are neither taken nor refused.
pub fn judge(offered: &[IpNet], config: &Config, around: Around<'_>) -> Verdict {
    let mut verdict = Verdict::default();
    let own = |net: &&IpNet| !config.routes.iter().any(|route| route.to == **net && route.table.is_none());
    for net in offered.iter().filter(own) {
        if verdict.taken.contains(net) {
            continue;
        }
        match refusal(net, &verdict, config, around) {
            Some(refusal) => verdict.refused.push((*net, refusal)),
            None => verdict.taken.push(*net),
        }
    }
    verdict
}

fn refusal(net: &IpNet, verdict: &Verdict, config: &Config, around: Around<'_>) -> Option<Refusal> {
    let accept = &config.accept;
    if !accept.routes.iter().any(|accepted| accepted.contains(net)) {
        return Some(Refusal::Outside);
    }
    if verdict.taken.len() >= accept.limit {
        return Some(Refusal::Limit);
    }
    // Nothing may cut off the link itself; routes to outer addresses named by the network are no protection.
    let refusal = swallows(net, around)
        .or_else(|| if accept.routes.contains(net) { None } else { disturbs(net, around) });
    // A full tunnel has a table of its own.
    let exists = config.full_tunnel.is_none() && around.routes.iter().any(|route| stands_for(route, net));
    refusal.or(exists.then_some(Refusal::Exists))
}

/// Whether the kernel takes no route to `net` of the default metric beside this one.
fn stands_for(route: &KernelRoute, net: &IpNet) -> bool {
    route.to == *net && matches!((route.metric, net), (None | Some(0), _) | (Some(1024), IpNet::V6(_)))
}

/// The outer address that the route would lead into the tunnel, unless a narrower route leads it elsewhere.
fn swallows(net: &IpNet, around: Around<'_>) -> Option<Refusal> {
    let elsewhere = |address: &IpAddr| {
        let narrower = |route: &&KernelRoute| net.contains(&route.to) && route.to != *net;
        let others = around.routes.iter().filter(|route| route.interface != around.device).filter(narrower);
        others.into_iter().any(|route| route.to.contains(address))
    };
    let outer = around.outer.iter().copied();
    outer.into_iter().find(|address| net.contains(address) && !elsewhere(address)).map(Refusal::Outer)
}

/// What on this host the route would lead into the tunnel. IPv6 link-local prefixes are on every interface and are never routed.
fn disturbs(net: &IpNet, around: Around<'_>) -> Option<Refusal> {
    let others = || around.routes.iter().filter(|route| route.interface != around.device);
    let connected = others().filter(|route| route.gateway.is_none() && !is_link_local(route.to.addr()));
    let overlap = connected.map(|route| route.to).find(|to| to.contains(net) || net.contains(to));
    let gateway = others().filter_map(|route| route.gateway).find(|gateway| net.contains(gateway));
    let within = |addresses: &[IpAddr]| addresses.iter().copied().find(|address| net.contains(address));
    let address = net.addr();
    let special = address.is_loopback() || address.is_multicast() || is_link_local(address);
    None.or(special.then_some(Refusal::Special))
        .or(overlap.filter(|to| to.prefix_len() > 0).map(Refusal::Connected))
        .or(gateway.map(Refusal::Gateway))
        .or_else(|| within(around.resolvers).map(Refusal::Resolver))
}

/// The resolvers of a resolv.conf(5).
pub fn resolvers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| line.trim_start().strip_prefix("nameserver"));
    // A link-local address is followed by its zone.
    servers.filter_map(|rest| rest.split_whitespace().next()?.split('%').next()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Options, parse};

    const DEVICE: u32 = 7;

    fn config(accept: &str) -> Config {
        let text = format!(
            "remote = '192.0.2.1'\n[key]\nfile = 'k'\n[device]\naddress = '10.9.0.1'\npeer = '10.9.0.2'\n\
             [[route]]\nto = '10.50.0.0/16'\n{accept}"
        );
        parse("l", &text, &Options::new("/")).config.unwrap()
    }

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(net).collect()
    }

    fn route(to: &str, gateway: Option<&str>, interface: u32) -> KernelRoute {
        KernelRoute {
            to: net(to),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface,
            interface_name: "eth0".into(),
            // As of a DHCP client.
            metric: Some(100),
            table: 254,
            protocol: 2,
        }
    }

    fn check(accept: &str, offered: &str) -> Verdict {
        let routes = [
            route("0.0.0.0/0", Some("10.0.0.1"), 2),
            route("10.0.0.0/24", None, 2),
            route("fe80::/64", None, 2),
            route("10.9.0.2/32", None, DEVICE),
        ];
        let resolvers = ["10.1.0.53".parse().unwrap()];
        let outer = ["10.2.0.2".parse().unwrap(), "10.2.0.2".parse().unwrap()];
        let around = Around { routes: &routes, device: DEVICE, resolvers: &resolvers, outer: &outer };
        judge(&nets(offered), &config(accept), around)
    }

    #[test]
    fn nothing_is_taken_unless_it_is_asked_for() {
        let verdict = check("", "192.168.66.0/24 0.0.0.0/0 ::/0");
        assert!(verdict.taken.is_empty());
        assert!(verdict.refused.iter().all(|(_, refusal)| *refusal == Refusal::Outside));
        assert_eq!(verdict.refused.len(), 3);
    }

    #[test]
    fn what_lies_within_is_taken_up_to_the_limit_and_once() {
        let accept = "[accept]\nroutes = ['192.168.0.0/16', 'fd00::/8']\nlimit = 2";
        let verdict = check(accept, "192.168.66.0/24 192.168.66.0/24 fd05::/16 192.168.67.0/24 192.0.0.0/8");
        assert_eq!(verdict.taken, nets("192.168.66.0/24 fd05::/16"));
        assert_eq!(
            verdict.refused,
            [(net("192.168.67.0/24"), Refusal::Limit), (net("192.0.0.0/8"), Refusal::Outside)]
        );
    }

    #[test]
    fn what_this_host_needs_is_drawn_in_only_by_name() {
        let wide = "[accept]\nroutes = ['10.0.0.0/8']";
        for (offered, refusal) in [
            ("10.0.0.0/24", Refusal::Connected(net("10.0.0.0/24"))),
            ("10.0.0.0/16", Refusal::Connected(net("10.0.0.0/24"))),
            ("10.0.0.128/25", Refusal::Connected(net("10.0.0.0/24"))),
            ("10.1.0.0/16", Refusal::Resolver("10.1.0.53".parse().unwrap())),
        ] {
            let verdict = check(wide, offered);
            assert_eq!(verdict.refused, [(net(offered), refusal)], "{offered}");
            assert!(verdict.taken.is_empty());
            let verdict = check(&format!("[accept]\nroutes = ['{offered}']"), offered);
            assert_eq!(verdict.taken, [net(offered)], "named itself");
        }
        assert_eq!(check(wide, "10.3.0.0/16").taken, [net("10.3.0.0/16")]);
    }

    #[test]
    fn no_route_takes_an_outer_address_into_the_tunnel_unless_the_operator_led_that_elsewhere() {
        let outer = Refusal::Outer("10.2.0.2".parse().unwrap());
        for (accept, offered) in
            [("10.0.0.0/8", "10.2.0.0/16"), ("10.2.0.0/16", "10.2.0.0/16"), ("0.0.0.0/0", "0.0.0.0/0")]
        {
            let verdict = check(&format!("[accept]\nroutes = ['{accept}']"), offered);
            assert_eq!((verdict.taken, verdict.refused), (vec![], vec![(net(offered), outer)]));
        }
        let accept = config("[accept]\nroutes = ['0.0.0.0/0']");
        let elsewhere = [route("0.0.0.0/0", Some("10.0.0.1"), 2), route("10.2.0.2/32", Some("10.0.0.1"), 2)];
        let outer = ["10.2.0.2".parse().unwrap()];
        let around = Around { routes: &elsewhere, device: DEVICE, resolvers: &[], outer: &outer };
        assert_eq!(judge(&[net("0.0.0.0/0")], &accept, around).taken, [net("0.0.0.0/0")]);
        let marked = Around { routes: &elsewhere[..1], outer: &[], ..around };
        assert_eq!(judge(&[net("0.0.0.0/0")], &accept, marked).taken, [net("0.0.0.0/0")]);
    }

    #[test]
    fn what_is_no_address_of_another_host_is_routed_only_by_name() {
        for offered in
            ["127.0.0.0/8", "169.254.169.254/32", "224.0.0.0/4", "::1/128", "fe80::/10", "ff00::/8"]
        {
            let verdict = check("[accept]\nroutes = ['0.0.0.0/0', '::/0']", offered);
            assert_eq!((verdict.taken, verdict.refused), (vec![], vec![(net(offered), Refusal::Special)]));
            assert_eq!(check(&format!("[accept]\nroutes = ['{offered}']"), offered).taken, [net(offered)]);
        }
    }

    /// The kernel would refuse it at each attempt.
    #[test]
    fn a_route_that_stands_for_the_offered_one_refuses_it_while_it_is_there() {
        let accept = config("[accept]\nroutes = ['10.9.0.0/16', '10.8.0.0/16', 'fd08::/16']");
        let with_metric = |to, metric| KernelRoute { metric, ..route(to, Some("10.0.0.1"), 2) };
        let peer = KernelRoute { metric: None, ..route("10.9.0.2/32", None, DEVICE) };
        let routes = [peer, with_metric("10.8.0.0/16", Some(100))];
        let around = Around { routes: &routes, device: DEVICE, resolvers: &[], outer: &[] };
        let verdict = judge(&nets("10.9.0.2/32 10.8.0.0/16 fd08::/16"), &accept, around);
        assert_eq!(verdict.taken, nets("10.8.0.0/16 fd08::/16"));
        assert_eq!(verdict.refused, [(net("10.9.0.2/32"), Refusal::Exists)]);
        let routes = [with_metric("fd08::/16", Some(1024))];
        let verdict = judge(&nets("10.9.0.2/32 fd08::/16"), &accept, Around { routes: &routes, ..around });
        assert_eq!(
            (verdict.taken, verdict.refused),
            (nets("10.9.0.2/32"), vec![(net("fd08::/16"), Refusal::Exists)])
        );
    }

    #[test]
    fn routes_of_the_file_are_left_alone() {
        assert_eq!(check("[accept]\nroutes = ['10.0.0.0/8']", "10.50.0.0/16"), Verdict::default());
    }

    #[test]
    fn resolvers_are_read_as_resolv_conf_has_them() {
        let text =
            "# no\nsearch x\nnameserver 10.1.0.53\n  nameserver\tfe80::1%eth0 \nnameserver\nnameserver x\n";
        assert_eq!(resolvers(text), ["10.1.0.53", "fe80::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    }

    proptest! {
        /// For any offer, only what accept.routes covers is taken, no more than the limit, and nothing that this host needs.
        #[test]
        fn never_takes_more_than_it_may(offers in prop::collection::vec((any::<u32>(), 0u8..=32), 0..40)) {
            let offered: Vec<IpNet> =
                offers.iter().map(|(bits, length)| IpNet::new((*bits).to_be_bytes().into(), *length).unwrap().trunc()).collect();
            let text: String = offered.iter().map(|net| format!("{net} ")).collect();
            let verdict = check("[accept]\nroutes = ['10.0.0.0/7', '128.0.0.0/1']\nlimit = 9", &text);
            prop_assert!(verdict.taken.len() <= 9);
            for net in &verdict.taken {
                let named = nets("10.0.0.0/7 128.0.0.0/1");
                prop_assert!(named.iter().any(|accepted| accepted.contains(net)));
                prop_assert!(!net.contains(&"10.2.0.2".parse::<IpAddr>().unwrap()));
                for needed in ["10.0.0.1", "10.1.0.53"] {
                    prop_assert!(named.contains(net) || !net.contains(&needed.parse::<IpAddr>().unwrap()));
                }
            }
        }
    }
}
