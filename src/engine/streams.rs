//! The streams of a lane: the peer's, and those of strangers, who connected and have proven nothing yet.
//!
//! A stranger takes one of few places, for a time it cannot predict, and gets nothing in return: what does not verify is read and dropped. When
//! places run short, the host that holds most loses one first.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{io, mem};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::time::Timespec;

use crate::core::lane::Transmit;
use crate::core::path::Path;
use crate::crypto::Random;
use crate::crypto::keys::LinkKeys;
use crate::sys::random::Os;
use crate::transport::stream::{Listener, Stream};

/// Most strangers' connections. Each takes 16 KiB.
const STRANGERS: usize = 64;
/// Most streams of the peer: the one in use, former ones, and those it may move to.
const KNOWN: usize = 8;
/// Bytes of a stranger that are examined; later ones are only read.
pub const LOOKED_AT: usize = 64 * 1024;
/// Shortest limit of a stranger's connection; the longest is twice that.
const STRANGER_TIME: Duration = Duration::from_secs(20);
/// How long a stream of the peer that is not its path may stay idle.
const IDLE: Duration = Duration::from_secs(30);
/// How long data waits for a connection.
const CONNECTING: Duration = Duration::from_secs(12);
/// Most connections awaited at once.
const WANTED: usize = 4;
/// The listening socket's number in the epoll set.
const LISTENER: u64 = u64::MAX;

/// A connection and its state.
pub struct Slot {
    /// The connection.
    pub stream: Stream,
    /// It is the peer's: this end opened it, or the peer has proven that it did.
    pub known: bool,
    /// What arrives is read and dropped.
    pub deaf: bool,
    /// Bytes read.
    pub taken: usize,
    /// When it expires; for the peer's, when it was last used.
    at: Instant,
}

/// A connection being made, and what it sends first.
struct Wanted {
    path: Path,
    first: Vec<u8>,
    due: Instant,
}

/// The result of sending datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// They are sent or queued.
    Yes,
    /// There is no room for them.
    Full,
    /// They wait for a connection, which must now be made.
    Connect,
}

/// A lane's streams.
pub struct Streams {
    /// `None`: this link's protocol does not run over streams.
    keys: Option<Arc<LinkKeys>>,
    listener: Option<Listener>,
    /// Kept short: the worker scans it at every turn.
    slots: Vec<Option<Slot>>,
    wanted: Vec<Wanted>,
    /// One for the peer's streams; one for strangers and the listener.
    pub epolls: [OwnedFd; 2],
}

