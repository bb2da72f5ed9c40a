//! What comes to the port: the peer's datagrams, and everybody else's.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::{ARRIVALS, Source, TURN, Worker};
use crate::core::codel::TARGET;
use crate::core::lane::{Arrived, Notice};
use crate::core::stats::DropReason;
use crate::packet::traffic_class;
use crate::sys::clock;
use crate::transport::{Datagrams, Received};

/// A turn of the front. Its last call may take a little longer.
pub(super) const FRONT_TURN: Duration = Duration::from_micros(100);
/// It rests so many times as long afterwards: a flood costs a fifth of a processor at most, whatever else the machine has to do.
const REST: u32 = 4;

/// When the front is not listened to.
#[derive(Debug, Default)]
pub(super) struct Rest(Option<Instant>);

impl Rest {
    /// The front had a turn.
    pub(super) fn handle_turn(&mut self, began: Instant, ended: Instant) {
        self.0 = Some(ended + ended.saturating_duration_since(began) * REST);
    }

    /// When it has rested.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.0
    }

    /// Whether it has rested now: said once.
    pub(super) fn take_end(&mut self, now: Instant) -> bool {
        self.0.take_if(|until| *until <= now).is_some()
    }
}

impl<D: Datagrams> Worker<D> {
    /// What waits in the former one is not lost.
    pub(super) fn take_connected(&mut self, now: Instant, socket: Option<D>) -> io::Result<()> {
        if self.connected.is_some() {
            self.take_datagrams(now);
        }
        if let Some(socket) = &socket {
            self.watch(socket, Source::Connected)?;
        }
        self.connected = socket;
        self.rest = Rest::default();
        self.listen_to_front()
    }

    /// Takes a turn's worth of what comes from the peer, or from everybody while it has no socket of its own.
    pub(super) fn take_datagrams(&mut self, now: Instant) {
        let mut taken = 0;
        let waiting = self.connected.as_ref().unwrap_or(&self.port.socket).waiting();
        let mut should_drop = self.codel.should_drop(now, waiting > TARGET);
        for _ in 0..ARRIVALS {
            let socket = self.connected.as_ref().unwrap_or(&self.port.socket);
            match socket.receive(&mut self.arrival) {
                Ok(received) => {
                    taken += received.length;
                    self.handle_received(now, received, &mut should_drop);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.port.drops.drop(DropReason::Malformed);
                }
                // Nothing there, or an ICMP error of an earlier send: the next event tells.
                Err(_) => break,
            }
            if taken >= TURN {
                break;
            }
        }
        self.port.flush_frames();
    }

    /// Serves whoever else sends to the port, callers and former addresses of the peer among them, for a turn.
    pub(super) fn serve_front(&mut self) {
        let began = clock::now().instant;
        let mut now = began;
        while now < began + FRONT_TURN {
            match self.port.socket.receive(&mut self.arrival) {
                Ok(received) => self.handle_received(now, received, &mut false),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.port.drops.drop(DropReason::Malformed);
                }
                Err(_) => break,
            }
            now = clock::now().instant;
        }
        self.port.flush_frames();
        self.rest.handle_turn(began, now);
    }

    /// Listens to the front again, if it has rested.
    pub(super) fn end_rest(&mut self, now: Instant) -> io::Result<()> {
        if self.rest.take_end(now) { self.listen_to_front() } else { Ok(()) }
    }

    /// Once, beside a peer that has a socket of its own: it rests after each turn.
    fn listen_to_front(&mut self) -> io::Result<()> {
        let once = if self.connected.is_some() { EventFlags::ONESHOT } else { EventFlags::empty() };
        let data = EventData::new_u64(Source::Front as u64);
        Ok(epoll::modify(&self.epoll, &self.port.socket, data, EventFlags::IN | once)?)
    }

    /// Opens what lies in `arrival`.
    fn handle_received(&mut self, now: Instant, received: Received, should_drop: &mut bool) {
        let Received { length, stride, mut ecn, from } = received;
        let mut bytes = &mut self.arrival[..length];
        // One of many of a flow: bulk.
        if *should_drop && length > stride {
            *should_drop = false;
            if traffic_class::is_capable(ecn) {
                ecn = traffic_class::CE;
            } else {
                bytes = &mut bytes[stride..];
                self.port.drops.drop(DropReason::QueueFull);
            }
        }
        self.lane.handle_datagrams(now, Arrived { bytes, stride, ecn, from }, &mut self.port);
    }

    /// What ICMP says of datagrams sent before: of each kind at most one is told in [`COMPLAINTS`].
    pub(super) fn take_icmp_errors(&mut self, now: Instant, of_connected: bool) {
        for _ in 0..ARRIVALS {
            let socket = self.connected.as_ref().filter(|_| of_connected).unwrap_or(&self.port.socket);
            match socket.receive_error() {
                Ok((to, error)) => {
                    let notice = match Errno::from_io_error(&error) {
                        Some(Errno::MSGSIZE) => Notice::TooLong,
                        _ => Notice::Refused { to },
                    };
                    self.port.report_send_error(now, notice);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn the_front_gets_a_fifth_of_the_time_and_no_more_however_long_its_turns_are() {
        let start = clock::now().instant;
        for turn in [2, 20, 150] {
            let (mut rest, mut now, mut served) = (Rest::default(), start, Duration::ZERO);
            while now < start + Duration::from_millis(100) {
                assert!(rest.poll_timeout().is_none());
                rest.handle_turn(now, now + turn * MICRO);
                (served, now) = (served + turn * MICRO, now + turn * MICRO);
                assert!(!rest.take_end(now), "it rests");
                now = rest.poll_timeout().unwrap();
                assert!(rest.take_end(now) && !rest.take_end(now), "it ends once");
            }
            let share = served.as_secs_f64() / (now - start).as_secs_f64();
            assert!((share - 0.2).abs() < 0.001, "{share} with turns of {turn} µs");
        }
    }
}
