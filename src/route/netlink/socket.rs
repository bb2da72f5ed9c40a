//! Requests and answers on one netlink socket. Knows nothing of links, addresses or routes.

use std::io;
use std::iter::Peekable;
use std::os::fd::OwnedFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_ALIGNTO, NLMSG_DONE, NLMSG_ERROR,
    NLMSG_NOOP, NLMSG_OVERRUN, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, sendto, socket_with,
};
use rustix::thread::CapabilitySet;

use crate::sys::{self, rights};

/// The kernel never sends larger parts of a dump than the largest read so far, up to 32 KiB.
const BUFFER: usize = 64 * 1024;
/// The kernel answers at once; this only keeps a fault from becoming a hang.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a dump is restarted because the table changed meanwhile. The pauses double from a millisecond; they total half a second.
const DUMP_PAUSES: u32 = 9;
/// Requests sent together. Even if all are refused, the answers fit into the socket's buffer (`rmem_default` is 208 KiB, and each takes about 1 KiB
/// of it).
const BATCH: usize = 128;
/// Bytes between the code and the attributes of an error: the request's header.
const ECHOED_HEADER: usize = 16;
/// `NLMSGERR_ATTR_MSG`: the extended acknowledgement's text.
const ERROR_TEXT: u16 = 1;

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The kernel refused.
    Refused {
        /// Its reason.
        errno: Errno,
        /// The reason as text, if any.
        text: Option<String>,
    },
    /// The socket failed, or the answer made no sense.
    Broken(io::Error),
}

impl Failure {
    pub(super) fn errno(&self) -> Option<Errno> {
        match self {
            Failure::Refused { errno, text: _ } => Some(*errno),
            Failure::Broken(_) => None,
        }
    }

    /// Converts this to an error, prefixed with `what` was done.
    pub(super) fn while_doing(self, what: &dyn std::fmt::Display) -> io::Error {
        let remedy = match &self {
            Failure::Refused { errno, text } => remedy(*errno, text.as_deref()),
            Failure::Broken(_) => String::new(),
        };
        let error = io::Error::from(self);
        io::Error::new(error.kind(), format!("{what}: {error}{remedy}"))
    }
}

/// The remedy for a refused change; empty if the answer says it all.
fn remedy(errno: Errno, text: Option<&str>) -> String {
    // The kernel's own words (net/ipv6/addrconf.c, net/ipv6/route.c); before Linux 6.0 it has none.
    let disabled = text.map_or(errno == Errno::ACCESS, |text| text.contains("IPv6 is disabled"));
    match errno {
        _ if disabled => {
            let why = if text.is_some() { "" } else { "IPv6 is disabled on the device: " };
            format!(
                "; {why}set the sysctl net.ipv6.conf.all.disable_ipv6 to 0 (a container: --sysctl \
                 net.ipv6.conf.all.disable_ipv6=0), or remove IPv6 addresses and routes"
            )
        }
        Errno::AFNOSUPPORT | Errno::OPNOTSUPP if !rights::has_ipv6() => {
            "; this kernel has no IPv6 (not built in, or started with ipv6.disable=1): remove IPv6 addresses and routes"
                .to_owned()
        }
        Errno::PERM if rights::has(CapabilitySet::NET_ADMIN) => {
            "; CAP_NET_ADMIN is held, but this network namespace belongs to another user namespace: give a rootless container \
             its own network"
                .to_owned()
        }
        Errno::PERM => format!("; it needs CAP_NET_ADMIN: {}", rights::how_to_give("NET_ADMIN")),
        _ => String::new(),
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused { errno, text: None } => errno.into(),
            Failure::Refused { errno, text: Some(text) } => {
                let error = io::Error::from(errno);
                io::Error::new(error.kind(), format!("{error}: {text}"))
            }
            Failure::Broken(error) => error,
        }
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Failure::Broken(errno.into())
    }
}

pub(super) struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A table dumped by the kernel.
#[derive(Debug)]
pub(super) struct Dump<T> {
    /// Its entries.
    pub entries: Vec<T>,
    /// False if it changed during every attempt: entries may be missing or duplicated.
    pub whole: bool,
}

/// The answer to one request so far.
struct Answer<T, F> {
    entries: Vec<T>,
    take: F,
    interrupted: bool,
    complete: bool,
}

