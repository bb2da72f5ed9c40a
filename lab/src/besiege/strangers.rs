//! Strangers on the TCP port of a link.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tund_lab::flood::Noise;
use tund_lab::{Error, Host};

/// Connections held at once: more than a link keeps.
const HELD: usize = 100;
/// Strangers' connections that a link keeps.
const KEPT: usize = 64;
/// Connections per second of those that come and go.
const MANY: u32 = 2000;
/// Bytes that a connection sends at once.
const BURST: usize = 4096;
/// Pause between two checks of the connections.
const TICK: Duration = Duration::from_millis(5);

/// Their behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Connect, send nothing, and reconnect when closed.
    Silent,
    /// The same, sending a byte per second.
    Slow,
    /// The same, sending random bytes as fast as possible.
    Rubbish,
    /// The same, replaying what the peer has sent.
    Recorded,
    /// Connect and hang up.
    Many,
}

impl Kind {
    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Slow => "slow",
            Self::Rubbish => "rubbish",
            Self::Recorded => "stream",
            Self::Many => "many",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Slow => "a byte a second",
            Self::Rubbish => "random bytes",
            Self::Recorded => "a recorded stream",
            Self::Many => "2000 a second, which hang up",
        }
    }
}

/// Runs them from `host` until `end`; returns how many connections they made.
pub fn besiege(
    host: &Host,
    target: SocketAddr,
    kind: Kind,
    recording: &[u8],
    end: &AtomicBool,
) -> Result<u64, Error> {
    host.within(|| match kind {
        Kind::Many => come_and_go(target, end),
        Kind::Silent | Kind::Slow | Kind::Rubbish | Kind::Recorded => stay(target, kind, recording, end),
    })
}

/// Listens on a host, like a program unrelated to the link.
pub fn listen(host: &Host, place: SocketAddr) -> Result<TcpListener, Error> {
    let listener = host.within(|| {
        let listener = TcpListener::bind(place)?;
        listener.set_nonblocking(true).map(|()| listener)
    })?;
    listener.map_err(|error| Error::new(format!("{place}: {error}")))
}

/// Keeps as many connections as a link, reads nothing, and closes the oldest, until `end`.
pub fn receive(listener: &TcpListener, end: &AtomicBool) {
    let mut kept = VecDeque::new();
    while !end.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, _)) => {
                kept.push_back(stream);
                if kept.len() > KEPT {
                    kept.pop_front();
                }
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

fn come_and_go(target: SocketAddr, end: &AtomicBool) -> u64 {
    let (begin, mut tries, mut made) = (Instant::now(), 0, 0);
    while !end.load(Ordering::Relaxed) {
        // A connect that blocks delays the following ones; the excess is not made up for.
        while !end.load(Ordering::Relaxed) && begin.elapsed() * MANY > Duration::from_secs(tries) {
            made += u64::from(connect(target).is_some());
            tries += 1;
        }
        std::thread::sleep(TICK);
    }
    made
}

/// A stranger that stays as long as possible.
struct Stranger {
    stream: TcpStream,
    /// How much it has sent.
    sent: usize,
    due: Instant,
}

fn stay(target: SocketAddr, kind: Kind, recording: &[u8], end: &AtomicBool) -> u64 {
    let noise = Noise(3).bytes(1 << 20);
    let (mut made, mut strangers) = (0, Vec::new());
    while !end.load(Ordering::Relaxed) {
        while strangers.len() < HELD
            && let Some(stream) = connect(target)
        {
            strangers.push(Stranger { stream, sent: 0, due: Instant::now() });
            made += 1;
        }
        strangers.retain_mut(|stranger| {
            let words = match kind {
                Kind::Silent | Kind::Many => &[][..],
                Kind::Recorded => recording,
                Kind::Slow | Kind::Rubbish => &noise,
            };
            stranger.speak(words, kind == Kind::Slow)
        });
        std::thread::sleep(TICK);
    }
    made
}

impl Stranger {
    /// Sends what the other end takes. Returns false if it closed.
    fn speak(&mut self, words: &[u8], slowly: bool) -> bool {
        let now = Instant::now();
        let most = if slowly { usize::from(self.due <= now) } else { BURST };
        let words = words.get(self.sent..).unwrap_or_default();
        match self.stream.write(&words[..most.min(words.len())]) {
            Ok(length) => {
                self.sent += length;
                if length > 0 && slowly {
                    self.due = now + Duration::from_secs(1);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        matches!(self.stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
    }
}

fn connect(target: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect_timeout(&target, Duration::from_millis(200)).ok()?;
    stream.set_nonblocking(true).ok()?;
    Some(stream)
}

/// The start of what an address sent in a TCP connection, from packets seen in any order.
pub fn reassemble(packets: &[Vec<u8>], from: Ipv4Addr) -> Vec<u8> {
    let segments = packets.iter().filter_map(|frame| tund_lab::frame::segment(frame));
    let own = segments.filter(|segment| *segment.from.ip() == from);
    let (mut stream, mut next) = (Vec::new(), None);
    for segment in own {
        if segment.begins {
            (stream, next) = (Vec::new(), Some(segment.number.wrapping_add(1)));
        } else if next == Some(segment.number) {
            stream.extend_from_slice(segment.payload);
            next = next.map(|next| next.wrapping_add(segment.payload.len() as u32));
        }
    }
    stream
}
