//! The worker threads of a link's lanes: plain epoll loops that move frames and datagrams between a device and a socket.
//!
//! Everything they must decide is in the lane ([`Bulk`]); everything that is not frames goes to the engine over a
//! bounded channel, and what the engine decides comes back over another. One thread serves both directions,
//! or each direction has its own.

mod handle;
mod make;
mod receive;
mod send;
mod streams;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::time::Timespec;
use tokio::sync::mpsc::Sender;

use crate::core::bulk::Bulk;
use crate::core::clock::ClockJumpDetector;
use crate::core::codel::Codel;
use crate::core::fair_queue::FairQueue;
use crate::core::lane::{Notice, Report, Sink};
use crate::engine::lane_io::LaneIo;
use crate::engine::strays::Strays;
use crate::packet::layer::Layer;
use crate::packet::virtio;
use crate::sys::clock;
use crate::transport::Datagrams;

pub use handle::Handle;
use handle::ToWorker;
pub use make::workers;
use receive::Rest;

/// Times that datagrams are received at once, joined or not.
const ARRIVALS: usize = 64;
/// Bytes after which the other direction has its turn: about a super-frame, for more of them make nothing faster and
/// hold up the answers.
const TURN: usize = 48 * 1024;
/// No turn takes longer.
const TURN_TIME: Duration = Duration::from_secs(1);
/// Bytes of the longest super-frame, with its virtio header and Ethernet header and tags; and of all that is
/// received in one call.
const LONGEST: usize = virtio::HEADER + 22 + 65_535;

/// From the worker to the engine.
pub enum FromWorker {
    /// For the link.
    Notice(Notice),
    /// What was counted by the thread with this number.
    Report(usize, Box<Report>),
    /// A thread does something again, for the first time since it was asked for a report.
    Active,
    /// Something for the log, said once.
    Note(String),
    /// A connection is needed; answered by [`Handle::stream`].
    StreamWanted {
        /// Where to.
        to: SocketAddr,
    },
    /// Datagrams cannot be sent; told once a minute at most.
    SendFailed {
        /// Where to.
        to: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Datagrams pass again to where they could not be sent.
    SentAgain {
        /// Where to.
        to: SocketAddr,
    },
    /// The device is gone or refuses everything.
    DeviceLost(io::Error),
    /// A thread ended by a defect.
    Died,
}

/// What a thread of a lane does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Both directions.
    Both,
    /// Frames to datagrams.
    Outward,
    /// Datagrams to frames.
    Inward,
}

/// A worker, ready to run on its own thread.
pub struct Worker<D> {
    /// Which of the link's threads it is, and which lane it serves.
    number: usize,
    place: u8,
    duty: Direction,
    /// Whether it serves whoever sends to the port.
    has_front: bool,
    lane: Bulk,
    layer: Layer,
    watch: ClockJumpDetector,
    /// The clocks jumped and the link does not know yet.
    resumed: bool,
    port: LaneIo<D>,
    /// What the peer's datagrams come to, if not to the front, the socket for everybody.
    connected: Option<D>,
    /// Whether that has a port of its own.
    has_own_port: bool,
    rest: Rest,
    /// The same for those who connect and have proven nothing.
    strangers_rest: Rest,
    /// Whether the device is listened to: not while what it gives has no place to wait for its turn.
    listens_to_device: bool,
    orders: mpsc::Receiver<ToWorker<D>>,
    /// What other lanes' workers hand over.
    strays: Option<mpsc::Receiver<Strays>>,
    wake: OwnedFd,
    epoll: OwnedFd,
    /// How long it looks for more before it sleeps.
    busy_poll: Duration,
    /// Frames that were read from the device, and whether too many stand there.
    queue: FairQueue,
    crowd: Codel,
    /// The same for what a stream holds back.
    held: Codel,
    /// Whether too many datagrams stand in the socket.
    codel: Codel,
    arrival: Vec<u8>,
    /// Something was done since the last report ...
    is_active: bool,
    /// ... and the engine knows.
    told_active: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wake = 0,
    Front = 1,
    Connected = 2,
    Device = 3,
    Streams = 4,
    Strangers = 5,
}

impl<D: Datagrams> Worker<D> {
    /// Its thread's name: the number of its lane, and what it does there.
    pub fn name(&self) -> String {
        format!("lane{}.{}", self.place, u8::from(self.duty == Direction::Inward))
    }