impl Socket {
    pub(super) fn open() -> io::Result<Self> {
        // NETLINK_ROUTE is protocol 0.
        let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        set_socket_timeout(&fd, Timeout::Recv, Some(PATIENCE))?;
        sys::netlink_explain_errors(&fd)?;
        // Without it, more is read than needed.
        let _ = sys::netlink_filter_dumps(&fd);
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends one request; returns the answer before its acknowledgement, if any.
    pub(super) fn request(
        &mut self,
        flags: u16,
        message: RouteNetlinkMessage,
    ) -> Result<Option<RouteNetlinkMessage>, Failure> {
        self.send(flags | NLM_F_REQUEST | NLM_F_ACK, message)?;
        Ok(self.collect(Some)?.entries.pop())
    }

    /// Sends many independent requests; returns the result of each. A refused one does not stop the others.
    pub(super) fn requests(
        &mut self,
        flags: u16,
        messages: impl IntoIterator<Item = RouteNetlinkMessage>,
    ) -> Vec<Result<(), Failure>> {
        let mut messages = messages.into_iter().peekable();
        let mut outcomes = Vec::new();
        while messages.peek().is_some() {
            let mut batch = Batch::new(self.sequence.wrapping_add(1));
            batch.fill(flags, &mut messages);
            self.sequence = self.sequence.wrapping_add(batch.outcomes.len() as u32);
            match self.exchange(&mut batch) {
                Ok(()) => outcomes.append(&mut batch.outcomes),
                Err(failure) => {
                    let error = io::Error::from(failure);
                    let again = || Err(Failure::Broken(io::Error::new(error.kind(), error.to_string())));
                    outcomes.extend(batch.outcomes.iter().map(|_| again()));
                    outcomes.extend(messages.map(|_| again()));
                    return outcomes;
                }
            }
        }
        outcomes
    }

    fn exchange(&mut self, batch: &mut Batch) -> Result<(), Failure> {
        sendto(&self.fd, &batch.bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        while !batch.complete {
            let length = self.receive()?;
            batch.take(&self.buffer[..length])?;
        }
        Ok(())
    }

    /// Dumps a whole table, and keeps what `take` makes of its entries. Entries of unknown form are skipped.
    #[allow(
        clippy::disallowed_methods,
        reason = "half a second at most, while the host's tables are not at rest"
    )]
    pub(super) fn dump<T>(
        &mut self,
        message: RouteNetlinkMessage,
        take: impl Fn(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Dump<T>, Failure> {
        let mut pauses = (0..DUMP_PAUSES).map(|doubled| Duration::from_millis(1 << doubled));
        loop {
            self.send(NLM_F_REQUEST | NLM_F_DUMP, message.clone())?;
            let Answer { entries, interrupted, .. } = self.collect(&take)?;
            if !interrupted {
                return Ok(Dump { entries, whole: true });
            }
            match pauses.next() {
                Some(pause) => std::thread::sleep(pause),
                None => return Ok(Dump { entries, whole: false }),
            }
        }
    }

    fn send(&mut self, flags: u16, message: RouteNetlinkMessage) -> Result<(), Failure> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        encode(&mut bytes, flags, self.sequence, message);
        sendto(&self.fd, &bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        Ok(())
    }

    fn collect<T, F: Fn(RouteNetlinkMessage) -> Option<T>>(
        &mut self,
        take: F,
    ) -> Result<Answer<T, F>, Failure> {
        let mut answer = Answer::new(take);
        while !answer.complete {
            let length = self.receive()?;
            answer.take(&self.buffer[..length], self.sequence)?;
        }
        Ok(answer)
    }

    /// Receives from the kernel only: any process may send to a netlink socket.
    fn receive(&mut self) -> Result<usize, Failure> {
        loop {
            match recvfrom(&self.fd, self.buffer.as_mut_slice(), RecvFlags::TRUNC) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let text = "the kernel did not answer a netlink request";
                    return Err(Failure::Broken(io::Error::new(io::ErrorKind::TimedOut, text)));
                }
                Err(errno) => return Err(errno.into()),
                Ok((_, length, _)) if length > BUFFER => return Err(malformed("an answer is too long")),
                Ok((_, length, from)) => {
                    let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
                    if from.is_some_and(|from| from.pid() == 0) {
                        return Ok(length);
                    }
                }
            }
        }
    }
}

/// Appends a message, aligned to four bytes.
fn encode(bytes: &mut Vec<u8>, flags: u16, sequence: u32, message: RouteNetlinkMessage) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
    message.finalize();
    let start = bytes.len().next_multiple_of(usize::from(NLMSG_ALIGNTO));
    bytes.resize(start + message.buffer_len(), 0);
    message.serialize(&mut bytes[start..]);
}

/// Requests sent together. The kernel carries them out in order before sendmsg(2) returns. It reports those that it refuses, and acknowledges only
/// the last.
struct Batch {
    bytes: Vec<u8>,
    /// Sequence number of the first; the others' follow.
    first: u32,
    outcomes: Vec<Result<(), Failure>>,
    complete: bool,
}

impl Batch {
    fn new(first: u32) -> Self {
        Self { bytes: Vec::new(), first, outcomes: Vec::new(), complete: false }
    }

