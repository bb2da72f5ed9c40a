//! The worker threads of a link's lanes: plain epoll loops that move frames and datagrams between a device and a socket.
//!
//! The lane ([`Bulk`]) makes their decisions. All that is not frames goes to the engine over a bounded channel, and the engine's decisions come back
//! over another. One thread serves both directions, or each has its own.

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

use rustix::event::epoll::{self, EventData, EventFlags};
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

/// Most receive calls per turn, joined or not.
const ARRIVALS: usize = 64;
/// Bytes after which the other direction gets its turn: about a super-frame, since a longer turn is no faster and delays the answers.
const TURN: usize = 48 * 1024;
/// Longest a turn can take.
const TURN_TIME: Duration = Duration::from_secs(1);
/// Bytes of the longest super-frame, with its virtio header and Ethernet header and tags; also the most received in one call.
const LONGEST: usize = virtio::HEADER + 22 + 65_535;

/// Messages from a worker to the engine.
pub enum FromWorker {
    /// For the link.
    Notice(Notice),
    /// The counters of the thread with this number.
    Report(usize, Box<Report>),
    /// A thread is active again, for the first time since its last report.
    Active,
    /// A one-time log line.
    Note(String),
    /// A connection is needed; [`Handle::stream`] answers.
    StreamWanted {
        /// Where to.
        to: SocketAddr,
    },
    /// Datagrams cannot be sent; reported at most once a minute.
    SendFailed {
        /// Where to.
        to: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// Sending works again where it had failed.
    SentAgain {
        /// Where to.
        to: SocketAddr,
    },
    /// The device is gone or fails permanently.
    DeviceLost(io::Error),
    /// A thread panicked.
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
    /// The number of this thread in the link, and its lane.
    number: usize,
    place: u8,
    duty: Direction,
    /// Whether it serves the front.
    has_front: bool,
    lane: Bulk,
    layer: Layer,
    watch: ClockJumpDetector,
    /// The clocks jumped; the link has not been told yet.
    resumed: bool,
    port: LaneIo<D>,
    /// The peer's own socket, if it has one; else its datagrams come to the front.
    connected: Option<D>,
    /// Whether `connected` has its own port.
    has_own_port: bool,
    rest: Rest,
    /// The same for strangers' connections.
    strangers_rest: Rest,
    /// Whether the device is polled: not while the queue has no room for its frames.
    listens_to_device: bool,
    orders: mpsc::Receiver<ToWorker<D>>,
    /// Datagrams from other lanes' workers.
    strays: Option<mpsc::Receiver<Strays>>,
    wake: OwnedFd,
    epoll: OwnedFd,
    /// How long it polls before it sleeps.
    busy_poll: Duration,
    /// Frames read from the device, and whether they form a standing queue.
    queue: FairQueue,
    crowd: Codel,
    /// The same for frames that a stream holds back.
    held: Codel,
    /// Whether the socket has a standing queue.
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
    /// The thread's name: its lane's number, and its direction.
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
            // Held frames wait in the fair queue, which cuts long flows; the device has one queue for all.
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
            // A wake-up may only ask for a report, and a turn without events is a poll.
            self.is_active |=
                events.iter().any(|event| event.data.u64() != Source::Wake as u64) || !self.queue.is_empty();
            let is_ready = |source: Source| events.iter().find(|event| event.data.u64() == source as u64);
            if is_ready(Source::Wake).is_some() && !self.take_orders(now)? {
                return Ok(());
            }
            let outer =
                [Source::Front, Source::Connected].map(|source| is_ready(source).map(|event| event.flags));
            for (of_connected, flags) in [false, true].into_iter().zip(outer) {
                let has_error = flags.is_some_and(|flags| flags.contains(EventFlags::ERR));
                // If the peer has a socket of its own, errors at the front are strangers', like its datagrams.
                if has_error && (of_connected || self.connected.is_none()) {
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

    /// Tells the engine of activity, which a report may have missed.
    fn tell_active(&mut self) {
        if std::mem::take(&mut self.is_active) && !self.told_active {
            // A full channel: retry at the next turn.
            self.told_active = self.port.engine.try_send(FromWorker::Active).is_ok();
        }
    }

    /// Reads the clocks. A jump, or a restored snapshot, must be noticed before anything is sealed.
    fn look_at_clocks(&mut self) -> Instant {
        let now = clock::now();
        if self.watch.has_jumped(now) {
            self.lane.wipe_all(&mut self.port);
            self.resumed = true;
        }
        if self.resumed {
            // The link must know; if its queue is full, at a later turn.
            self.resumed = !self.port.notice(Notice::Resumed);
        }
        now.instant
    }

    fn watch(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let once = if source == Source::Strangers { EventFlags::ONESHOT } else { EventFlags::empty() };
        let data = EventData::new_u64(source as u64);
        Ok(epoll::add(&self.epoll, fd, data, EventFlags::IN | once)?)
    }

    /// The timers of this thread.
    fn timeouts(&self) -> [Option<Instant>; 3] {
        let streams = self.port.streams.poll_timeout();
        [self.rest.poll_timeout(), self.strangers_rest.poll_timeout(), streams]
    }

    /// Polls the device, or stops polling it.
    fn listen_to_device(&mut self, listens: bool) -> io::Result<()> {
        if listens == self.listens_to_device {
            return Ok(());
        }
        let Some(device) = self.port.device.as_ref().filter(|_| self.duty != Direction::Inward) else {
            return Ok(());
        };
        let flags = if listens { EventFlags::IN } else { EventFlags::empty() };
        epoll::modify(&self.epoll, device, EventData::new_u64(Source::Device as u64), flags)?;
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
                ToWorker::Stream(path, connection) => self.port.streams.connected(now, path, connection),
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

/// Reports a panic: the other threads would go on, and the link would seem up.
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
