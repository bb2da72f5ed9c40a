//! The full tunnel: everything but the link's own datagrams goes through the link.
//!
//! The exception is by sender, not by destination (ip-rule(8)): the link's socket carries a mark. Unmarked packets are looked up in the link's own
//! table, whose default route leads into the tunnel. Table main stays as it is. An address family that the link does not carry is blocked there,
//! since it would otherwise bypass the tunnel.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::plan::{self, Host, Interface, KernelRoute, PlanError};
use super::step::{Family, Rule, Step, TABLE_MAIN};
use crate::config::{Config, FullTunnel};
use crate::packet::layer::Mode;

/// The first of the numbers that links choose from ...
const NUMBERS_FROM: u32 = 16_384;
/// ... and their count, each with its successor: all are below 32766, the rule for table main (`fib_default_rules_init` of net/ipv4/fib_rules.c).
const NUMBERS: u32 = 8_190;

/// The number of the link's table and of its first rule's priority; the second rule has the next. It is a hash of the link's name (FNV-1a), so that a
/// restart does not change it.
pub fn number(config: &Config) -> u32 {
    let hash = config
        .name
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    NUMBERS_FROM + hash % NUMBERS * 2
}

/// What is in force while the tunnel is down, with `fail = "closed"`: all but the link's own datagrams are blocked.
pub fn blocks(config: &Config) -> Vec<Step> {
    let Some(full) = config.full_tunnel.filter(|full| full.closed) else { return Vec::new() };
    let table = number(config);
    let refusals = [Family::V4, Family::V6].map(|family| Step::Block { to: everything(family), table });
    refusals.into_iter().chain(rules(config, full)).collect()
}

/// The routes of the link's table, and its rules unless [`blocks`] has them.
pub fn steps(config: &Config, device: &Interface, host: &Host) -> Result<Vec<Step>, PlanError> {
    let Some(full) = config.full_tunnel else { return Ok(Vec::new()) };
    let table = number(config);
    let mut steps = Vec::new();
    if !full.local_networks {
        steps.extend(own_networks(config, device, host).map(|route| in_table(route, table)));
        let own = plan::route_steps(config, device, host)?;
        let main = own.iter().filter_map(Step::route).filter(|route| route.table == TABLE_MAIN);
        steps.extend(main.map(|route| in_table(route.clone(), table)));
    }
    for family in [Family::V4, Family::V6] {
        if carries(config, family) {
            steps.push(in_table(plan::through_peer(config, device, host, everything(family))?, table));
        } else if !full.closed {
            steps.push(Step::Block { to: everything(family), table });
        }
    }
    steps.extend(rules(config, full).filter(|_| !full.closed));
    Ok(steps)
}

/// The table for the peer's routes: with a full tunnel the link's, where its own datagrams are not looked up.
pub fn pushed_table(config: &Config) -> u32 {
    if config.full_tunnel.is_some() { number(config) } else { TABLE_MAIN }
}

/// For each family: what is more specific in table main than its default route, if that stays; then the link's table for unmarked packets.
fn rules(config: &Config, full: FullTunnel) -> impl Iterator<Item = Step> {
    let number = number(config);
    let mark = config.mark();
    [Family::V4, Family::V6].into_iter().flat_map(move |family| {
        let own =
            Rule { family, priority: number + 1, table: number, unless_mark: mark, suppress_default: false };
        let main =
            Rule { priority: number, table: TABLE_MAIN, unless_mark: None, suppress_default: true, ..own };
        [Some(main).filter(|_| full.local_networks), Some(own)].into_iter().flatten().map(Step::AddRule)
    })
}

/// Whether the link carries the family. If a script sets the addresses, both are assumed.
fn carries(config: &Config, family: Family) -> bool {
    let addresses = &config.device.addresses;
    addresses.is_empty() || addresses.iter().any(|own| Family::of(own) == family)
}

fn everything(family: Family) -> IpNet {
    match family {
        Family::V4 => Ipv4Net::default().into(),
        Family::V6 => Ipv6Net::default().into(),
    }
}

/// The networks at the far end of a bridged link, which are inside the tunnel.
fn own_networks<'a>(
    config: &Config,
    device: &'a Interface,
    host: &'a Host,
) -> impl Iterator<Item = KernelRoute> {
    let inside = move |index: u32| {
        index == device.index || host.bridge.as_ref().is_some_and(|bridge| bridge.index == index)
    };
    let connected = move |route: &&KernelRoute| {
        route.gateway.is_none() && inside(route.interface) && route.to.prefix_len() > 0
    };
    host.routes.iter().filter(|_| config.device.mode == Mode::Tap).filter(connected).cloned()
}

