//! One end of the socketpair between two processes of tund: typed messages of bounded size, with descriptors where the message says so. Messages may
//! hold keys, so their bytes are on the heap, whose allocator overwrites freed memory.

use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::message::{MAX_MESSAGE, ToEngine, ToParent};
use crate::config::MAX_LANES;
use crate::sys::ready;

/// Most descriptors of a message: the socket and a queue for each lane.
const MAX_DESCRIPTORS: usize = 1 + 2 * MAX_LANES as usize;

/// What may cross a [`Channel`].
pub trait Message: Serialize + DeserializeOwned {
    /// The number of descriptors that travel with this message.
    fn descriptors(&self) -> RangeInclusive<usize> {
        0..=0
    }
}

impl Message for ToParent {}

impl Message for ToEngine {
    fn descriptors(&self) -> RangeInclusive<usize> {
        match self {
            ToEngine::Start(_) => 1..=MAX_DESCRIPTORS,
            ToEngine::Sources | ToEngine::Device | ToEngine::Connected { .. } | ToEngine::Listen => 1..=1,
            ToEngine::Stream { .. } => 0..=1,
            ToEngine::Kept(_)
            | ToEngine::Resolved { .. }
            | ToEngine::Route { .. }
            | ToEngine::Moved(_)
            | ToEngine::Taken { .. }
            | ToEngine::Announce { .. }
            | ToEngine::Resumed
            | ToEngine::Report
            | ToEngine::Settings(_)
            | ToEngine::Rekey
            | ToEngine::Reconnect
            | ToEngine::Stop => 0..=0,
        }
    }
}

/// One end: sends `S`, receives `R`. The descriptor's mode decides whether calls block.
#[derive(Debug)]
pub struct Channel<S, R> {
    fd: OwnedFd,
    messages: PhantomData<fn(S) -> R>,
}

impl<S: Message, R: Message> Channel<S, R> {
    /// Makes a connected pair: this process's end, which never blocks, and the blocking descriptor for the other process. Both are close-on-exec.
    /// Errors are those of socketpair(2).
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let channel = Self::from_fd(ours);
        channel.set_nonblocking(true)?;
        Ok((channel, theirs))
    }

    /// Wraps an inherited or received descriptor.
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self { fd, messages: PhantomData }
    }

    /// Makes calls return `WouldBlock` instead of waiting, or not. Errors are those of ioctl(2).
    pub fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        Ok(rustix::io::ioctl_fionbio(&self.fd, nonblocking)?)
    }

    /// Sends one message and the descriptors it documents. `InvalidInput`: too long, or a wrong number of descriptors; `WouldBlock`: the other end
    /// does not read; otherwise the errors of sendmsg(2).
    pub fn send(&self, message: &S, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if !message.descriptors().contains(&descriptors.len()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "wrong number of descriptors"));
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        let bytes = postcard::to_slice(message, &mut buffer)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "message too long"))?;
        self.transmit(bytes, descriptors)
    }

    /// The same without descriptors, on a non-blocking end: waits for room, at most `limit`.
    pub fn send_within(&self, message: &S, limit: Duration) -> io::Result<()> {
        match self.send(message, &[]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        ready(self, PollFlags::OUT, limit)?;
        self.send(message, &[])
    }

    fn transmit(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
        }
        let slices = [IoSlice::new(bytes)];
        retry_on_intr(|| rustix::net::sendmsg(&self.fd, &slices, &mut control, SendFlags::NOSIGNAL))?;
        Ok(())
    }

    /// Receives one message and its descriptors (close-on-exec); `None` if the other end is closed. `InvalidData`: malformed, too long, or with the
    /// wrong descriptors, all of which are closed; `WouldBlock`: nothing there; otherwise the errors of recvmsg(2).
    pub fn receive(&self) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
        self.accept(&mut vec![0; MAX_MESSAGE])
    }

    fn accept(&self, buffer: &mut [u8]) -> io::Result<Option<(R, Vec<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = retry_on_intr(|| {
            rustix::net::recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(buffer)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            )
        });
        let received = match received {
            // Reported once, if the other end closed with messages unread; its earlier messages follow.
            Err(Errno::CONNRESET) => return self.accept(buffer),
            other => other?,
        };
        let descriptors = drain(&mut control);
        if received.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(malformed());
        }
        if received.bytes == 0 {
            return Ok(None);
        }
        let bytes = buffer.get(..received.bytes).ok_or_else(malformed)?;
        let (message, rest) = postcard::take_from_bytes::<R>(bytes).map_err(|_| malformed())?;
        if !rest.is_empty() || !message.descriptors().contains(&descriptors.len()) {
            return Err(malformed());
        }
        Ok(Some((message, descriptors)))
    }
}

impl<S, R> AsFd for Channel<S, R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<S, R> std::os::fd::AsRawFd for Channel<S, R> {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}

