//! Datagrams from invented addresses, as many as the machine can send, and what they cost.

use std::io::{ErrorKind, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use socket2::{Domain, Protocol, Socket, Type};

use crate::frame::{Datagram, ETHERNET};
use crate::{At, Error, Host};

/// Distinct packets of a flood: more than any cache of recent ones holds.
const PACKETS: usize = 4096;
/// Longest datagram of random bytes: the maximum of a path with MTU 1500.
const LONGEST: usize = 1472;
/// Every protocol, in packet(7)'s form.
const ETH_P_ALL: i32 = 0x0003_u16.to_be() as i32;

/// Reads the packets on a host's interfaces.
pub struct Sniffer(Socket);

impl Sniffer {
    /// Captures packets from now on, as many as the socket's buffer holds.
    pub fn new(host: &Host) -> Result<Self, Error> {
        let open = || Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(ETH_P_ALL)));
        let socket = host.within(open)?.at("packet socket")?;
        socket.set_nonblocking(true).at("packet socket")?;
        Ok(Self(socket))
    }

    /// Payloads of datagrams to this address since the last call.
    pub fn payloads_to(&self, target: SocketAddrV4) -> Result<Vec<Vec<u8>>, Error> {
        self.payloads(|seen| seen.to == target)
    }

    /// Payloads of datagrams from this address since the last call.
    pub fn payloads_from(&self, source: Ipv4Addr) -> Result<Vec<Vec<u8>>, Error> {
        self.payloads(|seen| *seen.from.ip() == source)
    }

    fn payloads(&self, wanted: impl Fn(&Datagram) -> bool) -> Result<Vec<Vec<u8>>, Error> {
        let seen = self.frames()?.into_iter().filter_map(|frame| Datagram::parse(&frame));
        Ok(seen.filter(|seen| wanted(seen)).map(|seen| seen.payload).collect())
    }

    /// All frames since the last call.
    pub fn frames(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut frames = Vec::new();
        let mut packet = vec![0; 65_536];
        loop {
            match (&self.0).read(&mut packet) {
                Ok(length) => frames.push(packet[..length].to_vec()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(frames),
                Err(error) => return Err(error).at("packet socket"),
            }
        }
    }
}

/// The content of a flood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Random bytes of all lengths.
    Random,
    /// Recorded datagrams, unchanged.
    Recorded,
    /// The first datagrams of each recording, which start a handshake or its proof.
    FirstWords,
    /// The same with a wrong tag: all that is cheap to check is right.
    Forged,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Random, Self::Recorded, Self::FirstWords, Self::Forged];

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Random => "random bytes",
            Self::Recorded => "recorded datagrams",
            Self::FirstWords => "recorded first words",
            Self::Forged => "first words with a wrong tag",
        }
    }

    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Recorded => "recorded",
            Self::FirstWords => "first-words",
            Self::Forged => "forged",
        }
    }

    /// Makes payloads of this kind from recordings that each begin with a first word.
    pub fn payloads(self, recordings: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
        let first_words = recordings.iter().filter_map(|recording| recording.first().cloned());
        match self {
            Self::Random => {
                let mut noise = Noise(1);
                (0..PACKETS).map(|number| noise.bytes(number * 7 % (LONGEST + 1))).collect()
            }
            Self::Recorded => recordings.iter().flatten().cloned().collect(),
            Self::FirstWords => first_words.collect(),
            Self::Forged => {
                let forge = |mut payload: Vec<u8>| {
                    let middle = payload.len() / 2;
                    payload[middle] ^= 1;
                    payload
                };
                first_words.map(forge).collect()
            }
        }
    }
}

/// A deterministic generator; a stranger's bytes need not be truly random.
pub struct Noise(pub u64);

impl Noise {
    /// The next bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let byte = |_| {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            self.0.to_be_bytes()[0]
        };
        (0..length).map(byte).collect()
    }
}

/// A flood that lasts until dropped.
pub struct Flood {
    end: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Sends the payloads in turn from `host`, each packet from another address of `net`/16, as fast as one thread at this nice value
    /// (setpriority(2)) can.
    pub fn start(
        host: &Host,
        net: Ipv4Addr,
        target: SocketAddrV4,
        payloads: &[Vec<u8>],
        nice: i32,
    ) -> Result<Self, Error> {
        let open = || Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)));
        let socket = host.within(open)?.at("raw socket")?;
        let mut noise = Noise(2);
        let packet = |payload: &Vec<u8>| {
            let [low, high, port_low, port_high] = *noise.bytes(4) else { return Vec::new() };
            let [a, b, ..] = net.octets();
            let port = u16::from_be_bytes([port_high | 0x80, port_low]);
            let from = SocketAddrV4::new(Ipv4Addr::new(a, b, high, low), port);
            let datagram = Datagram { macs: ([0; 6], [0; 6]), from, to: target, payload: payload.clone() };
            datagram.to_frame().split_off(ETHERNET)
        };
        let packets: Vec<Vec<u8>> = payloads.iter().cycle().take(PACKETS).map(packet).collect();
        let (end, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (end_too, sent_too) = (end.clone(), sent.clone());
        let thread = thread::spawn(move || {
            // Linux sets it per thread; being nicer is never refused.
            let _ = rustix::process::setpriority_process(None, nice);
            for hundred in packets.chunks(100).cycle() {
                if end_too.load(Ordering::Relaxed) {
                    return;
                }
                // What the device queue rejects is not part of the flood.
                let taken = hundred.iter().filter(|packet| socket.send_to(packet, &target.into()).is_ok());
                sent_too.fetch_add(taken.count() as u64, Ordering::Relaxed);
            }
        });
        Ok(Self { end, sent, thread: Some(thread) })
    }

    /// The number of packets sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Packets with our own headers (raw(7)).
const IPPROTO_RAW: i32 = 255;

impl Drop for Flood {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
