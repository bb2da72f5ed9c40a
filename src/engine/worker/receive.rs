//! Receiving: the peer's datagrams, and everyone else's.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

use super::{ARRIVALS, Source, TURN, Worker};
use crate::core::codel::TARGET;
use crate::core::lane::{Arrived, Notice};
use crate::core::stats::DropReason;
use crate::engine::strays::Strays;
use crate::packet::traffic_class;
use crate::sys::clock;
use crate::transport::{Datagrams, Received};

/// Length of the front's turn. Its last call may overrun a little.
pub(super) const FRONT_TURN: Duration = Duration::from_micros(100);
/// While the peer is heard elsewhere, the front rests this many times the CPU time of its turn: strangers get a twentieth of a processor. Otherwise
/// the peer may be among the callers, and the front is served normally.
const REST: u32 = 19;
/// How long the peer counts as heard.
const HEARD: Duration = Duration::from_millis(100);

/// The state at the start of a turn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    pub(super) began: Instant,
    /// CPU time that this thread had used.
    pub(super) spent: Duration,
    /// The peer's datagrams opened so far.
    opened: u64,
}

/// The times when the front is not polled.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Option<Instant>,
    /// The peer's datagrams opened by the end of the last turn.
    opened: u64,
    /// When datagrams opened elsewhere were last noticed.
    heard: Option<Instant>,
}

impl Rest {
    /// Records a turn of the front and how much CPU time it took.
    pub(super) fn handle_turn(&mut self, turn: Turn, ended: Instant, took: Duration, opened: u64) {
        if turn.opened != self.opened {
            self.heard = Some(turn.began);
        }
        self.opened = opened;
        let is_heard = self.heard.is_some_and(|heard| turn.began < heard + HEARD);
        self.until = Some(ended + if is_heard { took * REST } else { Duration::ZERO });
    }

    /// When the rest ends.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    /// Whether the rest has ended; true once.
    pub(super) fn take_end(&mut self, now: Instant) -> bool {
        self.until.take_if(|until| *until <= now).is_some()
    }
}

impl<D: Datagrams> Worker<D> {
    /// Takes the peer's socket, after draining the former one.
    pub(super) fn take_connected(
        &mut self,
        now: Instant,
        socket: Option<D>,
        own_port: bool,
    ) -> io::Result<()> {
        self.take_datagrams(now);
        if let Some(socket) = &socket {
            self.watch(socket, Source::Connected)?;
        }
        (self.connected, self.has_own_port) = (socket, own_port);
        self.rest = Rest::default();
        self.listen_to_front()
    }

    /// Receives a turn's worth from the peer, or from everyone while it has no own socket.
    pub(super) fn take_datagrams(&mut self, now: Instant) {
        if self.connected.is_none() && !self.has_front {
            return;
        }
        let mut taken = 0;
        let waiting = self.connected.as_ref().unwrap_or(&self.port.socket).waiting();
        let mut should_drop = self.codel.should_drop(now, waiting > TARGET);
        for _ in 0..ARRIVALS {
            let socket = self.connected.as_ref().unwrap_or(&self.port.socket);
            match socket.receive(&mut self.arrival) {
                Ok(mut received) => {
                    taken += received.length;
                    received.from.own_port = self.has_own_port;
                    self.handle_received(now, received, &mut should_drop);
                }
                Err(error) if self.may_be_followed(&error) => {
                    if let Some(peer) = self.connected.as_ref().and_then(Datagrams::peer) {
                        self.handle_icmp_error(now, peer, &error);
                    }
                }
                Err(_) => break,
            }
            if taken >= TURN {
                break;
            }
        }
        self.port.flush_frames();
    }

    /// Takes a turn's worth of what other lanes' workers received for this one.
    pub(super) fn take_strays(&mut self, now: Instant) {
        let Some(queue) = &self.strays else { return };
        let mut taken = 0;
        while let Ok(Strays { from, ecn, stride, mut bytes }) = queue.try_recv() {
            taken += bytes.len();
            self.is_active = true;
            let arrived = Arrived { bytes: &mut bytes, stride, ecn, from };
            self.lane.handle_datagrams(now, arrived, &mut self.port);
            if taken >= TURN {
                // There may be more: continue after the other direction.
                let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
                break;
            }
        }
    }

    /// Serves the front for a turn: callers, and former addresses of the peer among them.
    pub(super) fn serve_front(&mut self) {
        let turn = self.begin_turn();
        let mut now = turn.began;
        self.take_icmp_errors(now, false);
        while now < turn.began + FRONT_TURN {
            match self.port.socket.receive(&mut self.arrival) {
                Ok(received) => self.handle_received(now, received, &mut false),
                Err(error) if self.may_be_followed(&error) => {}
                Err(_) => break,
            }
            now = clock::now().instant;
        }
        self.port.flush_frames();
        self.rest.handle_turn(turn, now, clock::spent().saturating_sub(turn.spent), self.opened());
    }

