//! Resolving the remotes. DNS answers come from the network, so short-lived unprivileged processes read them and return only socket addresses: one
//! for each family of each name, so that none waits for another.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::retry_on_intr;
use rustix::net::AddressFamily;
use serde::{Deserialize, Serialize};

use super::zone;
use crate::config::Remote;
use crate::core::limits::ADDRESSES;
use crate::core::path::Path;
use crate::core::remotes::in_turns_of_families;
use crate::helper::{Running, serve};
use crate::privsep::channel::Message;
use crate::privsep::message::Confinement;
use crate::privsep::sandbox;
use crate::privsep::spawn::Role;
use crate::report::text::printable;
use crate::sys::clock;
use crate::sys::names;

/// Most addresses in one answer; of more than are called, known ones are kept.
const MAX_ANSWER: usize = 64;
/// How long a lookup may take.
const LIMIT: Duration = Duration::from_secs(10);
/// Advice for a name that does not resolve.
const ADVICE: &str = "tund keeps trying (a wrong name? no DNS server yet?)";
/// How often an unresolvable name is logged.
const REPEAT: Duration = Duration::from_secs(60);

/// To the resolver: its whole task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Question {
    confinement: Confinement,
    remote: Remote,
    v6: bool,
}

/// From the resolver: its only answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    Found(#[serde(with = "crate::core::zoned::list")] Vec<SocketAddr>),
    Failed(String),
}

impl Message for Question {}

impl Message for Answer {}

/// The resolver process: drops its privileges, resolves, answers.
pub fn main() -> ExitCode {
    serve(|question, _| answer(question))
}

fn answer(Question { confinement, remote, v6 }: Question) -> Answer {
    let family = if v6 { AddressFamily::INET6 } else { AddressFamily::INET };
    let found = match sandbox::lock(Role::Resolver, &confinement) {
        Ok(_) => names::look_up(&remote.host, remote.port, family),
        Err(error) => Err(io::Error::other(format!("resolver: {error}"))),
    };
    match found {
        Ok(mut addresses) => {
            addresses.truncate(MAX_ANSWER);
            Answer::Found(addresses)
        }
        Err(error) => Answer::Failed(error.to_string()),
    }
}

/// The address of a remote that needs no lookup, if its interface exists.
pub fn known(remote: &Remote) -> Option<SocketAddr> {
    literal(remote)?.ok()
}

/// `None` for a name.
fn literal(remote: &Remote) -> Option<io::Result<SocketAddr>> {
    let ip = remote.address()?;
    let numbered = zone::numbered(remote);
    Some(match numbered.zone() {
        None => Ok(SocketAddr::new(ip, remote.port)),
        Some(zone) => format!("[{}]:{}", numbered.host, remote.port)
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {zone}"))),
    })
}

/// The result of resolving a remote.
pub type Resolved = io::Result<Vec<SocketAddr>>;

/// Resolves remotes for a command, all at once, and waits at most 10 s in total. Returns a result for each; one that does not resolve is an error.
///
/// # Errors
/// Waiting for the processes failed.
pub fn ask(remotes: &[Remote], confinement: &Confinement) -> io::Result<Vec<Resolved>> {
    let mut resolver = Resolver::new(remotes.to_vec(), confinement.clone());
    resolver.names.iter_mut().for_each(|name| name.start(clock::now().instant, &resolver.confinement));
    while let Some(due) = resolver.poll_timeout() {
        let left = due.saturating_duration_since(clock::now().instant);
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut polled: Vec<_> =
            resolver.descriptors().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        retry_on_intr(|| rustix::event::poll(&mut polled, Some(&timeout)))?;
        for name in &mut resolver.names {
            name.handle(clock::now().instant);
        }
    }
    let outcome = |name: &Name| match name.failure() {
        Some(error) => Err(io::Error::other(error)),
        None => Ok(name.addresses()),
    };
    Ok(resolver.names.iter().map(outcome).collect())
}

