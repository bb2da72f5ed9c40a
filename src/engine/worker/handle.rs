//! How the engine talks to the threads of a lane.

use std::os::fd::OwnedFd;
use std::sync::mpsc;

use super::{Direction, TURN_TIME};
use crate::core::bulk::Command;
use crate::core::path::Path;

/// From the engine to a thread of a lane.
pub(super) enum ToWorker<D> {
    /// For the half of the lane that the thread serves.
    Lane(Command),
    /// A frame of this end's own, which goes as those of the device.
    Frame(Vec<u8>),
    /// The device, if it was not there at the start.
    Device(OwnedFd),
    /// What the peer's datagrams come to from now on, if not to the front.
    Connected(Option<D>),
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

/// Talks to the workers of a lane. A thread that ended takes nothing more; its end is seen elsewhere.
pub struct Handle<D> {
    pub(super) threads: Vec<Thread<D>>,
}

pub(super) struct Thread<D> {
    /// What it does.
    pub duty: Direction,
    /// Where its messages go.
    pub sender: mpsc::Sender<ToWorker<D>>,
    /// The eventfd that wakes it.
    pub wake: OwnedFd,
}

impl<D> Thread<D> {
    /// Queues a message and wakes the thread.
    fn send(&self, message: ToWorker<D>) {
        if self.sender.send(message).is_ok() {
            // A full counter (EAGAIN) means that it is awake already.
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        }
    }
}

impl<D> Handle<D> {
    /// Queues what the link decided for the thread that serves that half of the lane.
    pub fn command(&self, command: Command) {
        let half = if command.is_outward() { Direction::Outward } else { Direction::Inward };
        self.send(half, ToWorker::Lane(command));
    }

    /// Sends a frame of this end's own.
    pub fn frame(&self, frame: Vec<u8>) {
        self.send(Direction::Outward, ToWorker::Frame(frame));
    }

    /// Gives the thread that receives a socket for what comes from the peer, or takes it away.
    pub fn connected(&self, socket: Option<D>) {
        self.send(Direction::Inward, ToWorker::Connected(socket));
    }

    /// Streams are accepted here.
    pub fn listen(&self, listener: OwnedFd) {
        self.send(Direction::Inward, ToWorker::Listen(listener));
    }

    /// Gives the connection that [`FromWorker::StreamWanted`](super::FromWorker::StreamWanted) asked for, if there is one.
    pub fn stream(&self, path: Path, connection: Option<OwnedFd>) {
        self.send(Direction::Inward, ToWorker::Stream(path, connection));
    }

    fn send(&self, half: Direction, message: ToWorker<D>) {
        let mut threads = self.threads.iter();
        if let Some(thread) = threads.find(|thread| [Direction::Both, half].contains(&thread.duty)) {
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
