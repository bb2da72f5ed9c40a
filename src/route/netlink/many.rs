//! Bulk changes and comparisons of routes, reading each table once.

use std::collections::{HashMap, HashSet};
use std::io;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Message;
use rustix::io::Errno;

use super::decode::{self, Identity, Place};
use super::encode;
use super::socket::{Dump, Failure};
use super::{Address, Link, Netlink};
use crate::route::plan::{KernelRoute, ROUTE_PROTOCOL, Step, TABLE_MAIN, remembered};
use crate::route::step::Family;

/// A routing table: family and number.
type Table = (Family, u32);

fn table(route: &KernelRoute) -> Table {
    (Family::of(&route.to), route.table)
}

/// Table main, read once for all queries.
pub struct Main {
    /// Its unicast routes, both families.
    pub routes: Vec<KernelRoute>,
    /// False if it changed during every attempt to read it.
    whole: bool,
}

impl Main {
    /// tund's own routes of a family.
    fn own(&self, family: Family) -> HashSet<Identity> {
        let own = |route: &&KernelRoute| Family::of(&route.to) == family && route.protocol == ROUTE_PROTOCOL;
        self.routes.iter().filter(own).map(decode::identity).collect()
    }
}

/// State of the host, each part read once.
#[derive(Default)]
struct Read {
    occupied: HashMap<Table, HashMap<Place, Vec<KernelRoute>>>,
    links: HashMap<u32, Option<Link>>,
}

impl Netlink {
    /// Carries out steps in order, each like [`Netlink::apply`]; consecutive routes are sent together. A failed step does not stop the others.
    pub fn apply_all(&mut self, steps: &[Step]) -> Vec<io::Result<bool>> {
        let alike = |one: &Step, next: &Step| {
            matches!(
                (one, next),
                (Step::AddRoute(_), Step::AddRoute(_)) | (Step::DeleteRoute(_), Step::DeleteRoute(_))
            )
        };
        let mut results = Vec::with_capacity(steps.len());
        for run in steps.chunk_by(alike) {
            match run {
                [Step::AddRoute(_), ..] => results.append(&mut self.add_routes(run)),
                [Step::DeleteRoute(_), ..] => results.append(&mut self.delete_routes(run)),
                others => results.extend(others.iter().map(|step| self.apply(step))),
            }
        }
        results
    }

    fn add_routes(&mut self, steps: &[Step]) -> Vec<io::Result<bool>> {
        let message = |route| Message::NewRoute(encode::route_message(route));
        let routes: Vec<_> = steps.iter().filter_map(Step::route).collect();
        let outcomes = self.socket.requests(NLM_F_CREATE | NLM_F_EXCL, routes.iter().copied().map(message));
        let (mut read, mut taken) = (Read::default(), Vec::new());
        let mut results: Vec<_> = outcomes
            .into_iter()
            .zip(steps.iter().zip(&routes))
            .enumerate()
            .map(|(number, (outcome, (step, route)))| match outcome {
                Err(failure) if failure.errno() == Some(Errno::EXIST) => {
                    self.may_take_over(step, route, &mut read)?;
                    taken.push((number, *route));
                    Ok(true)
                }
                result => result.map(|()| true).map_err(|failure| failure.while_doing(step)),
            })
            .collect();
        let outcomes = self.socket.requests(NLM_F_REPLACE, taken.iter().map(|(_, route)| message(route)));
        for ((number, _), outcome) in taken.iter().zip(outcomes) {
            if let (Err(failure), Some(step), Some(result)) =
                (outcome, steps.get(*number), results.get_mut(*number))
            {
                *result = Err(failure.while_doing(step));
            }
        }
        results
    }