/// The parent's side: all names at once, each by itself.
pub struct Resolver {
    names: Vec<Name>,
    /// The proxy's name, if there is one.
    proxy: Option<Name>,
    confinement: Confinement,
}

impl Resolver {
    /// Resolves these remotes, in this order. The process needs files, so it keeps its root directory.
    pub fn new(remotes: Vec<Remote>, confinement: Confinement) -> Self {
        let confinement = Confinement { root: None, ..confinement };
        Self { names: remotes.into_iter().map(Name::new).collect(), proxy: None, confinement }
    }

    /// Adds the proxy.
    pub fn with_proxy(self, proxy: Option<Remote>) -> Self {
        Self { proxy: proxy.map(Name::new), ..self }
    }

    /// The proxy's known addresses. If there are none, starts a lookup at each call.
    pub fn proxies(&mut self, now: Instant) -> Vec<SocketAddr> {
        let known = self.known_proxies();
        if let Some(proxy) = self.proxy.as_mut().filter(|_| known.is_empty()) {
            proxy.start(now, &self.confinement);
            return self.known_proxies();
        }
        known
    }

    /// The same without a lookup.
    pub fn known_proxies(&self) -> Vec<SocketAddr> {
        self.proxy.as_ref().map(Name::addresses).unwrap_or_default()
    }

    fn all(&self) -> impl Iterator<Item = &Name> {
        self.names.iter().chain(&self.proxy)
    }

    /// Starts a lookup of each name that has none running. Returns the addresses known so far, unless there are none and answers will follow.
    pub fn start(&mut self, now: Instant) -> Option<Vec<Path>> {
        for name in self.names.iter_mut().chain(&mut self.proxy) {
            name.start(now, &self.confinement);
            name.complain(now);
        }
        self.news()
    }

    /// Why names have no address, if any has none.
    pub fn trouble(&self) -> Option<String> {
        let failures: Vec<_> = self.all().filter_map(Name::line).collect();
        (!failures.is_empty()).then(|| format!("{}; {ADVICE}", failures.join("; ")))
    }

    /// Whether an answer is awaited.
    pub fn is_running(&self) -> bool {
        self.all().any(Name::is_running)
    }

    /// The descriptors that wake [`Resolver::handle`].
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all().flat_map(Name::descriptors)
    }

    /// When [`Resolver::handle`] has work at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.all().filter_map(Name::poll_timeout).min()
    }

    /// Takes answers, and aborts lookups that take too long. Returns the addresses known so far, if that is news; empty if all lookups ended without
    /// any.
    pub fn handle(&mut self, now: Instant) -> Option<Vec<Path>> {
        let mut any = false;
        for name in self.names.iter_mut().chain(&mut self.proxy) {
            if name.handle(now) {
                any = true;
                name.complain(now);
            }
        }
        if any { self.news() } else { None }
    }

    fn news(&self) -> Option<Vec<Path>> {
        let addresses = self.addresses();
        (!addresses.is_empty() || !self.is_running()).then_some(addresses)
    }

    /// The addresses, in the order of the names. If there are too many, the names with most lose some.
    fn addresses(&self) -> Vec<Path> {
        let mut each: Vec<Vec<Path>> = self.names.iter().map(|name| name.paths().collect()).collect();
        while each.iter().map(Vec::len).sum::<usize>() > ADDRESSES {
            each.iter_mut().max_by_key(|addresses| addresses.len()).and_then(Vec::pop);
        }
        each.concat()
    }
}

/// One remote.
struct Name {
    remote: Remote,
    /// IPv6 and IPv4.
    queries: [Query; 2],
    /// When the failure to resolve was last logged.
    complained: Option<Instant>,
}

impl Name {
    fn new(remote: Remote) -> Self {
        Self { remote, queries: Default::default(), complained: None }
    }