impl Streams {
    /// No streams yet.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub fn new(keys: Option<Arc<LinkKeys>>) -> io::Result<Self> {
        let epoll = || epoll::create(epoll::CreateFlags::CLOEXEC);
        let slots = Vec::with_capacity(STRANGERS + KNOWN);
        Ok(Self { keys, listener: None, slots, wanted: Vec::new(), epolls: [epoll()?, epoll()?] })
    }

    fn epoll(&self, known: bool) -> BorrowedFd<'_> {
        self.epolls[usize::from(!known)].as_fd()
    }

    /// Accepts on `listener` from now on.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn listen(&mut self, listener: OwnedFd) -> io::Result<()> {
        let listener = Listener::from(listener);
        epoll::add(self.epoll(false), &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// The ready streams, the peer's or the strangers', as numbers for [`Self::take`], and whether there is one to accept.
    pub fn ready(&self, known: bool) -> (impl Iterator<Item = usize> + use<>, bool) {
        let mut events = Vec::with_capacity(STRANGERS + KNOWN);
        let room = rustix::buffer::spare_capacity(&mut events);
        // A failure is retried at the next turn.
        let _ = epoll::wait(self.epoll(known), room, Some(&Timespec::default()));
        let accepts = events.iter().any(|event| event.data.u64() == LISTENER);
        let slots = events.into_iter().filter_map(|event| usize::try_from(event.data.u64()).ok());
        (slots.filter(|index| *index < STRANGERS + KNOWN), accepts)
    }

    /// Accepts a waiting connection; false if there was none.
    pub fn accept(&mut self, now: Instant) -> bool {
        let Some(listener) = &self.listener else { return false };
        match listener.accept() {
            Ok((fd, path)) => {
                let [byte] = Os.bytes();
                let time = STRANGER_TIME.mul_f32(1.0 + f32::from(byte) / 255.0);
                self.add(fd, path, false, now + time);
                true
            }
            // Already closed, or out of descriptors: the next turn retries.
            Err(error) => error.kind() == io::ErrorKind::ConnectionAborted,
        }
    }

    /// Takes a requested connection, and sends what waited for it; if it failed, the next datagram asks again.
    pub fn connected(&mut self, now: Instant, path: Path, fd: Option<OwnedFd>) {
        let wanted = self.wanted.iter().position(|wanted| wanted.path == path);
        let wanted = wanted.map(|at| self.wanted.remove(at));
        let Some(fd) = fd else { return };
        if let Some(index) = self.find(path) {
            self.slots[index] = None;
        }
        let slot = self.add(fd, path, true, now);
        if let (Some(index), Some(wanted)) = (slot, wanted) {
            self.send_at(now, index, Transmit::one(&wanted.first, 0, path));
        }
    }

    fn add(&mut self, fd: OwnedFd, path: Path, known: bool, at: Instant) -> Option<usize> {
        let keys = self.keys.clone()?;
        self.make_room(known);
        let index = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let data = EventData::new_u64(index as u64);
        epoll::add(self.epoll(known), &fd, data, EventFlags::IN).ok()?;
        let mut stream = Stream::new(fd, path, keys, Os.bytes());
        if known {
            stream.widen();
        }
        self.slots.resize_with(self.slots.len().max(index + 1), || None);
        self.slots[index] = Some(Slot { stream, known, deaf: false, taken: 0, at });
        Some(index)
    }

    /// Closes the peer's least recently used stream, or the oldest stranger of the host that has most.
    fn make_room(&mut self, known: bool) {
        let of_kind = |slot: &&Slot| slot.known == known;
        if self.slots.iter().flatten().filter(of_kind).count() < if known { KNOWN } else { STRANGERS } {
            return;
        }
        let share = |slot: &Slot| {
            let same = |other: &&Slot| other.known == known && host(other) == host(slot);
            if known { 0 } else { self.slots.iter().flatten().filter(same).count() }
        };
        let all = self.slots.iter().enumerate().filter_map(|(index, slot)| Some((index, slot.as_ref()?)));
        let all = all.filter(|(_, slot)| slot.known == known);
        let worst = all.max_by_key(|(_, slot)| (share(slot), std::cmp::Reverse(slot.at)));
        if let Some(index) = worst.map(|(index, _)| index) {
            self.slots[index] = None;
        }
    }

    fn find(&self, path: Path) -> Option<usize> {
        let is_it = |slot: &Slot| slot.stream.path() == path.far_end();
        self.slots.iter().position(|slot| slot.as_ref().is_some_and(is_it))
    }

    /// Takes a connection out for reading; it is closed unless put back.
    pub fn take(&mut self, index: usize) -> Option<Slot> {
        self.slots.get_mut(index)?.take()
    }

    /// Puts a connection back. `proven`: it delivered something that only the peer can have sent.
    pub fn put_back(&mut self, now: Instant, index: usize, mut slot: Slot, proven: bool) {
        if proven && !slot.known {
            (slot.known, slot.deaf) = (true, false);
            slot.stream.widen();
            self.make_room(true);
            let data = EventData::new_u64(index as u64);
            let moved = epoll::delete(self.epoll(false), &slot.stream)
                .and_then(|()| epoll::add(self.epoll(true), &slot.stream, data, EventFlags::IN));
            if moved.is_err() {
                return;
            }
        }
        if slot.known && (proven || slot.taken > 0) {
            slot.at = now;
        }
        self.slots[index] = Some(slot);
    }

    /// Sends a connection's queued data, now that it has room.
    ///
    /// # Errors
    /// Those of write(2).
    pub fn flush(&self, index: usize, slot: &mut Slot) -> io::Result<()> {
        if !slot.stream.is_blocked() {
            return Ok(());
        }
        slot.stream.flush()?;
        if slot.stream.is_blocked() { Ok(()) } else { self.watch(index, slot) }
    }

    fn watch(&self, index: usize, slot: &Slot) -> io::Result<()> {
        let out = if slot.stream.is_blocked() { EventFlags::OUT } else { EventFlags::empty() };
        let data = EventData::new_u64(index as u64);
        Ok(epoll::modify(self.epoll(slot.known), &slot.stream, data, EventFlags::IN | out)?)
    }

    /// Sends datagrams on a path that is a stream.
    pub fn send(&mut self, now: Instant, transmit: Transmit<'_>) -> Sent {
        if let Some(index) = self.find(transmit.to) {
            return self.send_at(now, index, transmit);
        }
        let path = transmit.to.far_end();
        let first = transmit.bytes.get(..transmit.stride).unwrap_or(transmit.bytes);
        if let Some(wanted) = self.wanted.iter_mut().find(|wanted| wanted.path == path) {
            wanted.first = first.to_vec();
            return Sent::Yes;
        }
        if self.wanted.len() >= WANTED {
            return Sent::Full;
        }
        self.wanted.push(Wanted { path, first: first.to_vec(), due: now + CONNECTING });
        Sent::Connect
    }

    fn send_at(&mut self, now: Instant, index: usize, transmit: Transmit<'_>) -> Sent {
        let Some(mut slot) = self.slots[index].take() else { return Sent::Full };
        let was_blocked = slot.stream.is_blocked();
        let sent = match slot.stream.send(transmit) {
            Ok(()) => Sent::Yes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Full,
            // The stream is over; the next datagram opens a new one.
            Err(_) => return Sent::Full,
        };
        if slot.stream.is_blocked() != was_blocked && self.watch(index, &slot).is_err() {
            return Sent::Full;
        }
        if slot.known {
            slot.at = now;
        }
        self.slots[index] = Some(slot);
        sent
    }

    /// Whether sending on this path has to wait.
    pub fn holds(&self, path: Path) -> bool {
        if !path.stream {
            return false;
        }
        match self.find(path) {
            Some(index) => self.slots[index].as_ref().is_some_and(|slot| slot.stream.is_blocked()),
            None => self.wanted.iter().any(|wanted| wanted.path == path.far_end()),
        }
    }

    /// When a stream is due to be closed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let slots = self.slots.iter().flatten();
        let slots = slots.map(|slot| if slot.known { slot.at + IDLE } else { slot.at });
        slots.chain(self.wanted.iter().map(|wanted| wanted.due)).min()
    }

    /// Closes what has expired; the peer's current path, `in_use`, never does.
    pub fn handle_timeout(&mut self, now: Instant, in_use: Option<Path>) {
        self.wanted.retain(|wanted| wanted.due > now);
        for slot in &mut self.slots {
            let Some(Slot { stream, known, at, .. }) = slot else { continue };
            if *known && in_use.is_some_and(|path| path.far_end() == stream.path()) {
                *at = (*at).max(now - IDLE / 2);
            } else if now >= if *known { *at + IDLE } else { *at } {
                drop(mem::take(slot));
            }
        }
        while self.slots.pop_if(|slot| slot.is_none()).is_some() {}
    }
}