fn in_table(route: KernelRoute, table: u32) -> Step {
    Step::AddRoute(KernelRoute { table, protocol: super::step::ROUTE_PROTOCOL, ..route })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Options, parse};

    fn config(addresses: &str, full: &str) -> Config {
        let text = format!(
            "remote = '203.0.113.9'\n[key]\nfile = 'k'\n[device]\naddress = {addresses}\npeer = '10.9.0.2'\n\
             [[route]]\nto = '10.20.0.0/16'\nvia = 'net_gateway'\n[full-tunnel]\n{full}\n"
        );
        parse("l", &text, &Options::new("/")).config.unwrap()
    }

    fn host() -> Host {
        let route = |to: &str, gateway: Option<&str>| KernelRoute {
            to: to.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            interface: 2,
            interface_name: "eth0".into(),
            metric: None,
            table: TABLE_MAIN,
            protocol: 2,
        };
        let routes = vec![route("0.0.0.0/0", Some("10.0.0.1")), route("10.0.0.0/24", None)];
        Host { routes, ..Host::default() }
    }

    fn shown(config: &Config) -> (Vec<String>, Vec<String>) {
        let device = Interface { index: 7, name: "tun0".into() };
        let text = |steps: Vec<Step>| steps.iter().map(Step::to_string).collect();
        (text(blocks(config)), text(steps(config, &device, &host()).unwrap()))
    }

    #[test]
    fn open_leads_all_but_the_mark_into_the_tunnel_and_refuses_the_other_family() {
        let config = config("['10.9.0.1']", "fail = 'open'");
        let number = number(&config);
        let next = number + 1;
        assert_eq!(
            shown(&config),
            (
                vec![],
                vec![
                    format!("ip route add 0.0.0.0/0 via 10.9.0.2 dev tun0 onlink table {number}"),
                    format!("ip route add unreachable ::/0 metric 4294967295 table {number}"),
                    format!("ip rule add lookup main suppress_prefixlength 0 priority {number} protocol 88"),
                    format!("ip rule add not fwmark 0x74756e64 lookup {number} priority {next} protocol 88"),
                    format!(
                        "ip -6 rule add lookup main suppress_prefixlength 0 priority {number} protocol 88"
                    ),
                    format!(
                        "ip -6 rule add not fwmark 0x74756e64 lookup {number} priority {next} protocol 88"
                    ),
                ]
            )
        );
    }

    #[test]
    fn closed_refuses_both_families_first_and_a_link_with_both_carries_both() {
        let config = config("['10.9.0.1', 'fd00::1']", "fail = 'closed'");
        let (blocks, steps) = shown(&config);
        assert_eq!(blocks.iter().filter(|line| line.contains("unreachable")).count(), 2);
        assert_eq!(blocks.iter().filter(|line| line.contains("rule add")).count(), 4);
        let number = number(&config);
        assert_eq!(
            steps,
            [
                format!("ip route add 0.0.0.0/0 via 10.9.0.2 dev tun0 onlink table {number}"),
                format!("ip route add ::/0 dev tun0 table {number}")
            ]
        );
    }

    #[test]
    fn refuse_looks_at_table_main_for_nothing_but_the_files_own_routes() {
        let config = config("['10.9.0.1']", "fail = 'closed'\nlocal-networks = 'refuse'");
        let (blocks, steps) = shown(&config);
        assert!(!blocks.iter().chain(&steps).any(|line| line.contains("main")), "{blocks:?} {steps:?}");
        assert_eq!(blocks.iter().filter(|line| line.contains(" fwmark ")).count(), 2);
        let kept =
            format!("ip route add 10.20.0.0/16 via 10.0.0.1 dev eth0 onlink table {}", number(&config));
        assert!(steps.contains(&kept), "{steps:?}");
        assert!(!steps.iter().any(|line| line.contains("10.0.0.0/24")), "{steps:?}");
    }

    #[test]
    fn no_step_depends_on_an_address_outside() {
        let config = config("['10.9.0.1']", "fail = 'closed'");
        let other = Config { remotes: Vec::new(), ..config.clone() };
        assert_eq!(shown(&config), shown(&other));
    }

    #[test]
    fn an_own_mark_takes_the_place_of_the_default_and_zero_is_none() {
        let marked = |mark| Config { fwmark: Some(mark), ..config("['10.9.0.1']", "fail = 'open'") };
        assert!(shown(&marked(7)).1.iter().any(|line| line.contains(" fwmark 0x7 ")));
        assert!(shown(&marked(0)).1.iter().any(|line| line.contains(" fwmark 0x74756e64 ")));
    }

    #[test]
    fn links_have_numbers_of_their_own_below_the_rule_for_table_main() {
        let base = config("['10.9.0.1']", "fail = 'open'");
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..40 {
            let number = number(&Config { name: format!("tun-fri-{n}"), ..base.clone() });
            assert!(
                number.is_multiple_of(2) && (NUMBERS_FROM..32_766).contains(&number) && number + 1 < 32_766
            );
            seen.insert(number);
        }
        assert_eq!(seen.len(), 40);
    }

    #[test]
    fn without_the_table_there_is_nothing() {
        let config = Config { full_tunnel: None, ..config("['10.9.0.1']", "fail = 'open'") };
        assert_eq!(shown(&config), (vec![], vec![]));
    }
}
