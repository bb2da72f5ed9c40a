//! The worker threads of a lane: plain epoll loops that move frames and datagrams between a device and a socket.
//!
//! Everything they must decide is in the [`Lane`]; everything that is not frames goes to the engine over a
//! bounded channel, and what the engine decides comes back over another. One thread serves both directions,
//! or each direction has its own.

mod handle;
mod receive;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::Timespec;
use tokio::sync::mpsc::Sender;

use crate::config::DataPath;
use crate::core::clock::ClockJumpDetector;
use crate::core::codel::Codel;
use crate::core::fair_queue::FairQueue;
use crate::core::lane::{Lane, Notice, Report, Settings, Sink};
use crate::core::stats::DropReason;
use crate::engine::lane_io::LaneIo;
use crate::packet::layer::Layer;
use crate::packet::traffic_class;
use crate::packet::virtio::{self, Virtio};
use crate::packet::{flow, gso};
use crate::sys::clock;
use crate::transport::Datagrams;

pub use handle::Handle;
use handle::{Thread, ToWorker};
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
    /// What was counted by the thread that does this.
    Report(Direction, Report),
    /// Something for the log, said once.
    Note(String),
    /// Datagrams cannot be sent; told once a minute at most.
    SendFailed {
        /// Where to.
        to: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The device is gone or refuses everything.
    DeviceLost(io::Error),
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
    duty: Direction,
    lane: Lane,
    layer: Layer,
    watch: ClockJumpDetector,
    /// The clocks jumped and the link does not know yet.
    resumed: bool,
    port: LaneIo<D>,
    /// What the peer's datagrams come to, if not to the front, the socket for everybody.
    connected: Option<D>,
    rest: Rest,
    orders: mpsc::Receiver<ToWorker<D>>,
    wake: OwnedFd,
    epoll: OwnedFd,
    /// How long it looks for more before it sleeps.
    busy_poll: Duration,
    /// Frames that were read from the device, and whether too many stand there.
    queue: FairQueue,
    crowd: Codel,
    /// Whether too many datagrams stand in the socket.
    codel: Codel,
    arrival: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wake = 0,
    Front = 1,
    Connected = 2,
    Device = 3,
}

/// Makes the workers of a lane, one or two, that share a socket and a device.
///
/// # Errors
/// Those of epoll_create1(2), epoll_ctl(2), eventfd(2) and dup(2).
pub fn workers<D: Datagrams>(
    settings: &Settings,
    data_path: DataPath,
    socket: D,
    device: Option<OwnedFd>,
    channels: (Sender<FromWorker>, Sender<Notice>),
) -> io::Result<(Vec<Worker<D>>, Handle<D>)> {
    let duties: &[Direction] =
        if data_path.threads == 1 { &[Direction::Both] } else { &[Direction::Outward, Direction::Inward] };
    let mut workers = Vec::new();
    let mut threads = Vec::new();
    for duty in duties {
        let (sender, orders) = mpsc::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        threads.push(Thread { duty: *duty, sender, wake: wake.try_clone()? });
        let port =
            LaneIo::new(socket.try_clone()?, settings.inner.layer(), data_path.offload, channels.clone());
        let device = device.as_ref().map(OwnedFd::try_clone).transpose()?;
        workers.push(Worker::new(*duty, settings, data_path, port, device, (orders, wake))?);
    }
    Ok((workers, Handle { threads }))
}

impl<D: Datagrams> Worker<D> {
    fn new(
        duty: Direction,
        settings: &Settings,
        data_path: DataPath,
        port: LaneIo<D>,
        device: Option<OwnedFd>,
        (orders, wake): (mpsc::Receiver<ToWorker<D>>, OwnedFd),
    ) -> io::Result<Self> {
        let mut worker = Self {
            duty,
            lane: Lane::new(settings.clone()),
            layer: settings.inner.layer(),
            watch: ClockJumpDetector::default(),
            resumed: false,
            port,
            connected: None,
            rest: Rest::default(),
            orders,
            wake,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            busy_poll: Duration::from_micros(data_path.busy_poll.into()),
            queue: FairQueue::new(LONGEST),
            crowd: Codel::default(),
            codel: Codel::default(),
            arrival: vec![0; LONGEST],
        };
        worker.watch(&worker.wake, Source::Wake)?;
        if duty != Direction::Outward {
            worker.port.enable_gro();
            worker.watch(&worker.port.socket, Source::Front)?;
        }
        if let Some(device) = device {
            worker.take_device(device)?;
        }
        Ok(worker)
    }

