//! Datagrams like ordinary programs': one system call each, no segmentation offload.

use std::io;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use socket2::{Domain, Protocol, Socket, Type};

use super::End;
use crate::{At, Error};

/// Receive buffer in bytes: losses must occur on the path, not here.
const BUFFER: usize = 8 << 20;
/// How long the sender sleeps between bursts.
const TICK: Duration = Duration::from_micros(250);
/// How long the receiver waits for late datagrams after the sender is done.
const LATE: Duration = Duration::from_millis(100);
/// Share of datagrams that may be lost.
const LOSS: f64 = 0.01;
/// Factors of the search until it knows one rate that passes and one that fails.
const UP: f64 = 1.4;
const DOWN: f64 = 0.7;
/// Ratio at which both are close.
const NEAR: f64 = 1.06;
/// A sender slower than this share of the requested rate is at its limit.
const REACHED: f64 = 0.95;
/// Maximum number of rates tried.
const TRIALS: usize = 14;

/// A stream of datagrams from one end to another.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    /// Sender and receiver.
    pub ends: [End<'a>; 2],
    /// UDP payload in bytes.
    pub size: usize,
    /// How long it lasts.
    pub time: Duration,
}

/// The result of a stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams received.
    pub received: u64,
    /// Seconds of sending.
    pub seconds: f64,
}

impl Counted {
    /// Datagrams received per second of sending.
    pub fn rate(&self) -> f64 {
        self.received as f64 / self.seconds
    }

    /// Share of lost datagrams.
    pub fn loss(&self) -> f64 {
        1.0 - self.received as f64 / self.sent.max(1) as f64
    }
}

impl Stream<'_> {
    /// Sends `rate` datagrams per second, or as many as possible without a rate.
    pub fn run(&self, rate: Option<f64>) -> Result<Counted, Error> {
        let [from, to] = self.ends;
        let sink = to.host.within(|| receiver(SocketAddrV4::new(to.address, 0)))?.at("UDP receiver")?;
        let target = sink.local_addr().at("UDP receiver")?;
        let open = || -> io::Result<Socket> {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
            socket.bind(&SocketAddrV4::new(from.address, 0).into())?;
            socket.connect(&target)?;
            Ok(socket)
        };
        let source = from.host.within(open)?.at("UDP sender")?;
        let done = AtomicBool::new(false);
        let (sent, received) = thread::scope(|scope| {
            let counter = scope.spawn(|| count(&sink, &done));
            let sent = self.send(&source, rate);
            done.store(true, Ordering::Relaxed);
            (sent, counter.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
        });
        let (sent, seconds) = sent.at("UDP sender")?;
        Ok(Counted { sent, received: received.at("UDP receiver")?, seconds })
    }

    fn send(&self, socket: &Socket, rate: Option<f64>) -> io::Result<(u64, f64)> {
        let payload = vec![0x5a; self.size];
        let (begin, mut sent) = (Instant::now(), 0);
        loop {
            let elapsed = begin.elapsed();
            if elapsed >= self.time {
                return Ok((sent, elapsed.as_secs_f64()));
            }
            let due = rate.map_or(sent + 64, |rate| (rate * elapsed.as_secs_f64()) as u64);
            while sent < due {
                match socket.send(&payload) {
                    Ok(_) => sent += 1,
                    // A queue on the path is full: that datagram is lost.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => sent += 1,
                    Err(error) if error.raw_os_error() == Some(ENOBUFS) => sent += 1,
                    Err(error) => return Err(error),
                }
                if sent % 64 == 0 && begin.elapsed() >= self.time {
                    break;
                }
            }
            if rate.is_some() {
                thread::sleep(TICK);
            }
        }
    }
}

const ENOBUFS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

fn receiver(address: SocketAddrV4) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    // Without the privilege, as much as the machine allows.
    if set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
        socket.set_recv_buffer_size(BUFFER)?;
    }
    socket.bind(&address.into())?;
    socket.set_read_timeout(Some(LATE))?;
    Ok(socket)
}

