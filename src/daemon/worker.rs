//! One worker thread: a plain epoll loop that moves frames and datagrams between a device and a socket.
//!
//! Everything it must decide is in its [`Lane`]; everything that is not frames goes to the engine over a
//! bounded channel, and what the engine decides comes back over another.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::time::Timespec;
use tokio::sync::mpsc::Sender;

use super::clock;
use crate::core::clock::Watch;
use crate::core::lane::{Command, Lane, Notice, Report, Sink};
use crate::core::limits::{DATAGRAM_MAX, ETHERNET};
use crate::core::path::Path;
use crate::core::stats::{Drop, Stats};
use crate::device::VNET_HEADER;
use crate::transport::udp::{Socket, is_source_lost};

/// Frames or datagrams taken at once: enough to share the cost of a wake-up, few enough to be fair.
const BATCH: usize = 64;
/// A failure to send is told at most this often.
const FAILURES: Duration = Duration::from_secs(60);
/// What ICMP says is told at most this often.
const COMPLAINTS: Duration = Duration::from_millis(200);
/// Frames kept for a device that is still to be opened.
const WAITING: usize = 64;

/// From the engine to its worker.
pub enum ToWorker {
    /// For the lane.
    Lane(Command),
    /// The device, if it was not there at the start.
    Device(OwnedFd),
    /// Answer with [`FromWorker::Report`].
    Report,
    /// End after everything sent before.
    Quit,
}

