//! The engine's handle to the threads of a lane.

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use super::{Direction, TURN_TIME};
use crate::core::bulk::Command;
use crate::core::path::Path;
use crate::transport::Datagrams;

/// Messages from the engine to a thread of a lane.
pub(super) enum ToWorker<D> {
    /// A command for the thread's half of the lane.
    Lane(Command),
    /// A frame of this end's own, sent like those of the device.
    Frame(Vec<u8>),
    /// The device, if it was opened after the start.
    Device(OwnedFd),
    /// The peer's own socket from now on, if any; whether it has its own port.
    Connected(Option<D>, bool),
    /// The socket on the lane's own port, if any.
    Own(Option<D>),
    /// Whether the device gives frames to this lane.
    Attach(bool),
    /// The socket that accepts streams.
    Listen(OwnedFd),
    /// A requested connection; `None`: there is none.
    Stream(Path, Option<OwnedFd>),
    /// Answer with [`FromWorker::Report`](super::FromWorker::Report).
    Report,
    /// Reply once everything sent before is carried out.
    Settle(mpsc::Sender<()>),
    /// End after everything sent before.
    Quit,
}

/// Handle to the workers of a link's lanes. Messages to a thread that ended are dropped; its end is noticed elsewhere.
pub struct Handle<D> {
    pub(super) threads: Vec<Thread<D>>,
}

pub(super) struct Thread<D> {
    /// The lane it serves.
    pub lane: u8,
    /// Its direction.
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
    /// The number of threads.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Queues a decision of the link for the threads and lanes that it concerns.
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

    /// Gives the thread that receives for a lane a socket for the peer's datagrams, or takes it away. If that has its own port (`own_port`), any
    /// thread of the lane sends from it on such a path.
    pub fn connected(&self, lane: u8, socket: Option<D>, own_port: bool)
    where
        D: Datagrams,
    {
        let own = socket.as_ref().filter(|_| own_port).and_then(|socket| socket.try_clone().ok());
        self.send(lane, Direction::Outward, ToWorker::Own(own));
        self.send(lane, Direction::Inward, ToWorker::Connected(socket, own_port));
    }

    /// Sets how many lanes take frames from the device.
    pub fn lanes(&self, used: u8) {
        let others = self.threads.iter().filter(|thread| thread.lane > 0);
        for thread in others.filter(|thread| thread.serves(Direction::Outward)) {
            thread.send(ToWorker::Attach(thread.lane < used));
        }
    }

    /// Accepts streams on `listener`.
    pub fn listen(&self, listener: OwnedFd) {
        self.send(0, Direction::Inward, ToWorker::Listen(listener));
    }

    /// Answers [`FromWorker::StreamWanted`](super::FromWorker::StreamWanted), with a connection if there is one.
    pub fn stream(&self, path: Path, connection: Option<OwnedFd>) {
        self.send(0, Direction::Inward, ToWorker::Stream(path, connection));
    }

    fn send(&self, lane: u8, half: Direction, message: ToWorker<D>) {
        let mut threads = self.threads.iter();
        if let Some(thread) = threads.find(|thread| thread.lane == lane && thread.serves(half)) {
            thread.send(message);
        }
    }

    /// Gives the device, opened after the start, to every thread.
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

    /// Ends every thread, after it has carried out earlier messages and reported.
    pub fn quit(&self) {
        self.threads.iter().for_each(|thread| thread.send(ToWorker::Quit));
    }

    /// Waits until every thread has carried out earlier messages: one turn of its loop, at most a second.
    pub fn settle(&self) {
        let (sender, done) = mpsc::channel();
        self.threads.iter().for_each(|thread| thread.send(ToWorker::Settle(sender.clone())));
        // A thread that ended or hangs is noticed elsewhere.
        drop(sender);
        let _ = self.threads.iter().try_for_each(|_| done.recv_timeout(TURN_TIME));
    }
}
