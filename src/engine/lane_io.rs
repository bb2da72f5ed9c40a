//! The output of a lane: datagrams to the socket, frames to the device, notices to the engine.
//!
//! Kernel offloads for batches of datagrams or frames are tried first. If the kernel refuses one, it is given up for good, with one log line.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use tokio::sync::mpsc::Sender;

use crate::core::lane::{Notice, Sink, Transmit};
use crate::core::path::Path;
use crate::core::stats::{DropReason, Stats};
use crate::engine::strays;
use crate::engine::streams::{Sent, Streams};
use crate::engine::worker::FromWorker;
use crate::packet::gro::Coalescer;
use crate::packet::gso;
use crate::packet::layer::Layer;
use crate::packet::virtio::Virtio;
use crate::sys::{Offload, attach_queue, set_offload};
use crate::transport::{Datagrams, is_refusal, is_source_lost};

/// Minimum interval between reports of a failure to send.
const FAILURES: Duration = Duration::from_secs(60);
/// Minimum interval between reports of ICMP errors.
const COMPLAINTS: Duration = Duration::from_millis(200);
/// Frames kept until the device is opened.
const WAITING: usize = 64;

/// Where a lane's output goes.
pub struct LaneIo<D> {
    /// The socket.
    pub socket: D,
    /// The socket on the lane's own port, for paths that start there.
    pub own: Option<D>,
    /// The other lanes of the link.
    pub lanes: strays::Lanes,
    /// The device, once it is there.
    pub device: Option<OwnedFd>,
    /// Where frames are written, if not to `device`: a queue that is never read.
    pub writer: Option<OwnedFd>,
    waiting: VecDeque<Vec<u8>>,
    layer: Layer,
    /// Joins frames for the device; `None`: each is written separately.
    coalescer: Option<Coalescer>,
    offload: bool,
    /// TCP connections, for paths that are streams.
    pub streams: Streams,
    /// The kernel splits batches (UDP_SEGMENT).
    cuts: bool,
    /// Channel to the engine.
    pub engine: Sender<FromWorker>,
    unproven: Sender<Notice>,
    /// When a failure to send was last reported.
    failed_at: Option<Instant>,
    /// The destination of the last reported failure, until a send succeeds.
    failed_to: Option<SocketAddr>,
    /// When ICMP errors were last reported: other errors, and datagrams that are too long.
    complained_at: [Option<Instant>; 2],
    /// What could not be sent or written.
    pub drops: Stats,
}

impl<D: Datagrams> LaneIo<D> {
    /// Without a device: frames wait.
    pub fn new(
        socket: D,
        layer: Layer,
        offload: bool,
        (engine, unproven): (Sender<FromWorker>, Sender<Notice>),
        streams: Streams,
    ) -> Self {
        Self {
            socket,
            own: None,
            lanes: strays::Lanes::new(),
            device: None,
            writer: None,
            waiting: VecDeque::new(),
            layer,
            coalescer: None,
            offload,
            streams,
            cuts: offload,
            engine,
            unproven,
            failed_at: None,
            failed_to: None,
            complained_at: [None; 2],
            drops: Stats::default(),
        }
    }

    /// Has the socket join incoming datagrams (UDP_GRO), if wanted and possible.
    pub fn enable_gro(&mut self) {
        if self.offload
            && let Err(error) = self.socket.enable_gro(true)
        {
            self.note(format!(
                "the kernel cannot coalesce datagrams (UDP_GRO: {error}); each is received alone"
            ));
        }
    }

    /// Takes the device and writes what waited for it.
    pub fn take_device(&mut self, device: OwnedFd) {
        if self.offload {
            // Behind a bridge, a packet socket such as a DHCP client's may take a joined frame for one datagram. Joined TCP segments reach only the
            // TCP that splits them.
            let joins_udp = self.layer == Layer::Ip;
            self.coalescer =
                self.set_offload(&device).map(|udp| Coalescer::new(self.layer, udp && joins_udp));
        }
        self.device = Some(device);
        for frame in std::mem::take(&mut self.waiting) {
            self.frame(&frame);
        }
        self.flush_frames();
    }