/// From the worker to the engine.
pub enum FromWorker {
    /// For the link.
    Notice(Notice),
    /// What was counted.
    Report(Report),
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

/// Talks to a worker.
pub struct Handle {
    sender: mpsc::Sender<ToWorker>,
    wake: OwnedFd,
}

impl Handle {
    /// Queues a message and wakes the worker. A worker that ended takes no more; its end is seen elsewhere.
    pub fn send(&self, message: ToWorker) {
        if self.sender.send(message).is_ok() {
            // A full counter (EAGAIN) means that it is awake already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

/// A worker, ready to run on its own thread.
pub struct Worker {
    lane: Lane,
    watch: Watch,
    /// The clocks parted and the link does not know yet.
    resumed: bool,
    port: Port,
    orders: mpsc::Receiver<ToWorker>,
    wake: OwnedFd,
    epoll: OwnedFd,
    frames: Vec<u8>,
    frame_room: usize,
    datagram: Vec<u8>,
}

/// What a lane's output goes to.
struct Port {
    socket: Socket,
    device: Option<OwnedFd>,
    waiting: VecDeque<Vec<u8>>,
    engine: Sender<FromWorker>,
    unproven: Sender<Notice>,
    /// When a failure to send was last told.
    failed_at: Option<Instant>,
    /// When ICMP was last told of: other errors, and datagrams that are too long.
    complained_at: [Option<Instant>; 2],
    drops: Stats,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Wake = 0,
    Socket = 1,
    Device = 2,
}

impl Worker {
    /// Makes a worker for `lane`; frames of the device are at most `mtu` bytes of IP.
    ///
    /// # Errors
    /// Those of epoll_create1(2), epoll_ctl(2) and eventfd(2).
    pub fn new(
        lane: Lane,
        mtu: u32,
        socket: Socket,
        device: Option<OwnedFd>,
        (engine, unproven): (Sender<FromWorker>, Sender<Notice>),
    ) -> io::Result<(Self, Handle)> {
        let (sender, orders) = mpsc::channel();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let frame_room = VNET_HEADER + mtu as usize + ETHERNET;
        let handle = Handle { sender, wake: wake.try_clone()? };
        let port = Port {
            socket,
            device: None,
            waiting: VecDeque::new(),
            engine,
            unproven,
            failed_at: None,
            complained_at: [None; 2],
            drops: Stats::default(),
        };
        let mut worker = Self {
            lane,
            watch: Watch::default(),
            resumed: false,
            port,
            orders,
            wake,
            epoll,
            frames: vec![0; BATCH * frame_room],
            frame_room,
            datagram: vec![0; DATAGRAM_MAX],
        };
        worker.watch(&worker.wake, Source::Wake)?;
        worker.watch(&worker.port.socket, Source::Socket)?;
        if let Some(device) = device {
            worker.take_device(device)?;
        }
        Ok((worker, handle))
    }

    /// Runs until told to quit or until the device is lost.
    pub fn run(mut self) {
        if let Err(error) = self.serve() {
            let _ = self.port.engine.blocking_send(FromWorker::DeviceLost(error));
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(4);
        loop {
            let timeout = self.lane.poll_timeout().map(until);
            events.clear();
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = self.look_at_clocks();
            for event in &events {
                match event.data.u64() {
                    n if n == Source::Wake as u64 => {
                        if !self.take_orders(now)? {
                            return Ok(());
                        }
                    }
                    n if n == Source::Socket as u64 => {
                        let flags = event.flags;
                        if flags.contains(epoll::EventFlags::ERR) {
                            self.take_complaints(now);
                        }
                        self.take_datagrams(now);
                    }
                    _ => self.take_frames()?,
                }
            }
            if self.lane.poll_timeout().is_some_and(|at| at <= now) {
                self.lane.handle_timeout(now, &mut self.port);
            }
        }
    }

    /// Time passed, or a snapshot of this process was restored: that is noticed before anything is sealed.
    fn look_at_clocks(&mut self) -> Instant {
        let now = clock::now();
        if self.watch.parted(now) {
            self.lane.handle_command(now.instant, Command::WipeAll, &mut self.port);
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
        self.watch(&device, Source::Device)?;
        self.port.device = Some(device);
        for frame in std::mem::take(&mut self.port.waiting) {
            self.port.frame(&frame);
        }
        Ok(())
    }

    /// False: quit.
    fn take_orders(&mut self, now: Instant) -> io::Result<bool> {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
        while let Ok(order) = self.orders.try_recv() {
            match order {
                ToWorker::Lane(command) => self.lane.handle_command(now, command, &mut self.port),
                ToWorker::Device(device) => self.take_device(device)?,
                ToWorker::Report => self.report(),
                ToWorker::Quit => {
                    self.report();
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn report(&mut self) {
        let report = self.lane.report();
        let stats = report.stats.plus(&self.port.drops);
        // A full channel means that the engine is behind; it asks again.
        let _ = self.port.engine.try_send(FromWorker::Report(Report { stats, ..report }));
    }

    fn take_datagrams(&mut self, now: Instant) {
        for _ in 0..BATCH {
            match self.port.socket.receive(&mut self.datagram) {
                Ok((length, from)) => {
                    let datagram = &mut self.datagram[..length];
                    self.lane.handle_datagram(now, from, datagram, &mut self.port);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.port.drops.drop(Drop::Malformed);
                }
                // Nothing there, or an ICMP error of an earlier send: the next event tells.
                Err(_) => return,
            }
        }
    }

    /// What ICMP says of datagrams sent before: of each kind at most one is told in [`COMPLAINTS`].
    fn take_complaints(&mut self, now: Instant) {
        for _ in 0..BATCH {
            match self.port.socket.receive_error() {
                Ok((to, error)) => {
                    let notice = match Errno::from_io_error(&error) {
                        Some(Errno::MSGSIZE) => Notice::TooLong,
                        _ => Notice::Refused { to },
                    };
                    self.port.complain(now, notice);
                }
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
                Err(_) => return,
            }
        }
    }

    fn take_frames(&mut self) -> io::Result<()> {
        let Some(device) = &self.port.device else { return Ok(()) };
        let mut lengths = [0; BATCH];
        let mut count = 0;
        for room in self.frames.chunks_exact_mut(self.frame_room) {
            match rustix::io::read(device, room) {
                Ok(length) => {
                    lengths[count] = length;
                    count += 1;
                }
                Err(Errno::AGAIN | Errno::INTR) => break,
                // The device is down for the moment; it says so again when it is up.
                Err(Errno::IO) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let mut batch = [&[][..]; BATCH];
        let rooms = self.frames.chunks_exact(self.frame_room).zip(lengths);
        for (frame, (room, length)) in batch.iter_mut().zip(rooms).take(count) {
            *frame = room.get(VNET_HEADER..length).unwrap_or_default();
        }
        self.lane.handle_frames(&batch[..count], &mut self.port);
        Ok(())
    }
}

impl Sink for Port {
    fn frame(&mut self, frame: &[u8]) {
        let Some(device) = &self.device else {
            if self.waiting.len() < WAITING {
                self.waiting.push_back(frame.to_vec());
            } else {
                self.drops.drop(Drop::QueueFull);
            }
            return;
        };
        let parts = [IoSlice::new(&[0; VNET_HEADER]), IoSlice::new(frame)];
        match rustix::io::writev(device, &parts) {
            Ok(_) => {}
            Err(Errno::INVAL) => self.drops.drop(Drop::Malformed),
            Err(_) => self.drops.drop(Drop::QueueFull),
        }
    }

    fn datagram(&mut self, datagram: &[u8], to: Path) {
        match self.socket.send(datagram, to) {
            Ok(()) => {}
            Err(error) if to.local.is_some() && is_source_lost(&error) => {
                // A full queue does not matter: the next datagram tells it again.
                self.notice(Notice::SourceLost { path: to });
                self.datagram(datagram, to.remote.into());
            }
            Err(error) => {
                let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
                let reason = match errno {
                    Errno::MSGSIZE => Drop::TooBig,
                    Errno::AGAIN | Errno::NOBUFS => Drop::QueueFull,
                    _ => Drop::NoPeer,
                };
                self.drops.drop(reason);
                match reason {
                    Drop::QueueFull => {}
                    // The link finds out what passes; most often it is asking just that.
                    Drop::TooBig => self.complain(Instant::now(), Notice::TooLong),
                    _ => self.tell_failure(to.remote, error),
                }
            }
        }
    }

    fn notice(&mut self, notice: Notice) -> bool {
        if notice.is_unproven() {
            return self.unproven.try_send(notice).is_ok();
        }
        self.engine.try_send(FromWorker::Notice(notice)).is_ok()
    }
}

impl Port {
    /// Whoever sends ICMP could say anything, as often as he likes.
    fn complain(&mut self, now: Instant, notice: Notice) {
        let last = &mut self.complained_at[usize::from(notice == Notice::TooLong)];
        if last.is_none_or(|at| now.saturating_duration_since(at) >= COMPLAINTS)
            && self.engine.try_send(FromWorker::Notice(notice)).is_ok()
        {
            *last = Some(now);
        }
    }

    /// Whoever makes this end answer to addresses that fail gets one line in a while.
    fn tell_failure(&mut self, to: SocketAddr, error: io::Error) {
        let now = Instant::now();
        if self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= FAILURES)
            && self.engine.try_send(FromWorker::SendFailed { to, error }).is_ok()
        {
            self.failed_at = Some(now);
        }
    }
}

fn until(at: Instant) -> Timespec {
    let wait = at.saturating_duration_since(Instant::now());
    Timespec::try_from(wait).unwrap_or(Timespec { tv_sec: 1, tv_nsec: 0 })
}
