//! Ping and throughput, measured by this process from inside the hosts.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::{At, Error, Host, frame};

const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;
const IP_HEADER: usize = 20;

/// Answers of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pings {
    /// Round trip of every answer, in the order sent.
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
    let socket =
        host.within(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))?.at("ICMP socket")?;
    socket.bind(&SocketAddrV4::new(source, 0).into()).at(format!("cannot use address {source}"))?;
    let target = SocketAddrV4::new(target, 0).into();
    let mut pings = Pings { times: Vec::new(), sent: 0 };
    for sequence in 0..count {
        let begin = Instant::now();
        pings.sent += 1;
        let sent = socket.send_to(&echo_request(sequence), &target);
        if sent.is_ok() && await_reply(&socket, sequence, begin).at("ICMP socket")? {
            pings.times.push(begin.elapsed());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(pings)
}

fn identifier() -> [u8; 2] {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    [high, low]
}

fn echo_request(sequence: u16) -> Vec<u8> {
    let mut message = vec![ECHO_REQUEST, 0, 0, 0];
    message.extend(identifier());
    message.extend(sequence.to_be_bytes());
    message.extend([0x55; 56]);
    let sum = frame::checksum(&message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    message
}

fn await_reply(socket: &Socket, sequence: u16, begin: Instant) -> io::Result<bool> {
    let mut wanted = vec![ECHO_REPLY, 0];
    wanted.extend(identifier());
    wanted.extend(sequence.to_be_bytes());
    loop {
        let left = Duration::from_secs(1).saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        let mut packet = [0; 256];
        match (&*socket).read(&mut packet) {
            Ok(length) if is_reply(&packet[..length], &wanted) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Type, code, identifier and sequence; the checksum between them is the kernel's affair.
fn is_reply(packet: &[u8], wanted: &[u8]) -> bool {
    let Some(icmp) = packet.get(IP_HEADER..IP_HEADER + 8) else { return false };
    icmp[..2] == wanted[..2] && icmp[4..] == wanted[2..]
}

/// Carries TCP from `from` to `target` on `to` for `time` and returns bits per second as received.
pub fn throughput(
    from: &Host,
    to: &Host,
    source: Ipv4Addr,
    target: Ipv4Addr,
    time: Duration,
) -> Result<f64, Error> {
    let listener = to.within(|| TcpListener::bind((target, 0)))?.at("TCP listener")?;
    let address = listener.local_addr().at("TCP listener")?;
    let connect = || -> io::Result<TcpStream> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        socket.bind(&SocketAddrV4::new(source, 0).into())?;
        socket.connect_timeout(&address.into(), Duration::from_secs(5))?;
        Ok(socket.into())
    };
    let stream = from.within(connect)?.at(format!("TCP to {address}"))?;
    let (sink, _) = listener.accept().at("TCP accept")?;
    for end in [&stream, &sink] {
        end.set_read_timeout(Some(Duration::from_secs(10))).at("TCP")?;
        end.set_write_timeout(Some(Duration::from_secs(10))).at("TCP")?;
    }
    thread::scope(|scope| {
        let begin = Instant::now();
        let source = scope.spawn(move || fill(stream, begin + time));
        let bytes = drain(sink).at("TCP transfer")?;
        let elapsed = begin.elapsed().as_secs_f64();
        source.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).at("TCP transfer")?;
        Ok(bytes as f64 * 8.0 / elapsed)
    })
}

fn fill(mut stream: TcpStream, end: Instant) -> io::Result<()> {
    let block = vec![0x5a; 128 * 1024];
    while Instant::now() < end {
        stream.write_all(&block)?;
    }
    Ok(())
}

fn drain(mut stream: TcpStream) -> io::Result<u64> {
    let mut block = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match stream.read(&mut block)? {
            0 => return Ok(bytes),
            length => bytes += length as u64,
        }
    }
}