    /// Whether every route in the place of `route` is a leftover of ours.
    fn may_take_over(&mut self, step: &Step, route: &KernelRoute, read: &mut Read) -> io::Result<()> {
        let occupied = remembered(&mut read.occupied, table(route), || {
            let mut routes = self.routes_of(encode::family(route.to.addr()), route.table, false)?.entries;
            self.name_interfaces(&mut routes)?;
            let mut places = HashMap::<_, Vec<_>>::new();
            routes.into_iter().for_each(|found| places.entry(decode::place(&found)).or_default().push(found));
            Ok::<_, io::Error>(places)
        })?;
        let occupants = occupied.get(&decode::place(route)).map(Vec::as_slice).unwrap_or_default();
        let owner = match occupants.iter().find(|occupant| occupant.protocol != ROUTE_PROTOCOL) {
            Some(foreign) => Some(format!("{foreign}, which is not tund's")),
            None if occupants.is_empty() => Some(format!("one to {} that is not unicast", route.to)),
            None => self.running_tunnel(occupants, route, &mut read.links)?,
        };
        match owner {
            None => Ok(()),
            Some(owner) => Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{step}: a route already exists: {owner}; set another metric or table"),
            )),
        }
    }

    /// The occupant, if any, through another tunnel device that a process has open.
    fn running_tunnel(
        &mut self,
        occupants: &[KernelRoute],
        route: &KernelRoute,
        links: &mut HashMap<u32, Option<Link>>,
    ) -> io::Result<Option<String>> {
        for occupant in occupants.iter().filter(|occupant| occupant.interface != route.interface) {
            let link = remembered(links, occupant.interface, || self.link_at(occupant.interface))?;
            if link.as_ref().is_some_and(|link| link.carrier && link.kind.as_deref() == Some("tun")) {
                return Ok(Some(format!("{occupant}, which is another tunnel's")));
            }
        }
        Ok(None)
    }

    /// Deletes routes. The kernel's match is wider than ours (an absent IPv4 metric matches any), so only routes known to exist are deleted, unless
    /// the tables change too fast to know.
    fn delete_routes(&mut self, steps: &[Step]) -> Vec<io::Result<bool>> {
        let mut there = HashMap::new();
        let mut present = Vec::with_capacity(steps.len());
        for step in steps {
            let Step::DeleteRoute(route) = step else { continue };
            present.push(self.is_there(route, &mut there).map(|found| found.unwrap_or(true)));
        }
        let doomed = steps.iter().zip(&present).filter_map(|(step, present)| match (step, present) {
            (Step::DeleteRoute(route), Ok(true)) => Some(Message::DelRoute(encode::route_message(route))),
            _ => None,
        });
        let doomed: Vec<_> = doomed.collect();
        let mut outcomes = self.socket.requests(0, doomed).into_iter();
        let result = |(step, present): (&Step, io::Result<bool>)| match present {
            Ok(true) => match outcomes.next() {
                Some(Err(failure)) if matches!(failure.errno(), Some(Errno::SRCH | Errno::NODEV)) => {
                    Ok(false)
                }
                Some(Err(failure)) => Err(failure.while_doing(step)),
                Some(Ok(())) | None => Ok(true),
            },
            other => other,
        };
        steps.iter().zip(present).map(result).collect()
    }

    /// Whether the kernel has this route of tund's; `None` if its table changes too fast to know. Reads each table once into `there`.
    fn is_there(
        &mut self,
        route: &KernelRoute,
        there: &mut HashMap<(Table, bool), (HashSet<Identity>, bool)>,
    ) -> io::Result<Option<bool>> {
        let own = route.protocol == ROUTE_PROTOCOL;
        let (routes, whole) = remembered(there, (table(route), own), || {
            let read = self.routes_of(encode::family(route.to.addr()), route.table, own)?;
            Ok::<_, io::Error>((read.entries.iter().map(decode::identity).collect(), read.whole))
        })?;
        let found = routes.contains(&decode::identity(route));
        Ok((found || *whole).then_some(found))
    }

    /// Reads table main.
    pub fn main(&mut self) -> io::Result<Main> {
        let v4 = self.routes_of(AddressFamily::Inet, TABLE_MAIN, false)?;
        let mut v6 = self.routes_of(AddressFamily::Inet6, TABLE_MAIN, false)?;
        let (mut routes, whole) = (v4.entries, v4.whole && v6.whole);
        routes.append(&mut v6.entries);
        self.name_interfaces(&mut routes)?;
        Ok(Main { routes, whole })
    }

    /// The steps adding routes, blocks, rules and addresses whose effect is missing; table main is as read before.
    pub fn missing(&mut self, steps: &[Step], main: &Main) -> io::Result<Vec<Step>> {
        let own = |family| (((family, TABLE_MAIN), true), (main.own(family), main.whole));
        let mut tables: HashMap<_, _> = [Family::V4, Family::V6].map(own).into();
        let mut addresses = HashMap::new();
        let mut missing = Vec::new();
        for step in steps {
            let there = match step {
                Step::AddRoute(route) => self.is_there(route, &mut tables)?.unwrap_or(true),
                Step::Block { to, table } => self.is_absent(Family::of(to)) || self.is_blocked(to, *table)?,
                Step::AddRule(rule) => self.is_absent(rule.family) || self.has_rule(rule)?,
                Step::AddAddress { index, address, .. } => {
                    let Dump { entries, whole } =
                        remembered(&mut addresses, *index, || self.addresses_of(Some(*index)))?;
                    !*whole || entries.iter().any(|found| found.address.addr() == address.addr())
                }
                Step::SetLink { .. }
                | Step::DeleteAddress { .. }
                | Step::Join { .. }
                | Step::Leave { .. }
                | Step::DeleteRoute(_)
                | Step::Unblock { .. }
                | Step::DeleteRule(_) => true,
            };
            if !there {
                missing.push(step.clone());
            }
        }
        Ok(missing)
    }

    fn is_blocked(&mut self, net: &IpNet, table: u32) -> io::Result<bool> {
        let request = encode::get_routes(encode::family(net.addr()), table, true);
        let answer =
            self.socket.dump(request, |message| decode::is_block(&message, net, table).then_some(()));
        Ok(!present(answer).map_err(|failure| failure.while_doing(&"listing routes"))?.entries.is_empty())
    }

    /// The unicast routes of a table, tund's own or all, without interface names.
    pub(super) fn routes_of(
        &mut self,
        family: AddressFamily,
        table: u32,
        own: bool,
    ) -> io::Result<Dump<KernelRoute>> {
        let wanted = |route: &KernelRoute| !own || route.protocol == ROUTE_PROTOCOL;
        let take = |message| decode::unicast_route(&message, family, table).filter(wanted);
        let answer = self.socket.dump(encode::get_routes(family, table, own), take);
        present(answer).map_err(|failure| failure.while_doing(&"listing routes"))
    }

    /// The addresses of one interface, or of all.
    pub(super) fn addresses_of(&mut self, interface: Option<u32>) -> io::Result<Dump<Address>> {
        let wanted = |address: &Address| interface.is_none_or(|interface| interface == address.interface);
        let take = |message| decode::address(&message).filter(wanted);
        let answer = self.socket.dump(encode::get_addresses(interface), take);
        present(answer).map_err(|failure| failure.while_doing(&"listing addresses"))
    }

    pub(super) fn name_interfaces(&mut self, routes: &mut [KernelRoute]) -> io::Result<()> {
        let mut names = HashMap::new();
        for route in routes {
            let name = remembered(&mut names, route.interface, || {
                let link = self.link_at(route.interface)?;
                Ok::<_, io::Error>(link.map_or_else(|| format!("if{}", route.interface), |link| link.name))
            })?;
            route.interface_name.clone_from(name);
        }
        Ok(())
    }
}

/// Treats a table or interface that does not exist as empty.
fn present<T>(answer: Result<Dump<T>, Failure>) -> Result<Dump<T>, Failure> {
    match answer {
        Err(failure) if matches!(failure.errno(), Some(Errno::NOENT | Errno::NODEV)) => {
            Ok(Dump { entries: Vec::new(), whole: true })
        }
        answer => answer,
    }
}