fn drain(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    descriptors
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "malformed message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::without_blocking;
    use std::fs::File;
    use std::io::{Read, Write};

    type Parent = Channel<ToEngine, ToParent>;
    type Engine = Channel<ToParent, ToEngine>;

    fn pair() -> (Parent, Engine) {
        let (parent, fd) = Parent::pair().unwrap();
        (parent, Engine::from_fd(fd))
    }

    #[test]
    fn messages_cross_in_both_directions() {
        let (parent, engine) = pair();
        let question = ToParent::Endpoint("192.0.2.1:7".parse().unwrap());
        engine.send(&question, &[]).unwrap();
        assert_eq!(parent.receive().unwrap().unwrap().0, question);
        let answer = ToEngine::Resolved { addresses: vec!["192.0.2.1:7".parse().unwrap()] };
        parent.send(&answer, &[]).unwrap();
        assert_eq!(engine.receive().unwrap().unwrap().0, answer);
    }

    #[test]
    fn a_descriptor_arrives_usable_and_close_on_exec() {
        let (parent, engine) = pair();
        let (reader, mut writer) = std::io::pipe().unwrap();
        parent.send(&ToEngine::Device, &[reader.as_fd()]).unwrap();
        let (message, mut descriptors) = engine.receive().unwrap().unwrap();
        assert_eq!(message, ToEngine::Device);
        let fd = descriptors.pop().unwrap();
        assert!(rustix::io::fcntl_getfd(&fd).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        writer.write_all(b"x").unwrap();
        drop(writer);
        let mut text = String::new();
        File::from(fd).read_to_string(&mut text).unwrap();
        assert_eq!(text, "x");
    }

    #[test]
    fn a_wrong_number_of_descriptors_is_not_sent() {
        let (parent, _engine) = pair();
        let null = File::open("/dev/null").unwrap();
        let kind = |result: io::Result<()>| result.unwrap_err().kind();
        assert_eq!(kind(parent.send(&ToEngine::Stop, &[null.as_fd()])), io::ErrorKind::InvalidInput);
        assert_eq!(kind(parent.send(&ToEngine::Device, &[])), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn unexpected_descriptors_are_an_error_and_are_closed() {
        for count in [1, 2, MAX_DESCRIPTORS, MAX_DESCRIPTORS + 1] {
            let (parent, engine) = pair();
            let (reader, writer) = std::io::pipe().unwrap();
            send_raw(&engine, &encode(&ToParent::Resolve), &vec![writer.as_fd(); count]);
            drop(writer);
            assert_eq!(parent.receive().unwrap_err().kind(), io::ErrorKind::InvalidData, "{count}");
            // End of file comes only once every copy of the writing end is closed.
            let mut rest = Vec::new();
            (&reader).read_to_end(&mut rest).unwrap();
        }
    }

    #[test]
    fn malformed_bytes_are_an_error() {
        let mut trailing = encode(&ToParent::Resolve);
        trailing.push(0);
        let truncated = encode(&ToParent::Endpoint("192.0.2.1:7".parse().unwrap()));
        let truncated = truncated[..truncated.len() - 1].to_vec();
        let line = encode(&ToParent::Log { level: log::Level::Info, text: String::new() });
        let length_without_bytes = [&line[..line.len() - 1], &[0xff, 0xff, 0xff, 0x7f]].concat();
        for bytes in [trailing, truncated, length_without_bytes, vec![0xff], vec![0; MAX_MESSAGE + 1]] {
            let (parent, engine) = pair();
            send_raw(&engine, &bytes, &[]);
            assert_eq!(parent.receive().unwrap_err().kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_sent() {
        let (_parent, engine) = pair();
        let message = ToParent::Log { level: log::Level::Info, text: "x".repeat(MAX_MESSAGE) };
        assert_eq!(engine.send(&message, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_closed_peer_is_the_end() {
        let (parent, engine) = pair();
        parent.send(&ToEngine::Stop, &[]).unwrap();
        drop(engine);
        assert!(without_blocking(|| parent.receive()).unwrap().is_none());
    }

    #[test]
    fn what_was_sent_before_an_end_with_messages_unread_is_received() {
        let (parent, engine) = pair();
        parent.send(&ToEngine::Report, &[]).unwrap();
        engine.send(&ToParent::Resolve, &[]).unwrap();
        drop(engine);
        assert_eq!(parent.receive().unwrap().unwrap().0, ToParent::Resolve);
        assert!(without_blocking(|| parent.receive()).unwrap().is_none());
    }

    #[test]
    fn the_parents_end_never_blocks() {
        let (parent, _engine) = pair();
        assert_eq!(parent.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let full = (0..1_000_000).find_map(|_| parent.send(&ToEngine::Report, &[]).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn who_has_time_waits_for_room_and_not_for_ever() {
        let (parent, engine) = pair();
        engine.set_nonblocking(true).unwrap();
        let send = |limit| engine.send_within(&ToParent::Resolve, limit);
        let short = Duration::from_millis(1);
        let full = (0..1_000_000).find_map(|_| send(short).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| send(Duration::from_secs(60)));
            while parent.receive().is_ok() {}
            waiting.join().unwrap().unwrap();
        });
    }

    fn encode(message: &ToParent) -> Vec<u8> {
        postcard::to_stdvec(message).unwrap()
    }

    fn send_raw(engine: &Engine, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS + 1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(control.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        rustix::net::sendmsg(engine, &[IoSlice::new(bytes)], &mut control, SendFlags::empty()).unwrap();
    }
}