    /// Takes as many of the messages as fit.
    fn fill(&mut self, flags: u16, messages: &mut Peekable<impl Iterator<Item = RouteNetlinkMessage>>) {
        while self.outcomes.len() < BATCH
            && let Some(message) = messages.next()
        {
            let is_last = self.outcomes.len() + 1 == BATCH || messages.peek().is_none();
            let flags = flags | NLM_F_REQUEST | if is_last { NLM_F_ACK } else { 0 };
            let sequence = self.first.wrapping_add(self.outcomes.len() as u32);
            encode(&mut self.bytes, flags, sequence, message);
            self.outcomes.push(Ok(()));
        }
    }

    /// Reads the kernel's messages in one datagram.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        each(bytes, |message, _| {
            let place = message.sequence_number().wrapping_sub(self.first) as usize;
            let last = self.outcomes.len().checked_sub(1) == Some(place);
            match (message.message_type(), self.outcomes.get_mut(place)) {
                (NLMSG_ERROR, Some(outcome)) => {
                    *outcome = verdict(message.payload(), ECHOED_HEADER);
                    self.complete |= last;
                    Ok(())
                }
                (NLMSG_OVERRUN, _) => Err(malformed("the kernel lost a part of an answer")),
                _ => Ok(()),
            }
        })
    }
}

impl<T, F: Fn(RouteNetlinkMessage) -> Option<T>> Answer<T, F> {
    fn new(take: F) -> Self {
        Self { entries: Vec::new(), take, interrupted: false, complete: false }
    }

    /// Reads the messages of one datagram. Others' sequence numbers are late answers to abandoned requests.
    fn take(&mut self, bytes: &[u8], sequence: u32) -> Result<(), Failure> {
        each(bytes, |message, whole| {
            if message.sequence_number() != sequence {
                return Ok(());
            }
            self.interrupted |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_NOOP => {}
                NLMSG_OVERRUN => return Err(malformed("the kernel lost a part of an answer")),
                NLMSG_ERROR => {
                    self.complete = true;
                    verdict(message.payload(), ECHOED_HEADER)?;
                }
                NLMSG_DONE => {
                    self.complete = true;
                    verdict(message.payload(), 0)?;
                }
                _ => self.entries.extend(parse(whole).and_then(&self.take)),
            }
            Ok(())
        })
    }
}

/// Calls `read` for each message of a datagram, with its header parsed and as a whole.
fn each(
    mut bytes: &[u8],
    mut read: impl FnMut(&NetlinkBuffer<&[u8]>, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    while !bytes.is_empty() {
        let message = NetlinkBuffer::new_checked(bytes).map_err(|error| malformed(&error.to_string()))?;
        let length = message.length() as usize;
        read(&message, &bytes[..length])?;
        bytes = bytes.get(length.next_multiple_of(usize::from(NLMSG_ALIGNTO))..).unwrap_or_default();
    }
    Ok(())
}

fn parse(whole: &[u8]) -> Option<RouteNetlinkMessage> {
    let NetlinkPayload::InnerMessage(message) = NetlinkMessage::deserialize(whole).ok()?.payload else {
        return None;
    };
    Some(message)
}

/// Reads an error code, zero or a negated errno, and the attributes `skip` bytes after it.
fn verdict(payload: &[u8], skip: usize) -> Result<(), Failure> {
    let Some((code, rest)) = payload.split_first_chunk() else {
        // Before Linux 2.6.22 the end of a dump had no code.
        return Ok(());
    };
    match i32::from_ne_bytes(*code) {
        0 => Ok(()),
        code => Err(Failure::Refused {
            errno: Errno::from_raw_os_error(code.wrapping_neg()),
            text: explanation(rest.get(skip..).unwrap_or_default()),
        }),
    }
}

fn explanation(attributes: &[u8]) -> Option<String> {
    let attribute =
        NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == ERROR_TEXT)?;
    let text = attribute.value().strip_suffix(&[0]).unwrap_or(attribute.value());
    Some(String::from_utf8_lossy(text).trim_end_matches('.').to_owned())
}