    /// Runs until told to quit or until the device is lost.
    pub fn run(mut self) {
        if let Err(error) = self.serve() {
            let _ = self.port.engine.blocking_send(FromWorker::DeviceLost(error));
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(4);
        let mut busy_until = None;
        loop {
            let timeout = match busy_until.is_some() || !self.queue.is_empty() {
                true => Some(Timespec::default()),
                false => [self.lane.poll_timeout(), self.rest.poll_timeout()]
                    .into_iter()
                    .flatten()
                    .min()
                    .map(until),
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
            let (mut readable, mut front, mut connected) = (false, false, false);
            for event in &events {
                match event.data.u64() {
                    n if n == Source::Wake as u64 => {
                        if !self.take_orders(now)? {
                            return Ok(());
                        }
                    }
                    n if n == Source::Device as u64 => readable = true,
                    n => {
                        let flags = event.flags;
                        if flags.contains(epoll::EventFlags::ERR) {
                            self.take_icmp_errors(now, n == Source::Connected as u64);
                        }
                        *(if n == Source::Front as u64 { &mut front } else { &mut connected }) = true;
                    }
                }
            }
            if connected || front && self.connected.is_none() {
                self.take_datagrams(now);
            }
            if readable {
                self.read_frames()?;
            }
            self.seal_frames(now);
            if front && self.connected.is_some() {
                self.serve_front();
            }
            self.end_rest(now)?;
            if self.lane.poll_timeout().is_some_and(|at| at <= now) {
                self.lane.handle_timeout(now, &mut self.port);
                self.port.flush_frames();
            }
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
            match order {
                ToWorker::Lane(command) => self.lane.handle_command(now, command, &mut self.port),
                ToWorker::Device(device) => self.take_device(device)?,
                ToWorker::Connected(socket) => self.take_connected(now, socket)?,
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
        self.port.flush_frames();
        Ok(true)
    }

    fn report(&mut self) {
        let report = self.lane.report();
        let stats = report.stats.plus(&self.port.drops);
        // A full channel means that the engine is behind; it asks again.
        let _ = self.port.engine.try_send(FromWorker::Report(self.duty, Report { stats, ..report }));
    }

    /// Seals a turn's worth of the frames that wait. What is left has its turn after the other direction, and shares
    /// datagrams with what came before.
    fn seal_frames(&mut self, now: Instant) {
        if self.queue.is_empty() {
            return;
        }
        let mut should_drop = self.crowd.should_drop(now, self.queue.bytes());
        let mut taken = 0;
        while taken < TURN {
            let Self { lane, port, layer, queue, .. } = self;
            let Some(length) = queue.pop(|frame, more| {
                take_frame(frame, *layer, more, &mut should_drop, lane, port);
                frame.len()
            }) else {
                break;
            };
            taken += length;
        }
        if self.queue.is_empty() {
            self.lane.outward.flush(&mut self.port);
        }
    }

    fn read_frames(&mut self) -> io::Result<()> {
        let Some(device) = &self.port.device else { return Ok(()) };
        while let Some(room) = self.queue.room() {
            match rustix::io::read(device, &mut *room) {
                Ok(length) => {
                    let frame = room.get(virtio::HEADER..length).unwrap_or_default();
                    let flow = flow::of(frame, self.layer);
                    self.queue.push(length, flow);
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                // The device is down for the moment; it says so again when it is up.
                Err(Errno::IO) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// What was read from the device: a frame, or several joined. If the queue must give something up, one is marked, or given up: one of
/// several, or of a flow that has `more` waiting.
fn take_frame(
    read: &mut [u8],
    layer: Layer,
    more: bool,
    should_drop: &mut bool,
    lane: &mut Lane,
    port: &mut LaneIo<impl Datagrams>,
) {
    let Some((header, packet)) = read.split_first_chunk_mut() else { return };
    let Some(virtio) = Virtio::parse(*header) else { return port.drops.drop(DropReason::Malformed) };
    let mut skips = false;
    if *should_drop && (more || virtio.kind != virtio::Kind::Single) {
        *should_drop = false;
        skips = !traffic_class::is_capable(traffic_class::of(packet, layer));
        if skips {
            port.drops.drop(DropReason::QueueFull);
        } else {
            traffic_class::mark(packet, layer, traffic_class::CE);
        }
    }
    let emit = |head: &[u8], tail: &[u8]| {
        if !std::mem::take(&mut skips) {
            lane.outward.handle_frame(head, tail, port);
        }
    };
    if gso::split(virtio, packet, layer, emit).is_err() {
        port.drops.drop(DropReason::Malformed);
    }
}

fn until(at: Instant) -> Timespec {
    let wait = at.saturating_duration_since(Instant::now());
    Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}

#[cfg(test)]
mod tests;