    /// Attaches this lane's device queue, or detaches it. EINVAL means that it is so already, and is ignored.
    pub fn attach(&mut self, attached: bool) {
        let Some(device) = &self.device else { return };
        if let Err(error) = attach_queue(device, attached)
            && error.kind() != io::ErrorKind::InvalidInput
        {
            self.note(format!("the device's queue is unchanged (TUNSETQUEUE: {error})"));
        }
    }

    /// Enables all offloads the kernel has; whether UDP is one, or `None`.
    fn set_offload(&mut self, device: &OwnedFd) -> Option<bool> {
        if set_offload(device, Offload::TcpAndUdp).is_ok() {
            return Some(true);
        }
        match set_offload(device, Offload::Tcp) {
            Ok(()) => {
                self.note("the kernel segments and coalesces TCP only (UDP needs Linux 6.2)".into());
                Some(false)
            }
            Err(error) => {
                self.note(format!(
                    "the device takes no coalesced frames (TUNSETOFFLOAD: {error}); each is written alone"
                ));
                None
            }
        }
    }

    /// Writes the frames joined so far, and hands over other lanes' datagrams.
    pub fn flush_frames(&mut self) {
        let lost = self.lanes.flush();
        self.drops.add(DropReason::QueueFull, lost);
        let Some(mut coalescer) = self.coalescer.take() else { return };
        let mut works = true;
        coalescer.flush(&mut |virtio, frame| works &= self.write(virtio, frame));
        self.keep(coalescer, works);
    }

    /// Keeps the coalescer, unless the device refused joined frames.
    fn keep(&mut self, coalescer: Coalescer, works: bool) {
        self.coalescer = works.then_some(coalescer);
    }

    /// Writes a frame or super-frame. Returns false if the device refuses joined frames.
    fn write(&mut self, virtio: Virtio, frame: &[u8]) -> bool {
        let Some(device) = self.writer.as_ref().or(self.device.as_ref()) else { return true };
        let error = match write(device, virtio, frame) {
            Ok(_) => return true,
            Err(error) => error,
        };
        if virtio == Virtio::PLAIN || !matches!(error, Errno::INVAL | Errno::IO | Errno::OPNOTSUPP) {
            self.drops.drop(if error == Errno::INVAL {
                DropReason::Malformed
            } else {
                DropReason::QueueFull
            });
            return true;
        }
        let mut passed = true;
        let drops = &mut self.drops;
        let cut = gso::split(virtio, &mut frame.to_vec(), self.layer, |head, tail| {
            if write(device, Virtio::PLAIN, &[head, tail].concat()).is_err() {
                drops.drop(DropReason::QueueFull);
                passed = false;
            }
        });
        // A device that is down refuses any frame.
        if passed && cut.is_ok() {
            self.note(format!("the device rejects coalesced frames ({error}); each is written alone"));
        }
        !passed
    }

    /// Sends datagrams on a stream.
    fn send_stream(&mut self, transmit: Transmit<'_>) {
        let to = transmit.to.remote;
        match self.streams.send(Instant::now(), transmit) {
            Sent::Yes => {}
            Sent::Full => self.drops.add(DropReason::QueueFull, transmit.count() as u64),
            // A full queue is harmless: what waits expires, and the next one asks again.
            Sent::Connect => _ = self.engine.try_send(FromWorker::StreamWanted { to }),
        }
    }

    /// The lane's own socket if the path starts there, else the front, which reaches the peer as well.
    fn socket_for(&self, to: Path) -> &D {
        self.own.as_ref().filter(|_| to.own_port).unwrap_or(&self.socket)
    }

    /// Sends one datagram of frames.
    fn send(&mut self, datagram: &[u8], class: u8, to: Path) -> bool {
        match self.try_send(datagram, class, to) {
            Ok(()) => true,
            Err(error) => {
                self.count_failure(error, to, 1);
                false
            }
        }
    }