/// The host a connection counts for: an IPv4 address, or an IPv6 network, since each host has a whole one.
fn host(slot: &Slot) -> IpAddr {
    match slot.stream.path().remote {
        SocketAddr::V4(v4) => (*v4.ip()).into(),
        SocketAddr::V6(v6) => Ipv6Addr::from_bits(v6.ip().to_bits() >> 64 << 64).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// One end of a connection from that port, and its path.
    fn connection(port: u16) -> (UnixStream, OwnedFd, Path) {
        let (far, near) = UnixStream::pair().unwrap();
        let remote = SocketAddr::from(([192, 0, 2, 1], port));
        (far, near.into(), Path { stream: true, ..remote.into() })
    }

    #[test]
    fn what_is_closed_leaves_no_place_to_be_gone_through() {
        let start = Instant::now();
        let mut streams = Streams::new(Some(Arc::new(LinkKeys::new(&[42; 32])))).unwrap();
        let connections: Vec<_> = (1..=5).map(connection).collect();
        let mut far = Vec::new();
        for (at, (end, near, path)) in (1..).zip(connections) {
            far.push(end);
            assert_eq!(streams.add(near, path, false, start + at * SECOND), Some(at as usize - 1));
        }
        assert_eq!(streams.poll_timeout(), Some(start + SECOND));
        // The first two have expired: their places are free, and the others keep theirs.
        streams.handle_timeout(start + 2 * SECOND, None);
        assert_eq!((streams.slots.len(), streams.poll_timeout()), (5, Some(start + 3 * SECOND)));
        let (_end, near, path) = connection(6);
        assert_eq!(streams.add(near, path, true, start), Some(0));
        streams.handle_timeout(start + 5 * SECOND, Some(path));
        assert_eq!((streams.slots.len(), streams.find(path)), (1, Some(0)));
        streams.handle_timeout(start + 60 * SECOND, None);
        assert_eq!((streams.slots.len(), streams.poll_timeout()), (0, None));
    }
}
