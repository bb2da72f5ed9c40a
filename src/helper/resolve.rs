//! Looking the remotes up. DNS answers come from the network, so that a short-lived process without
//! privileges reads them and hands back nothing but socket addresses.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use serde::{Deserialize, Serialize};

use super::zone;
use crate::config::Remote;
use crate::privsep::channel::{Channel, Message};
use crate::privsep::message::Confinement;
use crate::privsep::sandbox;
use crate::privsep::spawn::{self, Role, inherited, spawn};
use crate::report::text::printable;
use crate::say;

/// Most addresses that are tried.
pub const MAX_ADDRESSES: usize = 16;
/// How long a look-up may take.
const LIMIT: Duration = Duration::from_secs(10);
/// What to think of when a name does not resolve.
const ADVICE: &str = "tund goes on trying (a wrong name? no DNS server yet?)";
/// How often an unresolvable name is said again.
const REPEAT: Duration = Duration::from_secs(60);

/// To the resolver: its whole work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Question {
    confinement: Confinement,
    remotes: Vec<Remote>,
}

/// From the resolver: its only answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    #[serde(with = "crate::core::zoned::list")]
    addresses: Vec<SocketAddr>,
    failures: Vec<Failure>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Failure {
    host: String,
    error: String,
}

impl Message for Question {
    fn descriptors(&self) -> RangeInclusive<usize> {
        0..=0
    }
}

impl Message for Answer {
    fn descriptors(&self) -> RangeInclusive<usize> {
        0..=0
    }
}

/// The resolver process: reads the question from descriptor 0, drops its privileges, answers, ends.
pub fn main() -> ExitCode {
    match answer() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer() -> io::Result<()> {
    let channel = inherited::<Answer, Question>()?;
    let Some((question, _)) = channel.receive()? else { return Ok(()) };
    let answer = match sandbox::lock(Role::Resolver, &question.confinement) {
        Ok(_) => look_up(&question.remotes),
        Err(error) => {
            let failure = Failure { host: "resolver".to_owned(), error: error.to_string() };
            Answer { addresses: Vec::new(), failures: vec![failure] }
        }
    };
    channel.send(&answer, &[])
}

/// The addresses of one remote, whose zone is an index if it has one.
fn find(remote: &Remote) -> io::Result<Vec<SocketAddr>> {
    let Remote { host, port } = remote;
    match (remote.zone(), remote.address()) {
        (Some(zone), _) => {
            let address = format!("[{host}]:{port}").parse();
            let missing = || io::Error::new(io::ErrorKind::NotFound, format!("there is no interface {zone}"));
            Ok(vec![address.map_err(|_| missing())?])
        }
        (None, Some(ip)) => Ok(vec![SocketAddr::new(ip, *port)]),
        (None, None) => Ok((host.as_str(), *port).to_socket_addrs()?.collect()),
    }
}

/// The address of a remote that needs no look-up, if its interface is there.
pub fn known(remote: &Remote) -> Option<SocketAddr> {
    remote.address()?;
    find(&zone::numbered(remote)).ok()?.first().copied()
}

/// The answer if there is nothing to ask a name server: every host is an address.
fn literal(remotes: &[Remote]) -> Option<Answer> {
    remotes.iter().all(|remote| remote.address().is_some()).then(|| look_up(remotes))
}

fn look_up(remotes: &[Remote]) -> Answer {
    let mut answer = Answer::default();
    for remote in remotes {
        match find(remote) {
            Ok(addresses) => answer.addresses.extend(addresses),
            Err(error) => {
                let error = error.to_string().replace("failed to lookup address information: ", "");
                answer.failures.push(Failure { host: remote.host.clone(), error });
            }
        }
    }
    answer.addresses.truncate(MAX_ADDRESSES);
    answer
}

/// Looks one remote up for a command that waits for it, in a process of its own as ever.
///
/// # Errors
/// The name does not resolve, the process fails, or it takes longer than 10 s.
pub fn ask(remote: &Remote, confinement: &Confinement) -> io::Result<Vec<SocketAddr>> {
    let remote = &zone::numbered(remote);
    if let Some(answer) = literal(std::slice::from_ref(remote)) {
        return only(answer);
    }
    let confinement = Confinement { root: None, ..confinement.clone() };
    let running = Running::start(&confinement, std::slice::from_ref(remote))?;
    let limit = Timespec { tv_sec: LIMIT.as_secs().cast_signed(), tv_nsec: 0 };
    let ready = rustix::event::poll(&mut [PollFd::new(&running.channel, PollFlags::IN)], Some(&limit));
    let answer = match ready {
        Ok(0) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in 10 s")),
        Ok(_) => running.channel.receive(),
        Err(error) => Err(error.into()),
    };
    running.end();
    let text = "the resolver process ended without an answer";
    let (answer, _) = answer?.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, text))?;
    only(answer)
}