    fn start(&mut self, now: Instant, confinement: &Confinement) {
        if let Some(address) = literal(&self.remote) {
            let [query, none] = &mut self.queries;
            (query.found, query.error, none.error) = match address {
                Ok(address) => (vec![address], None, None),
                Err(error) => (Vec::new(), Some(error.to_string()), Some(error.to_string())),
            };
            return;
        }
        for (query, v6) in self.queries.iter_mut().zip([true, false]) {
            if query.running.is_none() {
                let question = Question { confinement: confinement.clone(), remote: self.remote.clone(), v6 };
                match Running::start(Role::Resolver, &question, &[]) {
                    Ok(running) => query.running = Some((running, now + LIMIT)),
                    Err(error) => query.error = Some(format!("cannot start the resolver: {error}")),
                }
            }
        }
    }

    fn is_running(&self) -> bool {
        self.queries.iter().any(|query| query.running.is_some())
    }

    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.queries.iter().filter_map(|query| query.running.as_ref()).map(|(running, _)| running.as_fd())
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.queries.iter().filter_map(|query| query.running.as_ref()).map(|(_, due)| *due).min()
    }

    /// Returns true if a query has ended.
    fn handle(&mut self, now: Instant) -> bool {
        let ended = self.queries.each_mut().map(|query| query.handle(now)).contains(&true);
        // If both families failed, old addresses may still be valid. If only one failed, its own are gone.
        if ended && !self.is_running() && self.queries.iter().any(|query| query.error.is_none()) {
            self.queries
                .iter_mut()
                .filter(|query| query.error.is_some())
                .for_each(|query| query.found.clear());
        }
        ended
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        let [v6, v4] = &self.queries;
        in_turns_of_families(&[&v6.found[..], &v4.found].concat())
    }

    fn paths(&self) -> impl Iterator<Item = Path> {
        let stream = self.remote.stream;
        self.addresses().into_iter().map(move |address| Path { stream, ..address.into() })
    }

    /// Why the last lookup failed in both families, if so.
    fn failure(&self) -> Option<String> {
        let [v6, v4] = self.queries.each_ref().map(|query| query.error.as_deref());
        let (v6, v4) = (v6?, v4?);
        Some(if v6 == v4 { v4.to_owned() } else { format!("{v4} (IPv6: {v6})") })
    }

    fn line(&self) -> Option<String> {
        let failure = self.failure()?;
        Some(format!("cannot resolve {}: {failure}", printable(&self.remote.host, 255)))
    }

    /// Logs once at verb 1, then at most every minute at verb 3, whatever the reason then.
    fn complain(&mut self, now: Instant) {
        match (self.line(), self.complained) {
            (Some(text), None) => log::warn!("{text}; {ADVICE} [no-address]"),
            (Some(text), Some(said)) if now.duration_since(said) >= REPEAT => {
                log::debug!("still: {text} [no-address]")
            }
            (Some(_), Some(_)) => return,
            (None, said) => {
                if said.is_some() {
                    self.complained = None;
                    log::info!("{} resolves now", printable(&self.remote.host, 255));
                }
                return;
            }
        }
        self.complained = Some(now);
    }
}

/// A name's lookup in one family.
#[derive(Default)]
struct Query {
    /// The process, and when it times out.
    running: Option<(Running<Question, Answer>, Instant)>,
    /// The last addresses found.
    found: Vec<SocketAddr>,
    /// Why the last lookup found nothing.
    error: Option<String>,
}

impl Query {
    /// Returns true if it has ended.
    fn handle(&mut self, now: Instant) -> bool {
        let Some((running, due)) = &self.running else { return false };
        let answer = match running.answer() {
            Ok(None) if now < *due => return false,
            Ok(None) => Answer::Failed(format!("no answer in {} s", LIMIT.as_secs())),
            Ok(Some(answer)) => answer,
            Err(error) => Answer::Failed(error.to_string()),
        };
        self.running = None;
        match answer {
            Answer::Found(mut addresses) => {
                // Name servers vary the order and, of very many, the selection.
                let place = |address: &_| self.found.iter().position(|known| known == address);
                addresses.sort_by_key(|address| place(address).unwrap_or(usize::MAX));
                addresses.truncate(ADDRESSES);
                (self.found, self.error) = (addresses, None);
            }
            Answer::Failed(error) => self.error = Some(printable(&error, 200)),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "only differences of the clock matter here")]