    fn try_send(&mut self, datagram: &[u8], class: u8, to: Path) -> io::Result<()> {
        match self.socket_for(to).send(Transmit::one(datagram, class, to)) {
            Ok(()) => {
                self.handle_sent(to.remote);
                Ok(())
            }
            Err(error) if to.local.is_some() && is_source_lost(&error) => {
                // A full queue is harmless: the next datagram reports it again.
                self.notice(Notice::SourceLost { path: to });
                self.try_send(datagram, class, to.remote.into())
            }
            Err(error) => Err(error),
        }
    }

    fn count_failure(&mut self, error: io::Error, to: Path, datagrams: u64) {
        let reason = match Errno::from_io_error(&error).unwrap_or(Errno::IO) {
            Errno::MSGSIZE => DropReason::TooBig,
            Errno::AGAIN | Errno::NOBUFS => DropReason::QueueFull,
            _ => DropReason::NoPeer,
        };
        self.drops.add(reason, datagrams);
        match reason {
            DropReason::QueueFull => {}
            // The link probes what size passes.
            DropReason::TooBig => self.report_send_error(Instant::now(), Notice::TooLong),
            _ => self.tell_failure(to.remote, error),
        }
    }

    /// Reports an ICMP error, rate-limited, since anyone can send ICMP.
    pub fn report_send_error(&mut self, now: Instant, notice: Notice) {
        let last = &mut self.complained_at[usize::from(notice == Notice::TooLong)];
        if last.is_none_or(|at| now.saturating_duration_since(at) >= COMPLAINTS)
            && self.engine.try_send(FromWorker::Notice(notice)).is_ok()
        {
            *last = Some(now);
        }
    }

    /// Reports a failure to send, rate-limited, since a stranger can cause replies that fail.
    fn tell_failure(&mut self, to: SocketAddr, error: io::Error) {
        let now = Instant::now();
        if self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= FAILURES)
            && self.engine.try_send(FromWorker::SendFailed { to, error }).is_ok()
        {
            self.failed_at = Some(now);
            self.failed_to = Some(to);
        }
    }

    /// A send to this address succeeded again.
    fn handle_sent(&mut self, to: SocketAddr) {
        if self.failed_to.is_some_and(|failed| failed == to)
            && self.engine.try_send(FromWorker::SentAgain { to }).is_ok()
        {
            self.failed_to = None;
        }
    }

    /// Logs a line once: each is about something given up for good.
    fn note(&mut self, text: String) {
        // The link works without the line.
        let _ = self.engine.try_send(FromWorker::Note(text));
    }
}

fn write(device: impl AsFd, virtio: Virtio, frame: &[u8]) -> rustix::io::Result<usize> {
    rustix::io::writev(device, &[IoSlice::new(&virtio.emit()), IoSlice::new(frame)])
}

/// Whether the socket's buffer or a kernel queue is full.
fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AGAIN | Errno::NOBUFS))
}

impl<D: Datagrams> Sink for LaneIo<D> {
    fn frame(&mut self, frame: &[u8]) {
        if self.device.is_none() {
            if self.waiting.len() < WAITING {
                self.waiting.push_back(frame.to_vec());
            } else {
                self.drops.drop(DropReason::QueueFull);
            }
            return;
        }
        let Some(mut coalescer) = self.coalescer.take() else {
            self.write(Virtio::PLAIN, frame);
            return;
        };
        let mut works = true;
        coalescer.push(frame, &mut |virtio, frame| works &= self.write(virtio, frame));
        if !works {
            coalescer.flush(&mut |virtio, frame| {
                self.write(virtio, frame);
            });
        }
        self.keep(coalescer, works);
    }