fn only(answer: Answer) -> io::Result<Vec<SocketAddr>> {
    match answer.failures.first() {
        Some(failure) => Err(io::Error::other(printable(&failure.error, 200))),
        None => Ok(answer.addresses),
    }
}

/// The parent's side: at most one look-up at a time.
pub struct Resolver {
    remotes: Vec<Remote>,
    confinement: Confinement,
    /// The process, and when it has taken too long.
    running: Option<(Running, Instant)>,
    /// When it was last said that a name does not resolve.
    complained: Option<Instant>,
    /// Why the last look-up found nothing, or not all.
    trouble: Option<String>,
}

struct Running {
    child: Child,
    channel: Channel<Question, Answer>,
}

impl Resolver {
    /// For these remotes, in this order. The process needs files, so that it keeps its root directory.
    pub fn new(remotes: Vec<Remote>, confinement: Confinement) -> Self {
        let confinement = Confinement { root: None, ..confinement };
        Self { remotes, confinement, running: None, complained: None, trouble: None }
    }

    /// Starts a look-up unless one is under way. Addresses that need none are the answer at once, and so
    /// is the empty list when no process can be started.
    pub fn start(&mut self, now: Instant) -> Option<Vec<SocketAddr>> {
        if self.running.is_some() {
            return None;
        }
        let remotes: Vec<_> = self.remotes.iter().map(zone::numbered).collect();
        if let Some(answer) = literal(&remotes) {
            return Some(self.finish(answer, now));
        }
        match Running::start(&self.confinement, &remotes) {
            Ok(running) => {
                self.running = Some((running, now + LIMIT));
                None
            }
            Err(error) => {
                self.complain(format!("cannot start the resolver: {error}"), now);
                Some(Vec::new())
            }
        }
    }

    /// Why the last look-up found nothing or not all, if so.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// The descriptor whose reading wakes [`Resolver::handle_readable`].
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|(running, _)| running.channel.as_fd())
    }

    /// When [`Resolver::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.running.as_ref().map(|(_, deadline)| *deadline)
    }

    /// The addresses found, once the process has answered; empty when it found none.
    pub fn handle_readable(&mut self, now: Instant) -> Option<Vec<SocketAddr>> {
        let answer = match self.running.as_ref()?.0.channel.receive() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
            Ok(Some((answer, _))) => answer,
            Ok(None) => self.failed("the resolver process ended without an answer"),
            Err(_) => self.failed("the resolver process gave no proper answer"),
        };
        Some(self.finish(answer, now))
    }

    /// Gives up on a look-up that takes too long: the empty list.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<Vec<SocketAddr>> {
        if self.running.as_ref()?.1 > now {
            return None;
        }
        let answer = self.failed("no answer in 10 s");
        Some(self.finish(answer, now))
    }

    fn failed(&self, error: &str) -> Answer {
        let hosts: Vec<_> = self.remotes.iter().map(|remote| remote.host.as_str()).collect();
        Answer {
            addresses: Vec::new(),
            failures: vec![Failure { host: hosts.join(", "), error: error.to_owned() }],
        }
    }

    fn finish(&mut self, mut answer: Answer, now: Instant) -> Vec<SocketAddr> {
        if let Some((running, _)) = self.running.take() {
            running.end();
        }
        self.trouble = None;
        if answer.failures.is_empty() {
            if self.complained.take().is_some() {
                say!(1, "the remote's name resolves now");
            }
        } else {
            let lines: Vec<_> = answer.failures.iter().take(MAX_ADDRESSES).map(Failure::to_string).collect();
            let text = lines.join("; ");
            self.trouble = Some(format!("{text}; {ADVICE}"));
            self.complain(text, now);
        }
        answer.addresses.truncate(MAX_ADDRESSES);
        answer.addresses
    }

    /// Once at verb 1, then at most every minute at verb 3, whatever the reason is by then.
    fn complain(&mut self, text: String, now: Instant) {
        match self.complained {
            None => say!(1, "{text}; {ADVICE}"),
            Some(said) if now.duration_since(said) >= REPEAT => say!(3, "still: {text}"),
            Some(_) => return,
        }
        self.complained = Some(now);
    }
}