    use super::*;
    use crate::privsep::channel::Channel;
    use crate::testing::{capture_log, confinement, logged};

    type Played = Channel<Answer, Question>;

    #[test]
    fn addresses_need_no_resolver() {
        let remotes = ["192.0.2.1", "2001:db8::1"].map(remote).to_vec();
        let expected = ["192.0.2.1:1417", "[2001:db8::1]:1417"].map(|text| text.parse().unwrap());
        let mut resolver = Resolver::new(remotes, confinement());
        assert_eq!(resolver.start(Instant::now()), Some(expected.to_vec()));
        assert!(!resolver.is_running() && resolver.trouble().is_none());
    }

    #[test]
    fn an_interface_that_is_not_there_costs_only_its_own_remote() {
        let mut resolver =
            Resolver::new(["fe80::1%not-yet", "fe80::1%lo", "192.0.2.1"].map(remote).to_vec(), confinement());
        let expected = ["[fe80::1%1]:1417", "192.0.2.1:1417"].map(|text| text.parse().unwrap());
        assert_eq!(resolver.start(Instant::now()), Some(expected.to_vec()));
        assert!(resolver.trouble().unwrap().contains("fe80::1%not-yet: "));
    }

    #[test]
    fn each_answer_is_told_as_it_comes_and_silence_costs_its_own_name_alone() {
        let now = Instant::now();
        let mut resolver = Resolver::new(["slow.test", "fast.test"].map(remote).to_vec(), confinement());
        let [[slow6, slow4], [fast6, fast4]] = [play(&mut resolver, 0, now), play(&mut resolver, 1, now)];
        assert_eq!(resolver.handle(now), None);
        fast4.send(&found(&["192.0.2.1"]), &[]).unwrap();
        assert_eq!(resolver.handle(now), Some(addresses(&["192.0.2.1"])));
        fast6.send(&found(&["2001:db8::1"]), &[]).unwrap();
        assert_eq!(resolver.handle(now), Some(addresses(&["2001:db8::1", "192.0.2.1"])));
        assert!(resolver.is_running() && resolver.trouble().is_none());
        slow4.send(&found(&["192.0.2.2"]), &[]).unwrap();
        let all = addresses(&["192.0.2.2", "2001:db8::1", "192.0.2.1"]);
        assert_eq!(resolver.handle(now), Some(all.clone()), "in the order of the names");
        assert_eq!(resolver.poll_timeout(), Some(now + LIMIT));
        assert_eq!(resolver.handle(now + LIMIT), Some(all));
        assert!(!resolver.is_running() && resolver.trouble().is_none(), "one family is enough");
        assert_eq!(resolver.descriptors().count(), 0);
        drop(slow6);
    }

    #[test]
    fn a_failing_name_is_said_once_then_every_minute_until_it_resolves() {
        capture_log();
        let mut resolver = Resolver::new(vec![remote("said-once.test")], confinement());
        let start = Instant::now();
        let mut fail = |at: u64, error: &str| {
            let now = start + Duration::from_secs(at);
            for played in play(&mut resolver, 0, now) {
                played.send(&Answer::Failed(error.to_owned()), &[]).unwrap();
            }
            assert_eq!(resolver.handle(now), Some(Vec::new()));
            logged("resolve said-once.test").len()
        };
        let counts =
            [fail(0, "a\nb"), fail(5, "other"), fail(59, "a"), fail(60, "a"), fail(119, "\x1b[2J\u{9b}")];
        assert_eq!(counts, [1, 1, 1, 2, 2]);
        assert!(logged("resolve said-once.test")[0].contains("a_b"));
        assert_eq!(resolver.names[0].failure().unwrap(), "_[2J_", "a command shows it");

        let [v6, v4] = play(&mut resolver, 0, start);
        v4.send(&found(&["192.0.2.1"]), &[]).unwrap();
        v6.send(&Answer::Failed("none".to_owned()), &[]).unwrap();
        assert_eq!(resolver.handle(start), Some(addresses(&["192.0.2.1"])));
        assert_eq!(logged("said-once.test resolves now").len(), 1);
        assert!(resolver.trouble().is_none());
    }