/// Counts datagrams until the sender is done and none has arrived for a while.
fn count(mut socket: &Socket, done: &AtomicBool) -> io::Result<u64> {
    let mut buffer = [0; 2048];
    let mut received = 0;
    loop {
        match io::Read::read(&mut socket, &mut buffer) {
            Ok(_) => received += 1,
            Err(error) if super::is_nothing(&error) => {
                if done.load(Ordering::Relaxed) {
                    return Ok(received);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Finds the most datagrams per second that arrive with less than 1 % lost: from a guess (or from what a flood delivers) up while rates pass, down
/// while they fail, then between. A rate fails if it failed twice, since a short pause of the machine costs more than 1 %. Likewise a sender is at
/// its limit once too slow twice, since the scheduler may have given it half a processor. Zero if no rate passed.
pub fn sustained(stream: Stream<'_>, guess: Option<f64>) -> Result<f64, Error> {
    search(guess, |rate| stream.run(rate))
}

fn search<E>(guess: Option<f64>, mut trial: impl FnMut(Option<f64>) -> Result<Counted, E>) -> Result<f64, E> {
    let mut rate = match guess {
        Some(guess) => guess,
        None => {
            let flood = trial(None)?;
            if flood.loss() < LOSS {
                return Ok(flood.rate());
            }
            flood.rate()
        }
    };
    let (mut best, mut worst) = (0.0_f64, f64::INFINITY);
    for _ in 0..TRIALS {
        let is_carried = |counted: &Counted| counted.loss() < LOSS;
        let is_reached = |counted: &Counted| counted.rate() >= REACHED * rate;
        let mut tried = [trial(Some(rate))?; 2];
        if !is_carried(&tried[0]) || !is_reached(&tried[0]) {
            tried[1] = trial(Some(rate))?;
        }
        best = tried.iter().filter(|tried| is_carried(tried)).map(Counted::rate).fold(best, f64::max);
        if tried.iter().all(|tried| is_carried(tried) && !is_reached(tried)) {
            break;
        }
        if !tried.iter().any(|tried| is_carried(tried) && is_reached(tried)) {
            worst = rate;
        }
        if worst < best * NEAR {
            break;
        }
        rate = match (best > 0.0, worst.is_finite()) {
            (true, true) => (best * worst).sqrt(),
            (true, false) => rate * UP,
            (false, true | false) => rate * DOWN,
        };
    }
    Ok(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path that carries `capacity` per second and loses the rest; the sender reaches `most`.
    fn path(capacity: f64, most: f64) -> impl FnMut(Option<f64>) -> Result<Counted, ()> {
        move |rate| {
            let sent = rate.unwrap_or(most).min(most);
            Ok(Counted { sent: sent as u64, received: sent.min(capacity) as u64, seconds: 1.0 })
        }
    }

    #[test]
    fn the_search_ends_near_what_the_path_carries() {
        for guess in [None, Some(20_000.0), Some(95_000.0), Some(300_000.0)] {
            let found = search(guess, path(100_000.0, 500_000.0)).unwrap();
            assert!((93_000.0..=101_000.0).contains(&found), "from {guess:?}: {found}");
        }
    }

    #[test]
    fn a_sender_slower_than_the_path_ends_the_search() {
        assert_eq!(search(None, path(100_000.0, 50_000.0)).unwrap(), 50_000.0);
        let found = search(Some(45_000.0), path(100_000.0, 50_000.0)).unwrap();
        assert!((45_000.0..=50_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_moment_of_loss_does_not_end_the_search() {
        let (mut good, mut number) = (path(100_000.0, 500_000.0), 0);
        let hiccups = |rate: Option<f64>| {
            number += 1;
            let counted = good(rate)?;
            let lost = if number % 3 == 0 { counted.received / 20 } else { 0 };
            Ok::<_, ()>(Counted { received: counted.received - lost, ..counted })
        };
        let found = search(Some(40_000.0), hiccups).unwrap();
        assert!((93_000.0..=101_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_moment_with_half_a_processor_does_not_end_the_search() {
        let (mut good, mut slow, mut number) = (path(100_000.0, 500_000.0), path(100_000.0, 30_000.0), 0);
        let hiccups = |rate: Option<f64>| {
            number += 1;
            if number % 3 == 1 { slow(rate) } else { good(rate) }
        };
        let found = search(Some(90_000.0), hiccups).unwrap();
        assert!((93_000.0..=101_000.0).contains(&found), "{found}");
    }

    #[test]
    fn a_dead_path_sustains_nothing() {
        let dead = |rate: Option<f64>| {
            Ok::<_, ()>(Counted { sent: rate.unwrap_or(1e6) as u64, received: 0, seconds: 1.0 })
        };
        assert_eq!(search(None, dead).unwrap(), 0.0);
    }
}
