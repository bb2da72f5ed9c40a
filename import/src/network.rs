//! Addresses, netmasks and routes in OpenVPN's notation.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The gateway of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Gateway {
    Net,
    Address(IpAddr),
}

/// `route` or `route-ipv6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    pub to: IpNet,
    /// `None`: the peer.
    pub gateway: Option<Gateway>,
    pub metric: Option<i64>,
}

const NAMES: &str = "its network is a name: look it up and add a [[route]] for its address";
const MASK: &str = "not a network and netmask";
const GATEWAY: &str = "its gateway is a name: look it up and add a [[route]] with its address";

/// Parses `network [netmask] [gateway] [metric]`, each possibly `default`.
pub(super) fn route(words: &[&str], remotes: &[(String, Option<String>)]) -> Result<Route, &'static str> {
    let given = |index: usize| words.get(index).copied().filter(|word| *word != "default");
    let network: Ipv4Addr = match words.first().copied().ok_or(MASK)? {
        "remote_host" => {
            let remote = remotes.first().and_then(|(host, _)| host.parse().ok());
            remote.ok_or("remote_host is a name here; [full-tunnel] keeps the route to the peer by itself")?
        }
        "vpn_gateway" | "net_gateway" => return Err(NAMES),
        network => network.parse().map_err(|_| NAMES)?,
    };
    let netmask: Ipv4Addr = given(1).unwrap_or("255.255.255.255").parse().map_err(|_| MASK)?;
    let to = Ipv4Net::with_netmask(network, netmask).map_err(|_| MASK)?.trunc();
    Ok(Route { to: to.into(), gateway: gateway(given(2))?, metric: metric(given(3))? })
}

/// Parses `network/bits [gateway] [metric]`.
pub(super) fn route_ipv6(words: &[&str]) -> Result<Route, &'static str> {
    let given = |index: usize| words.get(index).copied().filter(|word| *word != "default");
    let to: Ipv6Net = words.first().ok_or(MASK)?.parse().map_err(|_| "not an IPv6 prefix")?;
    Ok(Route { to: to.trunc().into(), gateway: gateway(given(1))?, metric: metric(given(2))? })
}

fn gateway(word: Option<&str>) -> Result<Option<Gateway>, &'static str> {
    match word {
        None | Some("vpn_gateway") => Ok(None),
        Some("net_gateway" | "net_gateway_ipv6") => Ok(Some(Gateway::Net)),
        Some(address) => address.parse().map(|address| Some(Gateway::Address(address))).map_err(|_| GATEWAY),
    }
}

fn metric(word: Option<&str>) -> Result<Option<i64>, &'static str> {
    word.map(str::parse).transpose().map_err(|_| "its metric is not a number")
}

/// An address and its netmask as a prefix with host bits.
pub(super) fn with_netmask(address: &str, netmask: &str) -> Option<Ipv4Net> {
    Ipv4Net::with_netmask(address.parse().ok()?, netmask.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_have_openvpns_defaults() {
        let remotes = [("192.0.2.7".to_owned(), None)];
        let of = |text: &str| route(&text.split(' ').collect::<Vec<_>>(), &remotes);
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let plain = Route { to: net("10.1.2.3/32"), gateway: None, metric: None };
        assert_eq!(of("10.1.2.3"), Ok(plain));
        let full = Route { to: net("10.1.0.0/16"), gateway: Some(Gateway::Net), metric: Some(7) };
        assert_eq!(of("10.1.2.3 255.255.0.0 net_gateway 7"), Ok(full));
        assert_eq!(of("10.1.0.0 255.255.0.0 default 7").unwrap().gateway, None);
        assert_eq!(of("remote_host 255.255.255.255 net_gateway").unwrap().to, net("192.0.2.7/32"));
        assert_eq!(of("lab.example 255.255.0.0"), Err(NAMES));
        assert_eq!(of("10.1.0.0 255.0.255.0"), Err(MASK));
        assert_eq!(of("10.1.0.0 255.255.0.0 gate.example"), Err(GATEWAY));
        let six = route_ipv6(&["fd00:66::1/64", "fd00::2"]).unwrap();
        assert_eq!(
            (six.to, six.gateway),
            (net("fd00:66::/64"), Some(Gateway::Address("fd00::2".parse().unwrap())))
        );
    }
}