    fn datagram(&mut self, datagram: &[u8], to: Path) {
        if to.stream {
            return self.send_stream(Transmit::one(datagram, 0, to));
        }
        match self.try_send(datagram, 0, to) {
            // This was a path MTU probe; no frame is lost.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => {
                self.report_send_error(Instant::now(), Notice::TooLong);
            }
            Err(error) => self.count_failure(error, to, 1),
            Ok(()) => {}
        }
    }

    fn transmit(&mut self, transmit: Transmit<'_>) {
        let Transmit { bytes, stride, class, to } = transmit;
        if to.stream {
            return self.send_stream(transmit);
        }
        let mut refused = None;
        if self.cuts && transmit.count() > 1 {
            match self.socket_for(to).send(transmit) {
                Ok(()) => return self.handle_sent(to.remote),
                Err(error) if is_full(&error) => {
                    return self.count_failure(error, to, transmit.count() as u64);
                }
                Err(error) => refused = Some(error).filter(is_refusal),
            }
        }
        let mut passed = true;
        for datagram in bytes.chunks(stride.max(1)) {
            passed &= self.send(datagram, class, to);
        }
        if let (Some(error), true) = (refused, passed) {
            self.cuts = false;
            self.note(format!(
                "the kernel cannot segment datagrams (UDP_SEGMENT: {error}); each is sent alone"
            ));
        }
    }

    fn stray(&mut self, lane: u8, datagram: &[u8], from: Path, ecn: u8) -> bool {
        let lost = self.lanes.push(lane, datagram, from, ecn);
        self.drops.add(DropReason::QueueFull, lost.unwrap_or(0));
        lost.is_some()
    }

    fn notice(&mut self, notice: Notice) -> bool {
        if notice.is_unproven() {
            return self.unproven.try_send(notice).is_ok();
        }
        self.engine.try_send(FromWorker::Notice(notice)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::BorrowedFd;

    use tokio::sync::mpsc::{self, Receiver};

    use super::*;
    use crate::transport::Received;

    /// A socket whose next call to send fails.
    struct Failing {
        socket: OwnedFd,
        next: Cell<Option<Errno>>,
        sent: Cell<usize>,
    }

    impl AsFd for Failing {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.socket.as_fd()
        }
    }

    impl Datagrams for Failing {
        fn try_clone(&self) -> io::Result<Self> {
            Err(Errno::NOTSUP.into())
        }

        fn enable_gro(&self, _: bool) -> io::Result<()> {
            Ok(())
        }

        fn waiting(&self) -> usize {
            0
        }

        fn receive(&self, _: &mut [u8]) -> io::Result<Received> {
            Err(Errno::AGAIN.into())
        }

        fn send(&self, transmit: Transmit<'_>) -> io::Result<()> {
            self.sent.set(self.sent.get() + transmit.count());
            self.next.take().map_or(Ok(()), |error| Err(error.into()))
        }

        fn peer(&self) -> Option<SocketAddr> {
            None
        }

        fn receive_error(&self) -> io::Result<(SocketAddr, io::Error)> {
            Err(Errno::AGAIN.into())
        }
    }

    fn io() -> (LaneIo<Failing>, Receiver<FromWorker>) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().into();
        let socket = Failing { socket, next: Cell::new(None), sent: Cell::new(0) };
        let (engine, told) = mpsc::channel(8);
        let channels = (engine, mpsc::channel(8).0);
        (LaneIo::new(socket, Layer::Ip, true, channels, Streams::new(None).unwrap()), told)
    }

    #[test]
    fn only_what_the_kernel_alone_says_ends_the_cutting_of_datagrams() {
        let to = SocketAddr::from(([192, 0, 2, 1], 7)).into();
        let train = Transmit { bytes: &[0; 250], stride: 100, class: 0, to };
        for (error, ends) in [
            (Errno::CONNREFUSED, false),
            (Errno::HOSTUNREACH, false),
            (Errno::NETUNREACH, false),
            (Errno::HOSTDOWN, false),
            (Errno::NONET, false),
            (Errno::NOPROTOOPT, false),
            (Errno::OPNOTSUPP, false),
            (Errno::PROTO, false),
            (Errno::ACCESS, false),
            (Errno::MSGSIZE, false),
            (Errno::IO, true),
            (Errno::INVAL, true),
            (Errno::PERM, true),
        ] {
            let (mut io, mut told) = io();
            io.socket.next.set(Some(error));
            io.transmit(train);
            assert_eq!(io.socket.sent.take(), 6, "all at once, then each alone: {error}");
            assert_eq!(io.cuts, !ends, "{error}");
            let notes = std::iter::from_fn(|| told.try_recv().ok());
            assert_eq!(notes.filter(|note| matches!(note, FromWorker::Note(_))).count(), usize::from(ends));
            assert_eq!(io.drops.drops(DropReason::NoPeer), 0, "{error}");
        }
    }
}