    /// Runs until told to quit or until the device is lost.
    pub fn run(mut self) {
        let _watched = Watched(self.port.engine.clone());
        if let Err(error) = self.serve() {
            let _ = self.port.engine.blocking_send(FromWorker::DeviceLost(error));
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(8);
        let mut busy_until = None;
        loop {
            let held = self.lane.endpoint().is_some_and(|path| self.port.streams.holds(path));
            // What is held waits in its queue, where each flow has its turn and a long one is cut; a device has one row for all.
            let has_room = self.queue.room().is_some();
            self.listen_to_device(!held || has_room)?;
            let timeout = match busy_until.is_some() || !self.queue.is_empty() && !held {
                true => Some(Timespec::default()),
                false => self.timeouts().into_iter().flatten().min().map(until),
            };
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = self.look_at_clocks();
            if !events.is_empty() && !self.busy_poll.is_zero() {
                busy_until = Some(now + self.busy_poll);
            } else if busy_until.is_some_and(|until| until <= now) {
                busy_until = None;
            }
            // A wake may be for the question what was done, and a turn without any event a look for more.
            self.is_active |=
                events.iter().any(|event| event.data.u64() != Source::Wake as u64) || !self.queue.is_empty();
            let is_ready = |source: Source| events.iter().find(|event| event.data.u64() == source as u64);
            if is_ready(Source::Wake).is_some() && !self.take_orders(now)? {
                return Ok(());
            }
            let outer =
                [Source::Front, Source::Connected].map(|source| is_ready(source).map(|event| event.flags));
            for (of_connected, flags) in [false, true].into_iter().zip(outer) {
                if flags.is_some_and(|flags| flags.contains(epoll::EventFlags::ERR)) {
                    self.take_icmp_errors(now, of_connected);
                }
            }
            let [front, connected] = outer.map(|flags| flags.is_some());
            if connected || front && self.connected.is_none() {
                self.take_datagrams(now);
            }
            if is_ready(Source::Streams).is_some() {
                self.take_records(now);
            }
            if is_ready(Source::Device).is_some() {
                self.read_frames(now)?;
            }
            self.seal_frames(now);
            if is_ready(Source::Strangers).is_some() {
                self.serve_strangers();
            }
            if front && self.connected.is_some() {
                self.serve_front();
            }
            self.handle_timeouts(now)?;
            self.tell_active();
        }
    }

    fn handle_timeouts(&mut self, now: Instant) -> io::Result<()> {
        self.end_rest(now)?;
        self.end_strangers_rest(now)?;
        if self.port.streams.poll_timeout().is_some_and(|at| at <= now) {
            self.port.streams.handle_timeout(now, self.lane.endpoint());
        }
        Ok(())
    }

    /// What this turn did may have been counted after a report.
    fn tell_active(&mut self) {
        if std::mem::take(&mut self.is_active) && !self.told_active {
            // A full channel: at the next turn.
            self.told_active = self.port.engine.try_send(FromWorker::Active).is_ok();
        }
    }

    /// Time passed, or a snapshot of this process was restored: that is noticed before anything is sealed.
    fn look_at_clocks(&mut self) -> Instant {
        let now = clock::now();
        if self.watch.has_jumped(now) {
            self.lane.wipe_all(&mut self.port);
            self.resumed = true;
        }
        if self.resumed {
            // The link must know, if not now, then when its queue has room.
            self.resumed = !self.port.notice(Notice::Resumed);
        }
        now.instant
    }

    fn watch(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let data = epoll::EventData::new_u64(source as u64);
        Ok(epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN)?)
    }

    fn watch_once(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let data = epoll::EventData::new_u64(source as u64);
        Ok(epoll::add(&self.epoll, fd, data, epoll::EventFlags::IN | epoll::EventFlags::ONESHOT)?)
    }

    /// When something is to be done at the latest.
    fn timeouts(&self) -> [Option<Instant>; 3] {
        let streams = self.port.streams.poll_timeout();
        [self.rest.poll_timeout(), self.strangers_rest.poll_timeout(), streams]
    }

    /// Whether frames of the device are read now.
    fn listen_to_device(&mut self, listens: bool) -> io::Result<()> {
        if listens == self.listens_to_device {
            return Ok(());
        }
        let Some(device) = self.port.device.as_ref().filter(|_| self.duty != Direction::Inward) else {
            return Ok(());
        };
        let flags = if listens { epoll::EventFlags::IN } else { epoll::EventFlags::empty() };
        epoll::modify(&self.epoll, device, epoll::EventData::new_u64(Source::Device as u64), flags)?;
        self.listens_to_device = listens;
        Ok(())
    }

    fn take_device(&mut self, device: OwnedFd) -> io::Result<()> {
        if self.duty != Direction::Inward {
            self.watch(&device, Source::Device)?;
        }
        self.port.take_device(device);
        Ok(())
    }

    /// False: quit.
    fn take_orders(&mut self, now: Instant) -> io::Result<bool> {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(order) = self.orders.try_recv() {
            self.is_active |= !matches!(order, ToWorker::Report);
            match order {
                ToWorker::Lane(command) => self.lane.handle_command(now, command, &mut self.port),
                ToWorker::Frame(frame) => {
                    self.lane.handle_frame(&frame, &[], &mut self.port);
                    self.lane.flush(&mut self.port);
                }
                ToWorker::Device(device) => self.take_device(device)?,
                ToWorker::Connected(socket, own_port) => self.take_connected(now, socket, own_port)?,
                ToWorker::Own(socket) => self.port.own = socket,
                ToWorker::Attach(attached) => self.port.attach(attached),
                ToWorker::Listen(listener) => self.port.streams.listen(listener)?,
                ToWorker::Stream(path, connection) => self.take_stream(now, path, connection),
                ToWorker::Report => self.report(),
                ToWorker::Settle(done) => {
                    let _ = done.send(());
                }
                ToWorker::Quit => {
                    self.report();
                    return Ok(false);
                }
            }
        }
        self.take_strays(now);
        self.port.flush_frames();
        Ok(true)
    }

    fn report(&mut self) {
        self.told_active = false;
        let report = self.lane.report(Instant::now());
        let stats = report.stats.plus(&self.port.drops);
        // A full channel means that the engine is behind; it asks again.
        let _ =
            self.port.engine.try_send(FromWorker::Report(self.number, Box::new(Report { stats, ..report })));
    }
}

/// The others would go on without a thread that panicked, and the link seem up.
struct Watched(Sender<FromWorker>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.0.blocking_send(FromWorker::Died);
        }
    }
}

fn until(at: Instant) -> Timespec {
    let wait = at.saturating_duration_since(Instant::now());
    Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}

#[cfg(test)]
mod tests;
