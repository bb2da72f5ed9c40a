//! How the engine talks to the threads of a lane.

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use super::{Direction, TURN_TIME};
use crate::core::bulk::Command;
use crate::core::path::Path;
use crate::transport::Datagrams;

/// From the engine to a thread of a lane.
pub(super) enum ToWorker<D> {
    /// For the half of the lane that the thread serves.
    Lane(Command),
    /// A frame of this end's own, which goes as those of the device.
    Frame(Vec<u8>),
    /// The device, if it was not there at the start.
    Device(OwnedFd),
    /// What the peer's datagrams come to from now on, if not to the front; whether it has a port of its own.
    Connected(Option<D>, bool),
    /// What has the lane's own port, if it has one.
    Own(Option<D>),
    /// Whether the device gives frames to this lane.
    Attach(bool),
    /// Where streams are accepted.
    Listen(OwnedFd),
    /// A connection that was asked for, or that there is none.
    Stream(Path, Option<OwnedFd>),
    /// Answer with [`FromWorker::Report`](super::FromWorker::Report).
    Report,
    /// Say so when everything sent before is carried out.
    Settle(mpsc::Sender<()>),
    /// End after everything sent before.
    Quit,
}

/// Talks to the workers of a link's lanes. A thread that ended takes nothing more; its end is seen elsewhere.
pub struct Handle<D> {
    pub(super) threads: Vec<Thread<D>>,
}

pub(super) struct Thread<D> {
    /// The lane that it serves.
    pub lane: u8,
    /// What it does.
    pub duty: Direction,
    /// Where its messages go.
    pub sender: mpsc::Sender<ToWorker<D>>,
    /// The eventfd that wakes it.
    pub wake: OwnedFd,
}

impl<D> Thread<D> {
    /// Whether it serves that half of its lane.
    fn serves(&self, half: Direction) -> bool {
        [Direction::Both, half].contains(&self.duty)
    }

    /// Queues a message and wakes the thread.
    fn send(&self, message: ToWorker<D>) {
        if self.sender.send(message).is_ok() {
            // A full counter (EAGAIN) means that it is awake already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl<D> Handle<D> {
    /// How many threads there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Queues what the link decided for the threads that serve that half of the lanes it is for.
    pub fn command(&self, command: Command) {
        let half = if command.is_outward() { Direction::Outward } else { Direction::Inward };
        let Some(lane) = command.lane() else {
            let threads = self.threads.iter().filter(|thread| thread.serves(half));
            return threads.for_each(|thread| thread.send(ToWorker::Lane(command.clone())));
        };
        self.send(lane, half, ToWorker::Lane(command));
    }

    /// Sends a frame of this end's own.
    pub fn frame(&self, frame: Vec<u8>) {
        self.send(0, Direction::Outward, ToWorker::Frame(frame));
    }

    /// Gives the thread that receives for a lane a socket for what comes from the peer, or takes it away. If that has a port of its own
    /// (`own_port`), the lane's datagrams along such a path are sent from it, by whichever thread sends them.
    pub fn connected(&self, lane: u8, socket: Option<D>, own_port: bool)
    where
        D: Datagrams,
    {
        let own = socket.as_ref().filter(|_| own_port).and_then(|socket| socket.try_clone().ok());
        self.send(lane, Direction::Outward, ToWorker::Own(own));
        self.send(lane, Direction::Inward, ToWorker::Connected(socket, own_port));
    }

    /// So many lanes take frames of the device.
    pub fn lanes(&self, used: u8) {
        let others = self.threads.iter().filter(|thread| thread.lane > 0);
        for thread in others.filter(|thread| thread.serves(Direction::Outward)) {
            thread.send(ToWorker::Attach(thread.lane < used));
        }
    }

    /// Streams are accepted here.
    pub fn listen(&self, listener: OwnedFd) {
        self.send(0, Direction::Inward, ToWorker::Listen(listener));
    }

    /// Gives the connection that [`FromWorker::StreamWanted`](super::FromWorker::StreamWanted) asked for, if there is one.
    pub fn stream(&self, path: Path, connection: Option<OwnedFd>) {
        self.send(0, Direction::Inward, ToWorker::Stream(path, connection));
    }

    fn send(&self, lane: u8, half: Direction, message: ToWorker<D>) {
        let mut threads = self.threads.iter();
        if let Some(thread) = threads.find(|thread| thread.lane == lane && thread.serves(half)) {
            thread.send(message);
        }
    }

    /// Gives every thread the device, which was not there at the start.
    pub fn device(&self, device: &OwnedFd) {
        for thread in &self.threads {
            if let Ok(device) = device.try_clone() {
                thread.send(ToWorker::Device(device));
            }
        }
    }

    /// Asks every thread for a [`FromWorker::Report`](super::FromWorker::Report).
    pub fn report(&self) {
        self.threads.iter().for_each(|thread| thread.send(ToWorker::Report));
    }

    /// Every thread ends after it has carried out what was sent before, and reported.
    pub fn quit(&self) {
        self.threads.iter().for_each(|thread| thread.send(ToWorker::Quit));
    }

    /// Waits until every thread has carried out what was sent before: a turn of its loop, a second at most.
    pub fn settle(&self) {
        let (sender, done) = mpsc::channel();
        self.threads.iter().for_each(|thread| thread.send(ToWorker::Settle(sender.clone())));
        // One that ended, or hangs, is seen elsewhere.
        drop(sender);
        let _ = self.threads.iter().try_for_each(|_| done.recv_timeout(TURN_TIME));
    }
}