fn malformed(text: &str) -> Failure {
    Failure::Broken(io::Error::new(io::ErrorKind::InvalidData, format!("netlink: {text}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer<RouteNetlinkMessage, fn(RouteNetlinkMessage) -> Option<RouteNetlinkMessage>> {
        Answer::new(Some)
    }

    /// One message: length, type, flags, sequence number, port, payload.
    fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend((16 + payload.len() as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    fn refusal(errno: Errno, text: &str) -> Vec<u8> {
        let mut payload = (-errno.raw_os_error()).to_ne_bytes().to_vec();
        payload.extend([0; ECHOED_HEADER]);
        payload.extend((4 + text.len() as u16 + 1).to_ne_bytes());
        payload.extend(ERROR_TEXT.to_ne_bytes());
        payload.extend(text.as_bytes());
        payload.resize(payload.len().next_multiple_of(4) + 4 * usize::from(text.len() % 4 == 3), 0);
        payload
    }

    #[test]
    fn a_refusal_carries_the_kernels_own_words() {
        let bytes = message(NLMSG_ERROR, 0, 7, &refusal(Errno::NETUNREACH, "Nexthop has invalid gateway"));
        let failure = answer().take(&bytes, 7).unwrap_err();
        assert_eq!(failure.errno(), Some(Errno::NETUNREACH));
        let error = failure.while_doing(&"ip route add");
        assert_eq!(error.kind(), io::ErrorKind::NetworkUnreachable);
        let text = error.to_string();
        assert!(text.starts_with("ip route add: "), "{text}");
        assert!(text.ends_with(": Nexthop has invalid gateway"), "{text}");
    }

    #[test]
    fn disabled_ipv6_is_named_whether_the_kernel_says_so_or_is_too_old_to() {
        let new = Some("ipv6: IPv6 is disabled on this device");
        for text in [new, None] {
            assert!(remedy(Errno::ACCESS, text).contains("disable_ipv6 to 0"), "{text:?}");
        }
        assert_eq!(remedy(Errno::ACCESS, Some("something else")), "");
        assert!(remedy(Errno::PERM, None).contains("CAP_NET_ADMIN"));
    }

    #[test]
    fn an_answer_to_another_request_is_passed_over() {
        let mut answer = answer();
        answer.take(&message(NLMSG_ERROR, 0, 6, &refusal(Errno::EXIST, "late")), 7).unwrap();
        assert!(!answer.complete);
        answer.take(&message(NLMSG_DONE, 0, 7, &[0; 4]), 7).unwrap();
        assert!(answer.complete);
    }

    #[test]
    fn an_interrupted_dump_is_noticed_in_any_of_its_parts() {
        let mut answer = answer();
        let mut bytes = message(NLMSG_NOOP, NLM_F_DUMP_INTR, 7, &[]);
        bytes.extend(message(NLMSG_DONE, 0, 7, &[0; 4]));
        answer.take(&bytes, 7).unwrap();
        assert!(answer.complete && answer.interrupted);
    }

    #[test]
    fn a_length_beyond_the_datagram_is_an_error_not_a_panic() {
        let mut bytes = message(NLMSG_DONE, 0, 7, &[0; 4]);
        bytes[0] = 200;
        assert!(matches!(answer().take(&bytes, 7), Err(Failure::Broken(_))));
        bytes[0] = 3;
        assert!(matches!(answer().take(&bytes, 7), Err(Failure::Broken(_))));
    }

    /// The sequence numbers and flags of a batch.
    fn sent(batch: &Batch) -> Vec<(u32, u16)> {
        let mut sent = Vec::new();
        each(&batch.bytes, |message, _| {
            sent.push((message.sequence_number(), message.flags()));
            Ok(())
        })
        .unwrap();
        sent
    }

    #[test]
    fn many_requests_are_sent_in_few_batches_and_only_the_last_of_each_is_acknowledged() {
        let requests = std::iter::repeat_n(RouteNetlinkMessage::GetLink(Default::default()), 1000);
        let (mut requests, mut next, mut batches) = (requests.peekable(), u32::MAX - 200, 0);
        while requests.peek().is_some() {
            let mut batch = Batch::new(next);
            batch.fill(0, &mut requests);
            let sent = sent(&batch);
            assert!(sent.len() <= BATCH && sent.len() == batch.outcomes.len());
            for (place, (sequence, flags)) in sent.iter().enumerate() {
                assert_eq!(*sequence, next.wrapping_add(place as u32));
                assert_eq!(flags & NLM_F_ACK != 0, place + 1 == sent.len());
            }
            next = next.wrapping_add(sent.len() as u32);
            batches += 1;
        }
        assert_eq!(batches, 1000_usize.div_ceil(BATCH));
    }

    #[test]
    fn a_refusal_in_a_batch_is_that_requests_alone_and_the_last_answer_completes_it() {
        let mut batch = Batch::new(u32::MAX);
        let messages = std::iter::repeat_n(RouteNetlinkMessage::GetLink(Default::default()), 3);
        batch.fill(0, &mut messages.peekable());
        batch.take(&message(NLMSG_ERROR, 0, 7, &refusal(Errno::PERM, "another's"))).unwrap();
        batch.take(&message(NLMSG_ERROR, 0, 0, &refusal(Errno::EXIST, "File exists"))).unwrap();
        assert!(!batch.complete);
        batch.take(&message(NLMSG_ERROR, 0, 1, &[0; 20])).unwrap();
        assert!(batch.complete);
        let errors: Vec<_> =
            batch.outcomes.iter().map(|outcome| outcome.as_ref().err().and_then(Failure::errno)).collect();
        assert_eq!(errors, [None, Some(Errno::EXIST), None]);
    }
}
