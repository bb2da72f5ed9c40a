//! Making the workers of a link.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use tokio::sync::mpsc::Sender;

use super::handle::{Handle, Thread, ToWorker};
use super::receive::Rest;
use super::{Direction, FromWorker, LONGEST, Source, Worker};
use crate::config::DataPath;
use crate::core::bulk::{Bulk, Settings};
use crate::core::clock::ClockJumpDetector;
use crate::core::codel::Codel;
use crate::core::fair_queue::FairQueue;
use crate::core::lane::Notice;
use crate::engine::lane_io::LaneIo;
use crate::engine::strays::{self, Strays};
use crate::engine::streams::Streams;
use crate::transport::Datagrams;

/// Makes the workers of a link, one or two for each lane, which share a socket. `devices`: the device's queue for each lane and, with several lanes,
/// one for each to write to; empty if the device comes later.
///
/// # Errors
/// Those of epoll_create1(2), epoll_ctl(2), eventfd(2) and dup(2).
pub fn workers<D: Datagrams>(
    settings: &Settings,
    data_path: DataPath,
    lanes: u8,
    socket: D,
    devices: Vec<OwnedFd>,
    channels: (Sender<FromWorker>, Sender<Notice>),
) -> io::Result<(Vec<Worker<D>>, Handle<D>)> {
    let duties: &[Direction] =
        if data_path.threads == 1 { &[Direction::Both] } else { &[Direction::Outward, Direction::Inward] };
    let (mut places, mut threads, mut others) = (Vec::new(), Vec::new(), strays::Lanes::new());
    for lane in 0..lanes {
        for duty in duties {
            let (sender, orders) = mpsc::channel();
            let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            threads.push(Thread { lane, duty: *duty, sender, wake: wake.try_clone()? });
            let takes_strays = *duty != Direction::Outward && lanes > 1;
            let strays = takes_strays.then(|| others.add(&wake)).transpose()?;
            places.push(Place { lane, duty: *duty, orders, strays, wake });
        }
    }
    let mut workers = Vec::new();
    for place in places {
        let settings = settings.of_lane(place.lane);
        let streams = Streams::new(settings.keys())?;
        let socket = socket.try_clone()?;
        let mut port = LaneIo::new(socket, settings.layer(), data_path.offload, channels.clone(), streams);
        port.lanes = others.try_clone()?;
        port.writer =
            devices.get(usize::from(lanes) + usize::from(place.lane)).map(OwnedFd::try_clone).transpose()?;
        let device = devices.get(usize::from(place.lane)).map(OwnedFd::try_clone).transpose()?;
        workers.push(Worker::new(workers.len(), place, &settings, data_path, port, device)?);
    }
    Ok((workers, Handle { threads }))
}

/// A worker's lane, duty and channels.
struct Place<D> {
    lane: u8,
    duty: Direction,
    orders: mpsc::Receiver<ToWorker<D>>,
    strays: Option<mpsc::Receiver<Strays>>,
    wake: OwnedFd,
}

impl<D: Datagrams> Worker<D> {
    fn new(
        number: usize,
        place: Place<D>,
        settings: &Settings,
        data_path: DataPath,
        port: LaneIo<D>,
        device: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let Place { lane, duty, orders, strays, wake } = place;
        let mut worker = Self {
            number,
            place: lane,
            duty,
            has_front: lane == 0 && duty != Direction::Outward,
            lane: Bulk::new(settings),
            layer: settings.layer(),
            watch: ClockJumpDetector::default(),
            resumed: false,
            port,
            connected: None,
            has_own_port: false,
            rest: Rest::default(),
            strangers_rest: Rest::default(),
            listens_to_device: true,
            orders,
            strays,
            wake,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            busy_poll: Duration::from_micros(data_path.busy_poll.into()),
            queue: FairQueue::new(LONGEST),
            crowd: Codel::passing(),
            held: Codel::held(),
            codel: Codel::passing(),
            arrival: vec![0; LONGEST],
            is_active: false,
            told_active: false,
        };
        worker.watch(&worker.wake, Source::Wake)?;
        if worker.has_front {
            worker.port.enable_gro();
            worker.watch(&worker.port.socket, Source::Front)?;
            let [known, strangers] = &worker.port.streams.epolls;
            worker.watch(known, Source::Streams)?;
            worker.watch(strangers, Source::Strangers)?;
        }
        if let Some(device) = device {
            worker.take_device(device)?;
        }
        Ok(worker)
    }
}
