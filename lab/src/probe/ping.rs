//! ICMP echo.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{At, Error, Host, frame};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const IP_HEADER: usize = 20;
/// Default time between two requests.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long to wait for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Bytes after the ICMP header, as ping(8) sends them.
const PAYLOAD: usize = 56;

/// The answers to a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pings {
    /// Round trip of each answer, in the order sent.
    pub times: Vec<Duration>,
    /// How many were sent.
    pub sent: usize,
}

impl Pings {
    /// Fastest round trip; zero without an answer.
    pub fn min(&self) -> Duration {
        self.times.iter().min().copied().unwrap_or_default()
    }

    /// Slowest round trip; zero without an answer.
    pub fn max(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }

    /// Mean round trip; zero without an answer.
    pub fn mean(&self) -> Duration {
        let count = u32::try_from(self.times.len()).unwrap_or(u32::MAX).max(1);
        self.times.iter().sum::<Duration>() / count
    }
}

/// Sends `count` ICMP echo requests from `source` on `host` to `target`, one at a time, and waits up
/// to one second for each answer.
pub fn ping(host: &Host, source: Ipv4Addr, target: Ipv4Addr, count: u16) -> Result<Pings, Error> {
    Echo::new(source, target).send(host, count)
}

/// How to send echo requests.
#[derive(Debug, Clone, Copy)]
pub struct Echo {
    /// Source address.
    pub source: Ipv4Addr,
    /// Destination address.
    pub target: Ipv4Addr,
    /// Bytes after the ICMP header; the packet is 28 bytes longer.
    pub payload: usize,
    /// Time between an answer and the next request.
    pub interval: Duration,
    /// How long to wait for an answer.
    pub patience: Duration,
}

impl Echo {
    /// Like ping(8), but faster.
    pub fn new(source: Ipv4Addr, target: Ipv4Addr) -> Self {
        Self { source, target, payload: PAYLOAD, interval: INTERVAL, patience: PATIENCE }
    }

    /// Sends `count` requests, one at a time. A request that the host refuses to send, e.g. as too long for its route, counts as unanswered.
    pub fn send(&self, host: &Host, count: u16) -> Result<Pings, Error> {
        let Self { source, target, .. } = *self;
        let socket = host
            .within(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))?
            .at("ICMP socket")?;
        socket.bind(&SocketAddrV4::new(source, 0).into()).at(format!("cannot use address {source}"))?;
        let target = SocketAddrV4::new(target, 0).into();
        let mut pings = Pings { times: Vec::new(), sent: 0 };
        for sequence in 0..count {
            let begin = Instant::now();
            pings.sent += 1;
            let sent = socket.send_to(&echo_request(sequence, self.payload), &target);
            if sent.is_ok() && await_reply(&socket, sequence, begin + self.patience).at("ICMP socket")? {
                pings.times.push(begin.elapsed());
            }
            thread::sleep(self.interval);
        }
        Ok(pings)
    }
}

fn identifier() -> [u8; 2] {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    [high, low]
}

fn echo_request(sequence: u16, payload: usize) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend(identifier());
    message.extend(sequence.to_be_bytes());
    message.resize(message.len() + payload, 0x55);
    let sum = frame::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn await_reply(socket: &Socket, sequence: u16, deadline: Instant) -> io::Result<bool> {
    let mut wanted = vec![ECHO_REPLY, 0];
    wanted.extend(identifier());
    wanted.extend(sequence.to_be_bytes());
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let mut packet = [0; 2048];
        match (&*socket).read(&mut packet) {
            Ok(length) if is_reply(&packet[..length], &wanted) => return Ok(true),
            Ok(_) => {}
            Err(error) if super::is_nothing(&error) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Compares type, code, identifier and sequence; the kernel handles the checksum.
fn is_reply(packet: &[u8], wanted: &[u8]) -> bool {
    let Some(icmp) = packet.get(IP_HEADER..IP_HEADER + 8) else { return false };
    icmp[..2] == wanted[..2] && icmp[4..] == wanted[2..]
}