    #[test]
    fn what_was_found_counts_until_there_is_another_answer() {
        let now = Instant::now();
        let mut resolver = Resolver::new(vec![remote("kept.test")], confinement());
        let mut answer = |v6: Answer, v4: Answer| {
            let [six, four] = play(&mut resolver, 0, now);
            six.send(&v6, &[]).unwrap();
            four.send(&v4, &[]).unwrap();
            resolver.handle(now).unwrap()
        };
        let failed = || Answer::Failed("no server".to_owned());
        let both = addresses(&["2001:db8::1", "192.0.2.1"]);
        assert_eq!(answer(found(&["2001:db8::1"]), found(&["192.0.2.1"])), both);
        assert_eq!(answer(failed(), failed()), both, "a server that is away changes nothing");
        assert_eq!(answer(failed(), found(&["192.0.2.9"])), addresses(&["192.0.2.9"]));
    }

    #[test]
    fn a_name_with_many_addresses_leaves_room_for_others_and_its_order_does_not_matter() {
        let now = Instant::now();
        let mut resolver = Resolver::new(["many.test", "192.0.2.200"].map(remote).to_vec(), confinement());
        let many: Vec<String> = (1..=20).map(|n| format!("192.0.2.{n}")).collect();
        let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
        let mut seen = Vec::new();
        resolver.names[1].start(now, &confinement());
        for _ in 0..3 {
            let [v6, v4] = play(&mut resolver, 0, now);
            v4.send(&found(&many), &[]).unwrap();
            v6.send(&found(&["2001:db8::1"]), &[]).unwrap();
            let mut all = resolver.handle(now).unwrap();
            assert_eq!(all.len(), ADDRESSES);
            assert_eq!(
                (all[0], all[ADDRESSES - 1]),
                (addresses(&["2001:db8::1"])[0], addresses(&["192.0.2.200"])[0])
            );
            all.sort_by_key(|path| path.remote);
            seen.push(all);
            many.rotate_left(7);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn a_process_ends_with_its_look_up() {
        let now = Instant::now();
        let mut resolver = Resolver::new(vec![remote("overdue.test")], confinement());
        let _played = play(&mut resolver, 0, now);
        let pids =
            resolver.names[0].queries.each_ref().map(|query| query.running.as_ref().unwrap().0.child.id());
        assert_eq!(resolver.start(now), None, "nothing is started beside them");
        assert_eq!(resolver.handle(now + LIMIT), Some(Vec::new()));
        assert!(resolver.trouble().unwrap().contains("overdue.test: "));
        assert!(pids.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()));
    }

    /// Answers for the processes of a name, IPv6 and IPv4.
    fn play(resolver: &mut Resolver, index: usize, now: Instant) -> [Played; 2] {
        resolver.names[index].queries.each_mut().map(|query| {
            let (channel, theirs) = Channel::pair().unwrap();
            let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
            query.running = Some((Running { child, channel }, now + LIMIT));
            Played::from_fd(theirs)
        })
    }

    fn found(hosts: &[&str]) -> Answer {
        Answer::Found(addresses(hosts).into_iter().map(|path| path.remote).collect())
    }

    fn addresses(hosts: &[&str]) -> Vec<Path> {
        hosts.iter().map(|host| SocketAddr::new(host.parse().unwrap(), 1417).into()).collect()
    }

    fn remote(host: &str) -> Remote {
        Remote { host: host.to_owned(), port: 1417, stream: false }
    }
}