    /// Whether datagrams may still wait after a failed receive. A pending ICMP error says nothing about them; stopping at it would let a forger
    /// keep them waiting.
    fn may_be_followed(&mut self, error: &io::Error) -> bool {
        if error.kind() == io::ErrorKind::InvalidData {
            self.port.drops.drop(DropReason::Malformed);
        }
        error.kind() != io::ErrorKind::WouldBlock
    }

    pub(super) fn begin_turn(&self) -> Turn {
        Turn { began: clock::now().instant, spent: clock::spent(), opened: self.opened() }
    }

    /// The peer's datagrams opened so far.
    pub(super) fn opened(&self) -> u64 {
        self.lane.stats().datagrams_in
    }

    /// Polls the front again, if it has rested.
    pub(super) fn end_rest(&mut self, now: Instant) -> io::Result<()> {
        if self.rest.take_end(now) { self.listen_to_front() } else { Ok(()) }
    }

    /// Polls the front; once if the peer has its own socket, for the rest after a turn.
    fn listen_to_front(&mut self) -> io::Result<()> {
        if !self.has_front {
            return Ok(());
        }
        let once = if self.connected.is_some() { EventFlags::ONESHOT } else { EventFlags::empty() };
        let data = EventData::new_u64(Source::Front as u64);
        Ok(epoll::modify(&self.epoll, &self.port.socket, data, EventFlags::IN | once)?)
    }

    /// Opens the datagrams in `arrival`.
    fn handle_received(&mut self, now: Instant, received: Received, should_drop: &mut bool) {
        let Received { length, stride, mut ecn, from } = received;
        let mut bytes = &mut self.arrival[..length];
        // Joined datagrams are bulk traffic.
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

    /// Reads ICMP errors of earlier sends; at most one of each kind is reported per `COMPLAINTS`.
    pub(super) fn take_icmp_errors(&mut self, now: Instant, of_connected: bool) {
        for _ in 0..ARRIVALS {
            let socket = self.connected.as_ref().filter(|_| of_connected).unwrap_or(&self.port.socket);
            match socket.receive_error() {
                Ok((to, error)) => self.handle_icmp_error(now, to, &error),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => return,
            }
        }
    }

    fn handle_icmp_error(&mut self, now: Instant, to: SocketAddr, error: &io::Error) {
        match Errno::from_io_error(error) {
            Some(Errno::MSGSIZE) => self.port.report_send_error(now, Notice::TooLong),
            Some(_) => self.port.report_send_error(now, Notice::Refused { to }),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    /// The share of 100 ms that the front is served, with turns of so many µs; `opened` says what is opened elsewhere before each.
    fn share(turn: u32, mut opened: impl FnMut() -> u64) -> f64 {
        let start = clock::now().instant;
        let (mut rest, mut now, mut served) = (Rest::default(), start, Duration::ZERO);
        let turn_at = |began, opened| Turn { began, spent: Duration::ZERO, opened };
        // An arbitrary count from before.
        let mut sum = 7;
        rest.handle_turn(turn_at(now - HEARD, sum), now, Duration::ZERO, sum);
        assert!(rest.take_end(now));
        while now < start + HEARD {
            assert!(rest.poll_timeout().is_none());
            sum += opened();
            // Datagrams opened at the front do not count as heard elsewhere. Half of the time something else has the CPU.
            rest.handle_turn(turn_at(now, sum), now + 2 * turn * MICRO, turn * MICRO, sum + 1);
            sum += 1;
            served += turn * MICRO;
            now = rest.poll_timeout().unwrap();
            assert!(!rest.take_end(now - MICRO) && rest.take_end(now) && !rest.take_end(now), "it ends once");
        }
        served.as_secs_f64() / (now - start).as_secs_f64()
    }

    #[test]
    fn the_front_gets_a_twentieth_of_the_time_while_the_peer_is_heard_elsewhere_and_else_all() {
        for turn in [2, 20, 150] {
            for (opened, expected) in [(1, 1.0 / 21.0), (0, 1.0 / 2.0)] {
                let share = share(turn, || opened);
                assert!((share - expected).abs() < 0.001, "{share} with turns of {turn} µs");
            }
        }
    }

    #[test]
    fn a_peer_that_was_heard_a_moment_ago_is_still_there() {
        let mut last = 1;
        assert!((share(100, || std::mem::take(&mut last)) - 1.0 / 21.0).abs() < 0.001);
    }
}