impl Running {
    fn start(confinement: &Confinement, remotes: &[Remote]) -> io::Result<Self> {
        let (child, channel) = spawn(Role::Resolver)?;
        let running = Self { child, channel };
        let question = Question { confinement: confinement.clone(), remotes: remotes.to_vec() };
        match running.channel.send(&question, &[]) {
            // That it has ended already is found when its answer is read.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                running.end();
                Err(error)
            }
            Ok(()) | Err(_) => Ok(running),
        }
    }

    fn end(mut self) {
        // One that does not end is of no more concern: its answer is not read.
        let _ = spawn::end(&mut self.child);
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot resolve {}: {}", printable(&self.host, 255), printable(&self.error, 200))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "only differences of the clock matter here")]

    use super::*;
    use crate::testing::{capture_log, confinement, logged};

    #[test]
    fn addresses_need_no_resolver() {
        let remotes = [remote("192.0.2.1"), remote("2001:db8::1")];
        let expected = ["192.0.2.1:1417", "[2001:db8::1]:1417"].map(|text| text.parse().unwrap());
        assert_eq!(literal(&remotes).unwrap().addresses, expected);
        assert_eq!(literal(&[remote("192.0.2.1"), remote("mon.tn")]), None);
        assert_eq!(literal(&vec![remote("192.0.2.1"); 40]).unwrap().addresses.len(), MAX_ADDRESSES);
    }

    #[test]
    fn an_interface_that_is_not_there_costs_only_its_own_remote() {
        let mut resolver =
            Resolver::new(["fe80::1%not-yet", "fe80::1%lo", "192.0.2.1"].map(remote).to_vec(), confinement());
        let expected = ["[fe80::1%1]:1417", "192.0.2.1:1417"].map(|text| text.parse().unwrap());
        assert_eq!(resolver.start(Instant::now()), Some(expected.to_vec()));
        assert!(resolver.trouble().unwrap().contains("fe80::1%not-yet: there is no interface not-yet"));
    }

    #[test]
    fn a_failing_name_is_said_once_then_every_minute_until_it_resolves() {
        capture_log();
        let mut resolver = Resolver::new(vec![remote("said-once.test")], confinement());
        let start = Instant::now();
        let mut fail = |at: u64, error: &str| {
            let failure = Failure { host: "said-once.test".to_owned(), error: error.to_owned() };
            let answer = Answer { addresses: Vec::new(), failures: vec![failure] };
            assert!(resolver.finish(answer, start + Duration::from_secs(at)).is_empty());
            logged("resolve said-once.test").len()
        };
        let counts = [fail(0, "a\nb"), fail(5, "other"), fail(59, "a"), fail(60, "a"), fail(119, "a")];
        assert_eq!(counts, [1, 1, 1, 2, 2]);
        assert!(logged("resolve said-once.test")[0].contains("a_b"));

        let found =
            Answer { addresses: vec![SocketAddr::from(([192, 0, 2, 1], 1)); 40], ..Answer::default() };
        assert_eq!(resolver.finish(found, start).len(), MAX_ADDRESSES);
        assert!(resolver.complained.is_none());
    }

    #[test]
    fn an_overdue_look_up_is_given_up() {
        let mut resolver = Resolver::new(vec![remote("overdue.test")], confinement());
        let (channel, _other) = Channel::pair().unwrap();
        let child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let now = Instant::now();
        resolver.running = Some((Running { child, channel }, now + LIMIT));
        assert_eq!(resolver.handle_readable(now), None);
        assert_eq!(resolver.handle_timeout(now), None);
        assert_eq!(resolver.handle_timeout(now + LIMIT), Some(Vec::new()));
        assert!(resolver.descriptor().is_none());
    }

    fn remote(host: &str) -> Remote {
        Remote { host: host.to_owned(), port: 1417 }
    }
}
